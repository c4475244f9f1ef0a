/** PPTP end to end: goodput and price with and without MPPE, and what its parts cost a packet. */
import { Rc4 } from '../lib/crypto/rc4.ts'
import { MppcCompressor } from '../lib/ppp/mppc/compressor.ts'
import { MppeDecryptor } from '../lib/ppp/mppe/mppe-decryptor.ts'
import { MppeEncryptor } from '../lib/ppp/mppe/mppe-encryptor.ts'
import { MppeKey } from '../lib/ppp/mppe/mppe-key.ts'
import type { Bench, BenchContext } from './bench.ts'
import { type Contender, interleave, nsPer } from './packet-suites.ts'
import { encryptions, PptpPair } from './pptp-server.ts'
import { median, ratioOfPairs } from './statistics.ts'

const packetBytes = 1396
const burst = 256

export const bench: Bench = {
  name: 'pptp',
  about: 'PPTP end to end: goodput, CPU time, packets per second; MPPE and MPPC per packet',
  run: async context => {
    steps(context)
    const repetitions = context.isQuick ? 1 : 5
    for (const encryption of encryptions) {
      const pair = await PptpPair.start(encryption)
      try {
        await goodput(context, pair, encryption, repetitions)
      } finally {
        await pair.close()
      }
    }
  },
}

async function goodput(
  context: BenchContext,
  pair: PptpPair,
  encryption: string,
  repetitions: number,
): Promise<void> {
  const seconds = context.isQuick ? 1 : 3
  for (const direction of ['up', 'down'] as const) await pair.measure(direction, 1, 2)
  for (const direction of ['up', 'down'] as const) {
    const gbit: number[] = []
    const price: number[] = []
    const packets: number[] = []
    const ceiling: number[] = []
    for (let i = 0; i < repetitions; i++) {
      context.say(`${encryption} ${direction}, round ${i + 1} of ${repetitions}`)
      const flow = await pair.measure(direction, 1, seconds)
      gbit.push(flow.gbitPerSecond)
      price.push(flow.gbitPerCpuSecond)
      packets.push(flow.packetsPerSecond / 1000)
      ceiling.push((await pair.rawCeiling(packetBytes)) / 1000)
    }
    const name = `pptp/goodput/${encryption}/${direction}/1`
    context.row({ name, unit: 'Gbit/s', samples: gbit, gbitPerCpuSecond: median(price) })
    context.row({
      name: `pptp/packets/${encryption}/${direction}/1`,
      unit: 'kpps',
      samples: packets,
      ratio: { 'raw-socket': ratioOfPairs(packets, ceiling) },
    })
    if (encryption === 'none') {
      context.row({ name: `pptp/raw-socket/${direction}`, unit: 'kpps', samples: ceiling })
    }
  }
}

/** ns per packet of everything that MPPE and MPPC do. */
function steps(context: BenchContext): void {
  const key = new Uint8Array(16).fill(7)
  const bytes = new Uint8Array(2048)
  const text = new TextEncoder().encode(
    'GET /index.html HTTP/1.1\r\nHost: example.net\r\n'.repeat(40),
  )
  const contender = (name: string, work: () => void): Contender => ({
    name,
    samples: [],
    run: () =>
      nsPer(burst, () => {
        for (let i = 0; i < burst; i++) work()
      }),
  })
  const [cipher, session] = [new Rc4(key), new MppeKey(key, 128)]
  const stateless = new MppeEncryptor(key, 128, true)
  const stateful = new MppeEncryptor(key, 128, false)
  const both = new MppeEncryptor(key, 128, true)
  const decryptor = new MppeDecryptor(key, 128, true, false)
  const compressor = new MppcCompressor(false)
  const contenders = [
    contender('rc4', () => cipher.process(bytes, 0, packetBytes)),
    contender('rc4-key', () => cipher.rekey(key)),
    contender('key-change', () => session.change()),
    contender('encrypt-stateless', () => void stateless.encrypt(bytes, 0, packetBytes)),
    contender('encrypt-stateful', () => void stateful.encrypt(bytes, 0, packetBytes)),
    contender('encrypt-and-decrypt-stateless', () => {
      bytes.set([0, 0x21, 0x45, 0, 0, 40])
      const head = both.encrypt(bytes, 0, packetBytes)
      decryptor.decrypt(head, bytes, 0, packetBytes)
    }),
    contender('mppc-text', () => {
      bytes.set(text.subarray(0, packetBytes))
      compressor.compress(bytes, 0, packetBytes)
    }),
  ]
  interleave(contenders, context.isQuick ? 5 : 21)
  for (const { name, samples } of contenders) {
    context.row({ name: `pptp/step/${name}/${packetBytes}`, unit: 'ns', samples })
  }
}

/** What PPP costs a packet: finding the information field. */
import { peel, putFrameHeader } from '../lib/ppp/wire/frame.ts'
import type { Bench, BenchContext } from './bench.ts'

/** Frames stand one after the other, as in a TLS record full of SSTP packets. */
const frameBytes = 1456
const frames = 512
/** The four forms that clients send. */
const forms = ['full', 'no-address', 'short-protocol', 'short-both'] as const

function burst(form: (typeof forms)[number]): Uint8Array {
  const bytes = new Uint8Array(frameBytes * frames)
  for (let i = 0; i < frames; i++) {
    const at = i * frameBytes
    if (form === 'full') putFrameHeader(bytes, at, 0x0021)
    else if (form === 'no-address') bytes[at + 1] = 0x21
    else if (form === 'short-protocol') bytes.set([0xff, 0x03, 0x21], at)
    else bytes[at] = 0x21
  }
  return bytes
}

/** Nanoseconds per frame, and a sum so that the work cannot be left out. */
function measure(bytes: Uint8Array, rounds: number): { ns: number; sum: number } {
  let sum = 0
  const startNs = process.hrtime.bigint()
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < frames; i++) sum += peel(bytes, i * frameBytes, frameBytes) & 0xffff
  }
  const ns = Number(process.hrtime.bigint() - startNs) / (rounds * frames)
  return { ns, sum }
}

async function run(context: BenchContext): Promise<void> {
  const rounds = context.isQuick ? 200 : 4000
  const repetitions = context.isQuick ? 3 : 9
  const samples = new Map(forms.map(form => [form, [] as number[]]))
  const bursts = new Map(forms.map(form => [form, burst(form)]))
  for (let repetition = -1; repetition < repetitions; repetition++) {
    for (const form of forms) {
      const { ns, sum } = measure(bursts.get(form) ?? new Uint8Array(0), rounds)
      if (sum !== rounds * frames * 0x21) context.say(`ppp/${form}: a frame was not peeled`)
      if (repetition >= 0) samples.get(form)?.push(ns) // The first round warms up.
    }
  }
  for (const form of forms) {
    context.row({ name: `ppp/peel/${form}/1`, unit: 'ns/frame', samples: samples.get(form) ?? [] })
  }
}

export const bench: Bench = {
  name: 'ppp',
  about: 'PPP framing: nanoseconds to find protocol and information field of a frame',
  run,
}

/** ESP packets through whole SAs, in bursts: sequence numbers, padding, cipher, window, inner header. */
import { InvariantError } from '../lib/core/errors.ts'
import { suiteName } from '../lib/crypto/packet-cipher.ts'
import { packetCipherProviders } from '../lib/crypto/packet-ciphers.ts'
import { HeldKeys } from '../lib/ipsec/held-keys.ts'
import { InboundSa } from '../lib/ipsec/inbound-sa.ts'
import { unlimited } from '../lib/ipsec/lifetime.ts'
import { OutboundSa } from '../lib/ipsec/outbound-sa.ts'
import type { Bench, BenchContext } from './bench.ts'
import {
  allocatedBytesPer,
  benchKeys,
  benchSuites,
  burstPackets,
  type Contender,
  gbitPerSecond,
  interleave,
  nsPer,
  packetMemory,
  packetSizes,
  slotBytes,
} from './packet-suites.ts'
import { median, ratioOfPairs } from './statistics.ts'

interface SaContender extends Contender {
  readonly provider: string
  readonly direction: 'seal' | 'open'
}

const memory = packetMemory()

/** A burst of IPv4 packets, sealed and opened again where they stand. */
function contendersOf(suite: (typeof benchSuites)[number], lengthBytes: number): SaContender[] {
  const contenders: SaContender[] = []
  for (const provider of packetCipherProviders) {
    if (provider.name === 'noble' || !provider.supports(suite, memory)) continue
    const shared = {
      spi: 0x11223344,
      suite,
      provider,
      memory,
      lifetime: { soft: unlimited, hard: unlimited },
      nowMs: 0,
    }
    const [outboundKeys, inboundKeys] = HeldKeys.pair(benchKeys(suite), benchKeys(suite))
    const outbound = new OutboundSa({ ...shared, keys: outboundKeys })
    const inbound = new InboundSa({
      ...{ ...shared, keys: inboundKeys },
      mode: 'tunnel',
      replayWindowPackets: 1024,
      selectors: undefined,
    })
    const packetAt = (i: number) => 64 + i * slotBytes
    const lengths = new Int32Array(burstPackets)
    const place = () => {
      for (let i = 0; i < burstPackets; i++) {
        memory.view.setUint8(packetAt(i), 0x45)
        memory.view.setUint16(packetAt(i) + 2, lengthBytes)
      }
    }
    const seal = () => {
      for (let i = 0; i < burstPackets; i++) lengths[i] = outbound.sealIp(packetAt(i), lengthBytes)
    }
    const open = () => {
      for (let i = 0; i < burstPackets; i++) {
        const length = inbound.open(packetAt(i) - outbound.headroomBytes, lengths[i] ?? 0)
        if (length !== lengthBytes) throw new InvariantError(`a packet was refused: ${length}`)
      }
    }
    contenders.push(
      {
        name: `${provider.name}/seal`,
        provider: provider.name,
        direction: 'seal',
        samples: [],
        run: () => {
          place()
          return nsPer(burstPackets, seal)
        },
      },
      {
        name: `${provider.name}/open`,
        provider: provider.name,
        direction: 'open',
        samples: [],
        run: () => nsPer(burstPackets, open),
      },
    )
  }
  return contenders
}

function timeSuite(context: BenchContext, suite: (typeof benchSuites)[number]): void {
  for (const lengthBytes of packetSizes) {
    const contenders = contendersOf(suite, lengthBytes)
    interleave(contenders, context.isQuick ? 3 : 40)
    for (const { provider, direction, samples } of contenders) {
      const rival = contenders.find(
        other => other.provider === 'node' && other.direction === direction,
      )
      context.row({
        name: `esp/${suiteName(suite)}/${provider}/${direction}/${lengthBytes}`,
        unit: 'ns/packet',
        samples,
        gbitPerCpuSecond: gbitPerSecond(lengthBytes, median(samples)),
        ...(provider.startsWith('evp') &&
          rival !== undefined && { ratio: { node: ratioOfPairs(rival.samples, samples) } }),
      })
    }
  }
}

function measureAllocation(context: BenchContext, suite: (typeof benchSuites)[number]): void {
  const contenders = contendersOf(suite, 1400)
  interleave(contenders, 60)
  for (const provider of ['evp-record', 'evp', 'node']) {
    const [seal, open] = contenders.filter(contender => contender.provider === provider)
    if (seal === undefined || open === undefined) continue
    const bursts = 20
    const bytes = allocatedBytesPer(2 * bursts * burstPackets, () => {
      for (let i = 0; i < bursts; i++) {
        seal.run()
        open.run()
      }
    })
    context.row({
      name: `esp/${suiteName(suite)}/${provider}/heap`,
      unit: 'bytes/packet',
      samples: [bytes],
    })
  }
}

export const bench: Bench = {
  name: 'esp',
  about: 'ESP packets through SAs: seal and open at 64, 576 and 1400 bytes, heap per packet',
  run: async context => {
    for (const suite of benchSuites) timeSuite(context, suite)
    for (const suite of benchSuites.slice(0, 4)) measureAllocation(context, suite)
  },
}

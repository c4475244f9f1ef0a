/** The primitives alone: packets through each cipher provider, and key exchanges. */
import { InvariantError } from '../lib/core/errors.ts'
import { systemRandom } from '../lib/core/random.ts'
import { keyExchange } from '../lib/crypto/key-exchanges.ts'
import { type PacketCipherProvider, suiteName } from '../lib/crypto/packet-cipher.ts'
import { packetCipherProviders } from '../lib/crypto/packet-ciphers.ts'
import { createPrf, prfPlus } from '../lib/crypto/prf.ts'
import { keyExchangeTransforms, PrfId } from '../lib/crypto/transforms.ts'
import type { Bench, BenchContext } from './bench.ts'
import {
  benchKeys,
  benchSuites,
  burstPackets,
  type Contender,
  interleave,
  nsPer,
  packetMemory,
  slotBytes,
} from './packet-suites.ts'
import { median, ratioOfPairs } from './statistics.ts'

const bodyBytes = 1408

function timePackets(context: BenchContext): void {
  const memory = packetMemory()
  const rounds = context.isQuick ? 3 : 25
  for (const suite of benchSuites) {
    const contenders: (Contender & { provider: PacketCipherProvider })[] = []
    for (const provider of packetCipherProviders) {
      if (!provider.supports(suite, memory)) continue
      const packets = provider.name === 'noble' ? 4 : burstPackets
      const sealer = provider.sealer(suite, benchKeys(suite), memory)
      const opener = provider.opener(suite, benchKeys(suite), memory)
      let sequence = 0
      const at = (i: number) => 64 + i * slotBytes
      const seal = () => {
        for (let i = 0; i < packets; i++) {
          memory.view.setUint32(at(i) + 4, ++sequence)
          sealer.seal(at(i), bodyBytes, 0)
        }
      }
      const open = () => {
        for (let i = 0; i < packets; i++) {
          if (!opener.open(at(i), bodyBytes, 0)) throw new InvariantError('a packet was refused')
        }
      }
      contenders.push(
        { provider, name: 'seal', samples: [], run: () => nsPer(packets, seal) },
        { provider, name: 'open', samples: [], run: () => nsPer(packets, open) },
      )
    }
    interleave(contenders, rounds)
    for (const { provider, name, samples } of contenders) {
      const node = contenders.find(other => other.provider.name === 'node' && other.name === name)
      context.row({
        name: `${suiteName(suite)}/${provider.name}/${name}/${bodyBytes}`,
        unit: 'ns/packet',
        samples,
        gbitPerCpuSecond: (bodyBytes * 8) / median(samples),
        ...(provider.name.startsWith('evp') &&
          node !== undefined && { ratio: { node: ratioOfPairs(node.samples, samples) } }),
      })
    }
  }
}

function timeKeyExchanges(context: BenchContext): void {
  const contenders: Contender[] = []
  for (const { id, name } of keyExchangeTransforms) {
    const exchange = keyExchange(id)
    if (exchange === undefined) continue
    const offer = exchange.offer(systemRandom)
    contenders.push({
      name,
      samples: [],
      run: () => nsPer(1, () => exchange.answer(offer.publicValue, systemRandom)) / 1000,
    })
  }
  interleave(contenders, context.isQuick ? 3 : 30)
  for (const { name, samples } of contenders) {
    context.row({ name: `key-exchange/${name}/answer`, unit: 'µs', samples })
  }
}

function timePrf(context: BenchContext): void {
  const prf = createPrf(PrfId.hmacSha256)
  const contender: Contender = {
    name: 'prf+',
    samples: [],
    run: () => nsPer(1, () => prfPlus(prf, new Uint8Array(32), new Uint8Array(48), 224)),
  }
  interleave([contender], context.isQuick ? 3 : 30)
  context.row({ name: 'prf+/HMAC-SHA2-256/224 bytes', unit: 'ns', samples: contender.samples })
}

export const bench: Bench = {
  name: 'crypto',
  about: 'packets through each cipher provider, key exchanges, prf+',
  run: async context => {
    timePackets(context)
    timeKeyExchanges(context)
    timePrf(context)
  },
}

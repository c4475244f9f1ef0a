/** Two halves of an SA over one test memory. */
import type { PacketCipherProviderName, PacketSuite } from '../../lib/crypto/packet-cipher.ts'
import { packetCipherProvider } from '../../lib/crypto/packet-ciphers.ts'
import { HeldKeys } from '../../lib/ipsec/held-keys.ts'
import { type EspMode, InboundSa } from '../../lib/ipsec/inbound-sa.ts'
import { type LifetimeOptions, unlimited } from '../../lib/ipsec/lifetime.ts'
import { OutboundSa } from '../../lib/ipsec/outbound-sa.ts'
import type { TrafficSelectors } from '../../lib/ipsec/traffic-selectors.ts'
import { keysOf, testMemory } from '../crypto/suites.ts'

export const memory = testMemory(65_536)

export interface PairOptions {
  readonly mode?: EspMode
  readonly provider?: PacketCipherProviderName
  readonly lifetime?: LifetimeOptions
  readonly replayWindowPackets?: number
  readonly selectors?: TrafficSelectors
  readonly startSequence?: { readonly high: number; readonly low: number }
  readonly spi?: number
}

export function pairOf(suite: PacketSuite, options: PairOptions = {}) {
  const provider = packetCipherProvider(suite, memory, options.provider)
  if (provider === undefined) throw new Error('nobody carries the suite')
  const shared = {
    spi: options.spi ?? 0xc0ffee01,
    suite,
    provider,
    memory,
    lifetime: options.lifetime ?? { soft: unlimited, hard: unlimited },
    nowMs: 1000,
  }
  const { startSequence } = options
  const [outboundKeys, inboundKeys] = HeldKeys.pair(keysOf(suite), keysOf(suite))
  return {
    outbound: new OutboundSa({
      ...{ ...shared, keys: outboundKeys },
      ...(startSequence !== undefined && { startSequence }),
    }),
    inbound: new InboundSa({
      ...{ ...shared, keys: inboundKeys },
      mode: options.mode ?? 'tunnel',
      replayWindowPackets: options.replayWindowPackets ?? 64,
      selectors: options.selectors,
    }),
  }
}

/** An IPv4 packet of `lengthBytes` (at least 28), UDP from 10.0.0.1:1000 to 192.0.2.9:53. */
export function ipv4Packet(lengthBytes: number): Uint8Array {
  const packet = Uint8Array.from({ length: lengthBytes }, (_, i) => i)
  const view = new DataView(packet.buffer)
  view.setUint8(0, 0x45)
  view.setUint16(2, lengthBytes)
  view.setUint16(6, 0)
  view.setUint8(9, 17)
  view.setUint32(12, 0x0a000001)
  view.setUint32(16, 0xc0000209)
  view.setUint16(20, 1000)
  view.setUint16(22, 53)
  view.setUint16(24, lengthBytes - 20)
  return packet
}

/** An IPv6 packet of `lengthBytes` (at least 48), UDP from fd00::1 port 1000 to fd00::2 port 53. */
export function ipv6Packet(lengthBytes: number): Uint8Array {
  const packet = Uint8Array.from({ length: lengthBytes }, (_, i) => i)
  const view = new DataView(packet.buffer)
  packet.fill(0, 0, 40)
  view.setUint8(0, 0x60)
  view.setUint16(4, lengthBytes - 40)
  view.setUint8(6, 17)
  for (const [at, last] of [
    [8, 1],
    [24, 2],
  ] as const) {
    view.setUint8(at, 0xfd)
    view.setUint8(at + 15, last)
  }
  view.setUint16(40, 1000)
  view.setUint16(42, 53)
  view.setUint16(44, lengthBytes - 40)
  return packet
}

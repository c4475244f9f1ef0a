/** Both halves of one pair of SAs, made of what IKE negotiated. */
import type { PacketKeys, PacketSuite } from '../crypto/packet-cipher.ts'
import { packetCipherProvider } from '../crypto/packet-ciphers.ts'
import type { PinnedMemory } from '../dataplane/dataplane.ts'
import { HeldKeys } from './held-keys.ts'
import { type EspMode, InboundSa } from './inbound-sa.ts'
import { type LifetimeOptions, unlimited } from './lifetime.ts'
import { OutboundSa } from './outbound-sa.ts'
import { type TrafficSelector, TrafficSelectors } from './traffic-selectors.ts'

/** Implementation constants: a window for reordering across a fast network, and rekeying in good time. */
const REPLAY_WINDOW_PACKETS = 2048
const REKEY_PACKETS = 2 ** 31

export interface EspChildOptions {
  /** Tunnel mode when absent. */
  readonly mode?: EspMode
  readonly inboundSpi: number
  readonly outboundSpi: number
  readonly suite: PacketSuite
  readonly inboundKeys: PacketKeys
  readonly outboundKeys: PacketKeys
  readonly localSelectors: readonly TrafficSelector[]
  readonly remoteSelectors: readonly TrafficSelector[]
  /** Bytes each way after which a rekey is asked for; `Infinity` for none. */
  readonly rekeyBytes: number
  readonly nowMs: number
}

export class EspChild {
  readonly inbound: InboundSa
  readonly outbound: OutboundSa
  readonly selectors: TrafficSelectors
  #isRekeyAsked = false

  private constructor(inbound: InboundSa, outbound: OutboundSa, selectors: TrafficSelectors) {
    this.inbound = inbound
    this.outbound = outbound
    this.selectors = selectors
  }

  /** Undefined when no library here can do the suite. The keys are copied. */
  static make(memory: PinnedMemory, options: EspChildOptions): EspChild | undefined {
    const { suite, nowMs, localSelectors, remoteSelectors } = options
    const provider = packetCipherProvider(suite, memory)
    if (provider === undefined) return undefined
    const lifetime: LifetimeOptions = {
      soft: { timeMs: unlimited.timeMs, bytes: options.rekeyBytes, packets: REKEY_PACKETS },
      // A limit of volume asks for new keys; it does not cut the line while they are made.
      hard: unlimited,
    }
    const common = { suite, provider, memory, lifetime, nowMs }
    const [inboundKeys, outboundKeys] = HeldKeys.pair(options.inboundKeys, options.outboundKeys)
    const selectors = new TrafficSelectors(remoteSelectors, localSelectors)
    return new EspChild(
      new InboundSa({
        ...common,
        spi: options.inboundSpi,
        mode: options.mode ?? 'tunnel',
        keys: inboundKeys,
        replayWindowPackets: REPLAY_WINDOW_PACKETS,
        selectors,
      }),
      new OutboundSa({ ...common, spi: options.outboundSpi, keys: outboundKeys }),
      selectors,
    )
  }

  /** Whether one direction has carried as much as it may under these keys; said once. */
  needsRekey(nowMs: number): boolean {
    if (this.#isRekeyAsked) return false
    const isDue =
      this.inbound.lifetime.poll(nowMs) !== undefined ||
      this.outbound.lifetime.poll(nowMs) !== undefined
    this.#isRekeyAsked = isDue
    return isDue
  }
}

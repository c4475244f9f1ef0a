/** The ESP of a stock client: pairs of SAs, the newest of which sends. */
import { u32 } from '../../lib/core/bytes.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import { EspChild, type EspChildOptions } from '../../lib/ipsec/esp-child.ts'
import type { TrafficSelector } from '../../lib/ipsec/traffic-selectors.ts'

const placeBytes = 4096
const headroomBytes = 64

/** Everything of both families: what comes out is judged by the test. */
const anything: readonly TrafficSelector[] = [4, 16].map(bytes => ({
  protocol: 0,
  startPort: 0,
  endPort: 0xffff,
  startAddress: new Uint8Array(bytes),
  endAddress: new Uint8Array(bytes).fill(0xff),
}))

export type StockPair = Pick<
  EspChildOptions,
  'mode' | 'inboundSpi' | 'outboundSpi' | 'suite' | 'inboundKeys' | 'outboundKeys'
>

export class StockEsp {
  readonly #memory = new PacketMemory({ sizeBytes: 65_536 })
  readonly #at = this.#memory.allocate(placeBytes)
  readonly #pairs = new Map<number, EspChild>()
  #current: EspChild | undefined

  get inboundSpis(): number[] {
    return [...this.#pairs.keys()]
  }

  /** The pair that is sent on. */
  get current(): EspChild | undefined {
    return this.#current
  }

  outboundSpi(inboundSpi: number): number {
    return this.#pairs.get(inboundSpi)?.outbound.spi ?? 0
  }

  /** The pair whose outbound SPI this is, by its inbound one. */
  inboundSpiOf(outboundSpi: number): number | undefined {
    return [...this.#pairs.values()].find(({ outbound }) => outbound.spi === outboundSpi)?.inbound
      .spi
  }

  add(pair: StockPair): void {
    const child = EspChild.make(this.#memory, {
      ...pair,
      localSelectors: anything,
      remoteSelectors: anything,
      rekeyBytes: Number.POSITIVE_INFINITY,
      nowMs: 0,
    })
    if (child === undefined) throw new Error('no cipher for this pair')
    this.#pairs.set(pair.inboundSpi, child)
    this.#current = child
  }

  remove(inboundSpi: number): void {
    const gone = this.#pairs.get(inboundSpi)
    this.#pairs.delete(inboundSpi)
    gone?.inbound.close()
    gone?.outbound.close()
    if (gone === this.#current) this.#current = [...this.#pairs.values()].at(-1)
  }

  /** The ESP packet of an IP packet, or in transport mode of what `nextHeader` says. */
  seal(packet: Uint8Array, nextHeader?: number): Uint8Array {
    const outbound = this.#current?.outbound
    if (outbound === undefined) throw new Error('no pair to send on')
    const { bytes } = this.#memory
    const at = this.#at + headroomBytes
    bytes.set(packet, at)
    const lengthBytes =
      nextHeader === undefined
        ? outbound.sealIp(at, packet.length)
        : outbound.seal(at, packet.length, nextHeader)
    if (lengthBytes < 0) throw new Error(`ESP refuses with ${lengthBytes}`)
    const from = at - outbound.headroomBytes
    return bytes.slice(from, from + lengthBytes)
  }

  /** What was in an ESP packet, or what is wrong with it. */
  open(packet: Uint8Array): Uint8Array | string {
    const inbound = this.#pairs.get(u32(packet, 0))?.inbound
    if (inbound === undefined) return `ESP for SPI ${u32(packet, 0)}, which is not ours`
    const { bytes } = this.#memory
    bytes.set(packet, this.#at)
    const lengthBytes = inbound.open(this.#at, packet.length)
    if (lengthBytes < 0) return `ESP is refused with ${lengthBytes}`
    const from = this.#at + inbound.payloadOffset
    return bytes.slice(from, from + lengthBytes)
  }
}

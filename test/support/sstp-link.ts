/** A link without PPP: it remembers what it gets and lets a test say what PPP would say. */
import { copyBytes, toHex } from '../../lib/core/bytes.ts'
import type { DisconnectCause } from '../../lib/core/disconnect-cause.ts'
import { noRoom } from '../../lib/core/packet-sink.ts'
import type { PinnedMemory } from '../../lib/dataplane/dataplane.ts'
import type { Carrier, Link, LinkFactory } from '../../lib/ppp/carrier.ts'

export class FakeLink implements Link {
  readonly carrier: Carrier
  readonly frames: Uint8Array[] = []
  isPermitted = false
  lost: DisconnectCause | undefined
  #onChange: (() => void)[] = []
  readonly #memory: PinnedMemory

  constructor(carrier: Carrier, memory: PinnedMemory) {
    this.carrier = carrier
    this.#memory = memory
  }

  receive(at: number, lengthBytes: number): void {
    this.frames.push(copyBytes(this.#memory.bytes, at, at + lengthBytes))
    this.#changed()
  }

  permitTraffic(): void {
    this.isPermitted = true
    this.#changed()
  }

  carrierLost(cause: DisconnectCause): void {
    if (this.lost !== undefined) throw new Error('carrierLost was called twice')
    this.lost = cause
    this.#changed()
  }

  /** Resolves as soon as `holds`; the test's own timeout ends what never does. */
  until(holds: (link: FakeLink) => boolean): Promise<void> {
    return new Promise(resolve => {
      const check = () => {
        if (!holds(this)) return
        this.#onChange = this.#onChange.filter(other => other !== check)
        resolve()
      }
      this.#onChange.push(check)
      check()
    })
  }

  get received(): string[] {
    return this.frames.map(toHex)
  }

  /** Sends an IP packet as the dataplane does; false when there was no room. */
  send(packet: Uint8Array): boolean {
    const { sink } = this.carrier
    const at = sink.reserve(packet.length)
    if (at === noRoom) return false
    this.#memory.bytes.set(packet, at)
    sink.commit(at, packet.length)
    return true
  }

  #changed(): void {
    for (const check of [...this.#onChange]) check()
  }
}

export class FakeLinks implements LinkFactory {
  readonly links: FakeLink[] = []
  isRefusing = false
  onOpen: (link: FakeLink) => void = () => {}
  readonly #memory: PinnedMemory
  #onLink: (() => void)[] = []

  constructor(memory: PinnedMemory) {
    this.#memory = memory
  }

  open(carrier: Carrier): Link | undefined {
    if (this.isRefusing) return undefined
    const link = new FakeLink(carrier, this.#memory)
    this.links.push(link)
    this.onOpen(link)
    for (const notify of this.#onLink.splice(0)) notify()
    return link
  }

  /** The link with this number, now or as soon as it opens. */
  async at(index: number): Promise<FakeLink> {
    for (;;) {
      const link = this.links[index]
      if (link !== undefined) return link
      await new Promise<void>(resolve => {
        this.#onLink.push(resolve)
      })
    }
  }
}

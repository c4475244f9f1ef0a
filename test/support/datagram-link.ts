/** Datagram sockets without a kernel: planes on one imagined network that delivers when it is told to. */
import { noRoom } from '../../lib/core/packet-sink.ts'
import type {
  DatagramPlane,
  DatagramPort,
  DatagramReceiver,
  DatagramRoute,
  Envelope,
} from '../../lib/dataplane/datagrams.ts'
import type { PinnedMemory } from '../../lib/dataplane/dataplane.ts'
import { SocketAddress } from '../../lib/dataplane/socket-address.ts'

interface Flight {
  readonly from: SocketAddress
  readonly to: SocketAddress
  readonly bytes: Uint8Array
}

interface Opened {
  readonly plane: LinkPlane
  readonly port: DatagramPort
  readonly receiver: DatagramReceiver
}

const placeBytes = 70_000

/** The wire. Addresses are told apart, families too; a NAT is a change of `from`. */
export class DatagramLink {
  readonly flights: Flight[] = []
  readonly opened: Opened[] = []
  /** Looks at a datagram on its way; undefined loses it. */
  onWay: (flight: Flight) => Flight | undefined = flight => flight
  delivered = 0

  /** Delivers what is under way, and what that causes. */
  deliver(): void {
    for (let flight = this.flights.shift(); flight; flight = this.flights.shift()) {
      const changed = this.onWay(flight)
      const to = changed?.to
      const found = to && this.opened.find(({ port }) => port.bound.equals(to))
      if (changed === undefined || found === undefined) continue
      this.delivered++
      found.plane.take(found, changed)
    }
  }

  /** Delivers until nothing moves any more, with the promises between. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3; ) {
      const before = this.delivered
      this.deliver()
      await new Promise(resolve => setImmediate(resolve))
      quiet = before === this.delivered ? quiet + 1 : 0
    }
  }
}

export class LinkPlane implements DatagramPlane {
  readonly isSegmenting = false
  flushes = 0
  readonly #link: DatagramLink
  readonly #memory: PinnedMemory
  readonly #sendAt: number
  readonly #receiveAt: number

  constructor(link: DatagramLink, memory: PinnedMemory) {
    this.#link = link
    this.#memory = memory
    this.#sendAt = memory.allocate(placeBytes)
    this.#receiveAt = memory.allocate(placeBytes)
  }

  open(bound: SocketAddress, receiver: DatagramReceiver): DatagramPort {
    const port: DatagramPort = {
      number: bound.port,
      bound,
      counters: {
        receivedDatagrams: 0,
        receivedBytes: 0,
        sentDatagrams: 0,
        sentBytes: 0,
        droppedQueueFull: 0,
        droppedRefused: 0,
      },
      close: () => {
        const index = this.#link.opened.findIndex(one => one.port === port)
        if (index >= 0) this.#link.opened.splice(index, 1)
      },
    }
    this.#link.opened.push({ plane: this, port, receiver })
    return port
  }

  route({ port, peer, local }: Envelope): DatagramRoute {
    return { port, peer: copyOf(peer), local: copyOf(local) }
  }

  reserve(lengthBytes: number): number {
    return lengthBytes <= 65_507 ? this.#sendAt : noRoom
  }

  commit(at: number, lengthBytes: number, { peer, port }: DatagramRoute): void {
    const bytes = this.#memory.bytes.slice(at, at + lengthBytes)
    this.#link.flights.push({ from: copyOf(port.bound), to: copyOf(peer), bytes })
  }

  flush(): void {
    this.flushes++
  }

  take({ port, receiver }: Opened, { from, to, bytes }: Flight): void {
    this.#memory.bytes.set(bytes, this.#receiveAt)
    receiver.receive(this.#receiveAt, bytes.length, { port, peer: from, local: to })
    receiver.endBurst?.()
  }
}

export function copyOf(address: SocketAddress): SocketAddress {
  const copy = new SocketAddress()
  copy.set(address)
  return copy
}

/**
 * A network of hosts whose sockets are objects: what one flushes flies until the test delivers it, and
 * may be changed, lost, repeated or sent from elsewhere on its way.
 */
import { BindError } from '../../lib/core/errors.ts'
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

export interface Endpoint {
  readonly address: string
  /** 0 for a raw IP protocol. */
  readonly port: number
}

export interface Flight {
  readonly from: Endpoint
  readonly to: Endpoint
  readonly bytes: Uint8Array
}

const ARENA_BYTES = 256 * 1024
const BUFFER_BYTES = 65_536
const longestBytes = 65_507

class MemoryPort implements DatagramPort {
  readonly bound: SocketAddress
  readonly receiver: DatagramReceiver
  readonly peer = new SocketAddress()
  readonly local = new SocketAddress()
  readonly counters = {
    receivedDatagrams: 0,
    receivedBytes: 0,
    sentDatagrams: 0,
    sentBytes: 0,
    droppedQueueFull: 0,
    droppedRefused: 0,
  }
  isOpen = true

  constructor(bound: SocketAddress, receiver: DatagramReceiver) {
    this.bound = bound
    this.receiver = receiver
    this.local.set(bound)
  }

  get number(): number {
    return this.bound.port
  }

  close(): void {
    this.isOpen = false
  }
}

/** The sockets of one host. */
export class MemoryPlane implements DatagramPlane {
  readonly isSegmenting = true
  readonly ports: MemoryPort[] = []
  /** Ports that somebody else has. */
  readonly takenPorts = new Set<number>()
  readonly #network: DatagramNetwork
  readonly #memory: PinnedMemory
  readonly #arenaAt: number
  readonly #bufferAt: number
  readonly #onBurstEnd: () => void
  readonly #queue: { readonly port: MemoryPort; readonly flight: Flight }[] = []
  #nextAt: number
  #reservedBytes = 0

  constructor(network: DatagramNetwork, memory: PinnedMemory, onBurstEnd: () => void) {
    this.#network = network
    this.#memory = memory
    this.#onBurstEnd = onBurstEnd
    this.#arenaAt = memory.allocate(ARENA_BYTES)
    this.#bufferAt = memory.allocate(BUFFER_BYTES)
    this.#nextAt = this.#arenaAt
  }

  open(bound: SocketAddress, receiver: DatagramReceiver): DatagramPort {
    if (this.takenPorts.has(bound.port)) {
      throw new BindError(`cannot open UDP port ${bound.port}: bind: EADDRINUSE`)
    }
    const port = new MemoryPort(bound, receiver)
    this.ports.push(port)
    return port
  }

  route(envelope: Envelope): DatagramRoute {
    const [peer, local] = [new SocketAddress(), new SocketAddress()]
    peer.set(envelope.peer)
    local.set(envelope.local)
    return { port: envelope.port, peer, local }
  }

  reserve(lengthBytes: number): number {
    if (lengthBytes > longestBytes) return noRoom
    if (this.#nextAt + lengthBytes > this.#arenaAt + ARENA_BYTES) this.flush()
    this.#reservedBytes = lengthBytes
    return this.#nextAt
  }

  commit(at: number, lengthBytes: number, route: DatagramRoute): void {
    if (at !== this.#nextAt || lengthBytes > this.#reservedBytes) {
      throw new RangeError(`${lengthBytes} bytes at ${at} were not reserved`)
    }
    this.#nextAt += lengthBytes
    this.#queue.push({
      port: route.port as MemoryPort,
      flight: {
        from: { address: route.local.text, port: route.port.number },
        to: { address: route.peer.text, port: route.peer.port },
        bytes: this.#memory.bytes.slice(at, at + lengthBytes),
      },
    })
  }

  flush(): void {
    for (const { port, flight } of this.#queue.splice(0)) {
      if (!port.isOpen) {
        port.counters.droppedRefused++
        continue
      }
      port.counters.sentDatagrams++
      port.counters.sentBytes += flight.bytes.length
      this.#network.send(flight)
    }
    this.#memory.bytes.fill(0xa5, this.#arenaAt, this.#nextAt)
    this.#nextAt = this.#arenaAt
  }

  /** As the kernel would: to a socket of this port and address; what nobody wants is gone. */
  receive({ from, to, bytes }: Flight): void {
    const address = SocketAddress.of(to.address, to.port)
    const port = this.ports.find(
      one =>
        one.isOpen &&
        one.number === to.port &&
        one.bound.family === address.family &&
        (one.bound.isAny || one.bound.equals(address)),
    )
    if (port === undefined) return
    port.peer.set(SocketAddress.of(from.address, from.port))
    port.local.set(address)
    port.counters.receivedDatagrams++
    port.counters.receivedBytes += bytes.length
    this.#memory.bytes.set(bytes, this.#bufferAt)
    port.receiver.receive(this.#bufferAt, bytes.length, {
      port,
      peer: port.peer,
      local: port.local,
    })
    port.receiver.endBurst?.()
    this.#onBurstEnd()
    this.flush()
    // The buffer and the envelope are used again: what was kept of them shows.
    this.#memory.bytes.fill(0xa5, this.#bufferAt, this.#bufferAt + bytes.length)
    port.peer.set(SocketAddress.of('203.0.113.250', 65_000))
  }
}

export class DatagramNetwork {
  /** What was sent and not delivered yet. */
  readonly flying: Flight[] = []
  /** Everything that was ever sent. */
  readonly sent: Flight[] = []
  /** What becomes of a datagram; undefined loses it. */
  onPath: (flight: Flight) => Flight | undefined = flight => flight
  readonly #hosts = new Map<string, { receive(flight: Flight): void }>()

  /** A host with these addresses. */
  host(
    addresses: readonly string[],
    memory: PinnedMemory,
    onBurstEnd: () => void = () => {},
  ): MemoryPlane {
    const plane = new MemoryPlane(this, memory, onBurstEnd)
    for (const address of addresses) this.#hosts.set(address, plane)
    return plane
  }

  /** A host without sockets: it takes every datagram for its address as it is. */
  listen(address: string, receive: (flight: Flight) => void): void {
    this.#hosts.set(address, { receive })
  }

  send(flight: Flight): void {
    this.sent.push(flight)
    const changed = this.onPath(flight)
    if (changed !== undefined) this.flying.push(changed)
  }

  /** Delivers until nothing flies any more. */
  settle(): void {
    for (let i = 0; i < 100_000; i++) {
      const flight = this.flying.shift()
      if (flight === undefined) return
      this.deliver(flight)
    }
    throw new RangeError('datagrams that never end')
  }

  deliver(flight: Flight): void {
    this.#hosts.get(flight.to.address)?.receive(flight)
  }
}

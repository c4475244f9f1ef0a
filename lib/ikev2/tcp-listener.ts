/**
 * IKE and ESP over TCP where networks let no UDP through, RFC 9329: connections that look like one more
 * port 4500 to all above. It stands before the plane of the datagram sockets; whatever has a route to a
 * connection goes into its stream, all else goes on. A connection that we opened is opened again when there
 * is something to send and it is gone: that is its originator's task (RFC 9329 §6.1).
 */
import { createServer, connect as openSocket, type Server, Socket } from 'node:net'
import { putU16, putU32 } from '../core/bytes.ts'
import { BindError, ConnectError, messageOf } from '../core/errors.ts'
import { Counters, faultName } from '../core/faults.ts'
import { unmapped } from '../core/ip-address.ts'
import type {
  DatagramPlane,
  DatagramPort,
  DatagramReceiver,
  DatagramRoute,
  Envelope,
} from '../dataplane/datagrams.ts'
import type { Dataplane } from '../dataplane/dataplane.ts'
import { SocketAddress } from '../dataplane/socket-address.ts'
import { NAT_TRAVERSAL_PORT } from '../ipsec/ike-sockets.ts'
import type { Endpoint } from './path.ts'
import { STREAM_PORTS } from './route.ts'
import { STREAM_PREFIX, StreamReader } from './wire/tcp-stream.ts'

const LENGTH_BYTES = 2
const MARKER_BYTES = 4
const MESSAGE_MAX_BYTES = 65_535 - LENGTH_BYTES

/** Between attempts to reach a peer that does not take our connection, ms. */
const reopenPauseMs = 1000

export interface TcpListenerOptions {
  /** Where everything that is not TCP goes. */
  readonly plane: DatagramPlane
  readonly dataplane: Pick<Dataplane, 'memory' | 'intake' | 'flush'>
  readonly limits?: TcpLimits
}

export interface TcpLimits {
  readonly connections: number
  readonly perSource: number
  /** What may wait for a peer that does not read, bytes; what does not fit is dropped, as on UDP. */
  readonly queueBytes: number
  /** From the connection to its first message, and between two messages afterwards, ms. */
  readonly firstMessageMs: number
  readonly idleMs: number
}

export const defaultTcpLimits: TcpLimits = {
  connections: 2000,
  perSource: 50,
  queueBytes: 1_048_576,
  firstMessageMs: 10_000,
  // Longer than any keepalive (RFC 9329 §6.3 leaves it to us).
  idleMs: 300_000,
}

/** RFC 9329 carries IKEv2 alone. */
const MAJOR_VERSION_AT = 17
const MAJOR_VERSION = 2

/** One connection, as a port of its own: datagrams go out by it and come in by it. */
class TcpPort implements DatagramPort, Envelope, DatagramRoute {
  /** Whatever the number of the TCP port: messages have the marker of this one. */
  readonly number = NAT_TRAVERSAL_PORT
  readonly port = this
  readonly peer: SocketAddress
  readonly local: SocketAddress
  readonly socket: Socket
  readonly isAccepted: boolean
  readonly reader: StreamReader
  readonly counters = {
    receivedDatagrams: 0,
    receivedBytes: 0,
    sentDatagrams: 0,
    sentBytes: 0,
    droppedQueueFull: 0,
    droppedRefused: 0,
  }

  constructor(socket: Socket, isAccepted: boolean, peer: SocketAddress, local: SocketAddress) {
    this.socket = socket
    this.isAccepted = isAccepted
    this.reader = new StreamReader(isAccepted)
    this.peer = peer
    this.local = local
  }

  get bound(): SocketAddress {
    return this.local
  }

  close(): void {
    this.socket.destroy()
  }
}

export class TcpListener implements DatagramPlane {
  readonly #options: TcpListenerOptions
  readonly #limits: TcpLimits
  readonly #servers: Server[] = []
  /** By address and port of the peer. */
  readonly #ports = new Map<string, TcpPort>()
  readonly #perSource = new Map<string, number>()
  /** Peers that we are about to connect to again. */
  readonly #reopening = new Set<string>()
  #isClosed = false
  readonly counters = new Counters()
  #receiver: DatagramReceiver | undefined

  constructor(options: TcpListenerOptions) {
    this.#options = options
    this.#limits = options.limits ?? defaultTcpLimits
  }

  /** Connections that are open. */
  get size(): number {
    return this.#ports.size
  }

  /** Where it listens. */
  get addresses(): Endpoint[] {
    return this.#servers.flatMap(server => {
      const bound = server.address()
      return typeof bound === 'object' && bound !== null
        ? [{ address: bound.address, port: bound.port, isTcp: true } as const]
        : []
    })
  }

  /** Takes connections; RFC 9329 §2 has TCP port 4500. Rejects with BindError, and then nothing is open. */
  async listen(hosts: readonly string[], port: number): Promise<void> {
    try {
      for (const host of hosts) await this.#listenOn(host, port)
    } catch (thrown) {
      await this.close()
      throw thrown
    }
  }

  #listenOn(host: string, port: number): Promise<void> {
    const server = createServer({ noDelay: true }, socket => this.#accept(socket))
    server.maxConnections = this.#limits.connections
    return new Promise((resolve, reject) => {
      const onError = (error: Error) =>
        reject(new BindError(`cannot open TCP port ${port} on ${host}: ${messageOf(error)}`))
      server.once('error', onError)
      server.listen({ host, port, ipv6Only: host.includes(':') }, () => {
        server.off('error', onError)
        // Running out of descriptors is the peers' loss, not the end of the process.
        server.on('error', () => this.counters.count('tcp-accept-failed'))
        this.#servers.push(server)
        resolve()
      })
    })
  }

  /** Opens a connection; the peer that it gives is what to dial. Rejects when nobody takes it. */
  connect(peer: Endpoint): Promise<Endpoint> {
    const socket = openSocket({ host: peer.address, port: peer.port, noDelay: true })
    return new Promise((resolve, reject) => {
      socket.once('error', reject)
      socket.once('connect', () => {
        socket.off('error', reject)
        if (this.#isClosed) {
          socket.destroy()
          reject(new ConnectError('this host closes'))
          return
        }
        const port = this.#take(socket, false)
        socket.write(STREAM_PREFIX)
        resolve({ address: port.peer.text, port: peer.port, isTcp: true })
      })
    })
  }

  /** Ends all connections and opens none again. */
  async close(): Promise<void> {
    this.#isClosed = true
    const closed = this.#servers
      .splice(0)
      .map(server => new Promise<void>(resolve => server.close(() => resolve())))
    for (const port of [...this.#ports.values()]) port.close()
    await Promise.all(closed)
  }

  // DatagramPlane

  open(bound: SocketAddress, receiver: DatagramReceiver, ipProtocol?: number): DatagramPort {
    // What comes over TCP is what comes to this port.
    if (ipProtocol === undefined && bound.port === NAT_TRAVERSAL_PORT) this.#receiver = receiver
    return this.#options.plane.open(bound, receiver, ipProtocol)
  }

  /** A connection that is gone is a route that leads nowhere, not one to UDP. */
  route(envelope: Envelope): DatagramRoute {
    if (envelope.port instanceof TcpPort) return envelope.port
    if (envelope.peer.port < STREAM_PORTS) return this.#options.plane.route(envelope)
    const { peer, local } = envelope
    return this.#ports.get(keyOf(peer)) ?? new TcpPort(new Socket(), false, peer, local)
  }

  get isSegmenting(): boolean {
    return this.#options.plane.isSegmenting
  }

  reserve(lengthBytes: number): number {
    return this.#options.plane.reserve(lengthBytes)
  }

  commit(at: number, lengthBytes: number, route: DatagramRoute): void {
    if (route instanceof TcpPort) this.#write(route, at, lengthBytes)
    else this.#options.plane.commit(at, lengthBytes, route)
  }

  flush(): void {
    this.#options.plane.flush()
  }

  // Streams

  /** A route outlives its connection: whoever has connected to the same place again goes on. */
  #write(route: TcpPort, at: number, lengthBytes: number): void {
    const successor = route.socket.writable ? undefined : this.#ports.get(keyOf(route.peer))
    const { socket, counters } = successor ?? route
    if (lengthBytes > MESSAGE_MAX_BYTES || !socket.writable) {
      counters.droppedRefused++
      this.counters.count('tcp-not-writable')
      if (!route.isAccepted) this.#reopen(route, this.#frame(at, lengthBytes))
      return
    }
    if (socket.writableLength + lengthBytes > this.#limits.queueBytes) {
      counters.droppedQueueFull++
      this.counters.count('tcp-queue-full')
      return
    }
    socket.write(this.#frame(at, lengthBytes))
    counters.sentDatagrams++
    counters.sentBytes += lengthBytes
  }

  /** A copy: the socket keeps it until the kernel takes it. */
  #frame(at: number, lengthBytes: number): Uint8Array {
    const { bytes } = this.#options.dataplane.memory
    const frame = new Uint8Array(LENGTH_BYTES + lengthBytes)
    putU16(frame, 0, frame.length)
    frame.set(bytes.subarray(at, at + lengthBytes), LENGTH_BYTES)
    return frame
  }

  /** One attempt at a time; what called for it goes first. */
  #reopen(route: TcpPort, frame: Uint8Array): void {
    const key = keyOf(route.peer)
    if (this.#isClosed || this.#reopening.has(key)) return
    this.#reopening.add(key)
    this.connect({ address: route.peer.text, port: route.peer.port - STREAM_PORTS }).then(
      () => {
        this.#reopening.delete(key)
        this.counters.count('tcp-reopened')
        this.#ports.get(key)?.socket.write(frame)
      },
      () => {
        this.counters.count('tcp-unreachable')
        setTimeout(() => this.#reopening.delete(key), reopenPauseMs).unref()
      },
    )
  }

  #accept(socket: Socket): void {
    const source = unmapped(socket.remoteAddress ?? '')
    if ((this.#perSource.get(source) ?? 0) >= this.#limits.perSource) {
      this.counters.count('tcp-refused-source')
      socket.destroy()
      return
    }
    this.#take(socket, true)
  }

  #take(socket: Socket, isAccepted: boolean): TcpPort {
    const { remoteAddress, remotePort, localAddress, localPort } = socket
    const peer = streamAddress(remoteAddress, remotePort)
    const port = new TcpPort(socket, isAccepted, peer, streamAddress(localAddress, localPort))
    const key = keyOf(port.peer)
    const source = port.peer.text
    this.#ports.set(key, port)
    this.#perSource.set(source, (this.#perSource.get(source) ?? 0) + 1)
    socket.setTimeout(this.#limits.firstMessageMs, () => {
      this.counters.count('tcp-idle')
      socket.destroy()
    })
    socket.on('data', chunk => this.#read(port, chunk))
    socket.on('error', () => this.counters.count('tcp-broken'))
    // RFC 9329 §6.1: the IKE SA stays; its initiator connects again.
    socket.once('close', () => {
      if (this.#ports.get(key) === port) this.#ports.delete(key)
      const left = (this.#perSource.get(source) ?? 1) - 1
      if (left > 0) this.#perSource.set(source, left)
      else this.#perSource.delete(source)
    })
    return port
  }

  #read(port: TcpPort, chunk: Uint8Array): void {
    const { reader, counters, socket } = port
    const { dataplane } = this.#options
    const messages = reader.push(chunk)
    if (messages.length > 0) socket.setTimeout(this.#limits.idleMs)
    for (const { type, bytes } of messages) {
      if (type === 'ike' && (bytes[MAJOR_VERSION_AT] ?? 0) >>> 4 !== MAJOR_VERSION) {
        this.counters.count('tcp-other-version')
        continue
      }
      const markerBytes = type === 'ike' ? MARKER_BYTES : 0
      const lengthBytes = markerBytes + bytes.length
      const at = dataplane.intake(lengthBytes)
      if (markerBytes > 0) putU32(dataplane.memory.bytes, at, 0)
      dataplane.memory.bytes.set(bytes, at + markerBytes)
      counters.receivedDatagrams++
      counters.receivedBytes += lengthBytes
      this.#receiver?.receive(at, lengthBytes, port)
      // The next one may need the room that this one stands in.
      this.#receiver?.endBurst?.()
      if (socket.destroyed) break
    }
    if (messages.length > 0) {
      dataplane.flush()
      this.flush()
    }
    if (reader.fault) {
      this.counters.count(`tcp-malformed-${faultName(reader.fault)}`)
      socket.destroy()
    }
  }
}

function streamAddress(address = '0.0.0.0', port = 0): SocketAddress {
  return SocketAddress.of(unmapped(address), STREAM_PORTS + port)
}

function keyOf(peer: SocketAddress): string {
  return `${peer.text} ${peer.port}`
}

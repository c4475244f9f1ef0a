/**
 * The sockets that all of IPsec shares: UDP 500 for IKE, UDP 4500 for IKE and ESP side by side
 * (RFC 3948), and, where it is wanted, ESP without UDP. Datagrams are told apart here; IKE goes by its
 * major version, since IKEv1 and IKEv2 share the ports (RFC 7296 §2.5).
 */
import { Counters } from '../core/faults.ts'
import type {
  DatagramPlane,
  DatagramPort,
  DatagramReceiver,
  DatagramRoute,
  Envelope,
} from '../dataplane/datagrams.ts'
import type { PinnedMemory } from '../dataplane/dataplane.ts'
import { SocketAddress } from '../dataplane/socket-address.ts'
import type { EspReceiver } from './esp-receiver.ts'
import { DatagramKind, datagramKind, NON_ESP_MARKER_BYTES } from './udp-encapsulation.ts'

export const IKE_PORT = 500
export const NAT_TRAVERSAL_PORT = 4500
const ESP_PROTOCOL = 50

const VERSION_AT = 17
const IKE_HEADER_BYTES = 28

/** What one major version of IKE does with its messages. */
export interface IkeHandler {
  /** One message without marker; `bytes` is used during the call only. */
  message(bytes: Uint8Array, envelope: Envelope): void
}

export interface IkeSocketsOptions {
  readonly plane: DatagramPlane
  readonly memory: PinnedMemory
  readonly esp: EspReceiver
  /** IP addresses to bind; `0.0.0.0` and `::` for all. */
  readonly hosts: readonly string[]
  /** Also take ESP as IP protocol 50. */
  readonly takesPlainEsp: boolean
  onLost(reason: string): void
}

export class IkeSockets {
  readonly #options: IkeSocketsOptions
  readonly #handlers = new Map<number, IkeHandler>()
  readonly #ports: DatagramPort[] = []
  /** What came and was not ESP, and what could not be sent. */
  readonly counters = new Counters()

  constructor(options: IkeSocketsOptions) {
    this.#options = options
  }

  /** Messages of this major version go to `handler`. */
  handle(majorVersion: 1 | 2, handler: IkeHandler): void {
    this.#handlers.set(majorVersion, handler)
  }

  /** Throws BindError; then nothing is open. */
  open(): void {
    const { plane, hosts, takesPlainEsp } = this.#options
    try {
      for (const host of hosts) {
        const ike = SocketAddress.of(host, IKE_PORT)
        const natTraversal = SocketAddress.of(host, NAT_TRAVERSAL_PORT)
        // One by one: when the second cannot be opened, the first is closed again.
        this.#ports.push(
          plane.open(
            ike,
            this.#receiver((at, length, envelope) => this.#ike(at, length, envelope)),
          ),
        )
        this.#ports.push(
          plane.open(
            natTraversal,
            this.#receiver((at, length, envelope) => this.#mixed(at, length, envelope)),
          ),
        )
        if (!takesPlainEsp) continue
        const esp = this.#options.esp
        const plain = this.#receiver((at, length, envelope) => esp.receive(at, length, envelope))
        this.#ports.push(plane.open(SocketAddress.of(host, 0), plain, ESP_PROTOCOL))
      }
    } catch (error) {
      this.close()
      throw error
    }
  }

  close(): void {
    for (const port of this.#ports) port.close()
    this.#ports.length = 0
  }

  get ports(): readonly DatagramPort[] {
    return this.#ports
  }

  /** The socket for datagrams from `localPort` (0: plain ESP) to `peer`, and the way there. */
  routeTo(
    local: { readonly address: string; readonly port: number },
    peer: { readonly address: string; readonly port: number },
  ): DatagramRoute | undefined {
    const from = SocketAddress.of(local.address, local.port)
    const port = this.#ports.find(
      ({ bound }) =>
        bound.port === local.port &&
        bound.family === from.family &&
        (bound.isAny || bound.equals(from)),
    )
    if (port === undefined) return undefined
    const to = SocketAddress.of(peer.address, local.port === 0 ? 0 : peer.port)
    return this.#options.plane.route({ port, peer: to, local: from })
  }

  /** The way back to where a datagram came from. */
  routeBack(envelope: Envelope): DatagramRoute {
    return this.#options.plane.route(envelope)
  }

  /** Sends one IKE message, with the non-ESP marker where it needs one. */
  send(route: DatagramRoute, message: Uint8Array): void {
    const { plane, memory } = this.#options
    const markerBytes = route.port.number === NAT_TRAVERSAL_PORT ? NON_ESP_MARKER_BYTES : 0
    const lengthBytes = markerBytes + message.length
    const at = plane.reserve(lengthBytes)
    if (at < 0) {
      this.counters.count('ike-too-long')
      return
    }
    memory.bytes.fill(0, at, at + markerBytes)
    memory.bytes.set(message, at + markerBytes)
    plane.commit(at, lengthBytes, route)
    plane.flush()
  }

  /** One byte 0xff keeps the mapping of a NAT alive (RFC 3948 §2.3). */
  sendKeepalive(route: DatagramRoute): void {
    const { plane, memory } = this.#options
    const at = plane.reserve(1)
    if (at < 0) return
    memory.bytes[at] = 0xff
    plane.commit(at, 1, route)
    plane.flush()
  }

  #receiver(receive: DatagramReceiver['receive']): DatagramReceiver {
    return {
      receive,
      endBurst: () => this.#options.esp.deliver(),
      lost: reason => this.#options.onLost(reason),
    }
  }

  /** Port 4500. ESP comes first: it is nearly everything. */
  #mixed(at: number, lengthBytes: number, envelope: Envelope): void {
    switch (datagramKind(this.#options.memory.bytes, at, lengthBytes)) {
      case DatagramKind.esp:
        this.#options.esp.receive(at, lengthBytes, envelope)
        return
      case DatagramKind.ike:
        this.#ike(at + NON_ESP_MARKER_BYTES, lengthBytes - NON_ESP_MARKER_BYTES, envelope)
        return
      case DatagramKind.keepalive:
        this.counters.count('keepalive')
        return
      case DatagramKind.malformed:
        this.counters.count('malformed')
        return
    }
  }

  #ike(at: number, lengthBytes: number, envelope: Envelope): void {
    // It may end what ESP packets before it came through.
    this.#options.esp.deliver()
    if (lengthBytes < IKE_HEADER_BYTES) {
      this.counters.count('ike-truncated')
      return
    }
    const { bytes } = this.#options.memory
    const handler = this.#handlers.get((bytes[at + VERSION_AT] ?? 0) >>> 4)
    if (handler === undefined) this.counters.count('ike-other-version')
    else handler.message(bytes.subarray(at, at + lengthBytes), envelope)
  }
}

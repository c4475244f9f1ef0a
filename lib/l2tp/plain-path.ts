/** L2TP in UDP that nobody protects: for networks that are protected otherwise, and for laboratories. */
import type { DatagramRoute, DatagramSender, Envelope } from '../dataplane/datagrams.ts'
import type { L2tpPath } from './l2tp-path.ts'

const LINK_MTU_BYTES = 1500
const UDP_HEADER_BYTES = 8

export class PlainPath implements L2tpPath {
  readonly isVerified = false
  readonly key: string
  readonly peerAddress: string
  readonly peerLabel: string
  readonly largestMessageBytes: number
  readonly #sender: DatagramSender
  readonly #route: DatagramRoute

  constructor(sender: DatagramSender, route: DatagramRoute) {
    const { peer } = route
    this.#sender = sender
    this.#route = route
    this.peerAddress = peer.text
    this.peerLabel = peer.family === 6 ? `[${peer.text}]:${peer.port}` : `${peer.text}:${peer.port}`
    this.key = this.peerLabel
    const ipHeaderBytes = peer.family === 6 ? 40 : 20
    this.largestMessageBytes = LINK_MTU_BYTES - ipHeaderBytes - UDP_HEADER_BYTES
  }

  isOf({ peer, port }: Envelope): boolean {
    return peer.equals(this.#route.peer) && port === this.#route.port
  }

  reserve(lengthBytes: number): number {
    return this.#sender.reserve(lengthBytes)
  }

  /** The port is the route's: a message from another one is another peer's. */
  commit(at: number, lengthBytes: number): void {
    this.#sender.commit(at, lengthBytes, this.#route)
  }

  flush(): void {
    this.#sender.flush()
  }
}

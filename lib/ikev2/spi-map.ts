/** Connections by our SPIs: the original initiator's SPI and the responder's are two name spaces. */
import { toHex } from '../core/bytes.ts'
import type { IkeConnection, SpiTable } from './ike-connection.ts'
import type { Header } from './wire/header.ts'

export interface ConnectionObserver {
  onEstablished?(connection: IkeConnection): void
  onClosed?(connection: IkeConnection): void
}

export class SpiMap implements SpiTable {
  readonly #bySpi = new Map<string, IkeConnection>()
  readonly #connections = new Set<IkeConnection>()
  readonly #observer: ConnectionObserver

  constructor(observer: ConnectionObserver = {}) {
    this.#observer = observer
  }

  get size(): number {
    return this.#connections.size
  }

  get connections(): ReadonlySet<IkeConnection> {
    return this.#connections
  }

  /** The connection that a message is for: our SPI is the one of the other side's role. */
  find({ isFromInitiator, initiatorSpi, responderSpi }: Header): IkeConnection | undefined {
    return this.#bySpi.get(toHex(isFromInitiator ? responderSpi : initiatorSpi))
  }

  add(localSpi: string, connection: IkeConnection): void {
    this.#bySpi.set(localSpi, connection)
    this.#connections.add(connection)
  }

  delete(localSpi: string): void {
    this.#bySpi.delete(localSpi)
  }

  established(connection: IkeConnection): void {
    this.#observer.onEstablished?.(connection)
  }

  closed(connection: IkeConnection): void {
    this.#connections.delete(connection)
    this.#observer.onClosed?.(connection)
  }
}

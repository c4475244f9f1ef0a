/** Connections by our SPIs: the original initiator's SPI and the responder's are two name spaces. */
import { toHex } from '../core/bytes.ts'
import type { IkeConnection, SpiTable } from './ike-connection.ts'
import type { Header } from './wire/header.ts'

export class SpiMap implements SpiTable {
  readonly #bySpi = new Map<string, IkeConnection>()
  readonly #connections = new Set<IkeConnection>()
  readonly #onClosed: (connection: IkeConnection) => void

  constructor(onClosed: (connection: IkeConnection) => void) {
    this.#onClosed = onClosed
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

  closed(connection: IkeConnection): void {
    this.#connections.delete(connection)
    this.#onClosed(connection)
  }
}

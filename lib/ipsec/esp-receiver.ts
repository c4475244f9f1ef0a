/** Received ESP: the SA is found by its SPI, the packet opened in place, and handed to its owner. */

import type { PacketBytes } from '../crypto/packet-cipher.ts'
import type { Envelope } from '../dataplane/datagrams.ts'
import type { SaDatabase } from './sa-database.ts'

export interface EspOwner {
  /** An authentic payload stands at `at`: in tunnel mode an IP packet within the selectors. */
  payload(at: number, lengthBytes: number, nextHeader: number): void
  /** Where authentic packets come from now; looked at for every one of them. */
  heardFrom(envelope: Envelope): void
}

export class EspReceiver {
  readonly database: SaDatabase<EspOwner>
  readonly #view: DataView

  constructor(memory: PacketBytes, database: SaDatabase<EspOwner>) {
    this.database = database
    this.#view = memory.view
  }

  /** What is wrong with a packet is counted at its SA, or at the database when there is none. */
  receive(at: number, lengthBytes: number, envelope: Envelope): void {
    const entry = this.database.find(this.#view, at, lengthBytes)
    if (entry === undefined) return
    const { sa, owner } = entry
    const payloadBytes = sa.open(at, lengthBytes)
    if (payloadBytes < 0) return
    owner.heardFrom(envelope)
    owner.payload(at + sa.payloadOffset, payloadBytes, sa.nextHeader)
  }
}

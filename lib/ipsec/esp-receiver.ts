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

/** Opened packets that wait for `deliver`: what one read of a socket brings. */
const MOST_WAITING = 256

/**
 * First all packets of a burst are opened, then all are handed on: each of the two loops keeps its
 * code in the processor's caches, and the two in turn do not (bench row `ikev2/aes-128-gcm/up`).
 */
export class EspReceiver {
  readonly database: SaDatabase<EspOwner>
  readonly #view: DataView
  readonly #owners: (EspOwner | undefined)[] = new Array(MOST_WAITING).fill(undefined)
  readonly #ats = new Int32Array(MOST_WAITING)
  readonly #lengths = new Int32Array(MOST_WAITING)
  readonly #nextHeaders = new Uint8Array(MOST_WAITING)
  #waiting = 0

  constructor(memory: PacketBytes, database: SaDatabase<EspOwner>) {
    this.database = database
    this.#view = memory.view
  }

  /**
   * Opens one packet; its payload waits for `deliver`. What is wrong with a packet is counted at its
   * SA, or at the database when there is none.
   */
  receive(at: number, lengthBytes: number, envelope: Envelope): void {
    const entry = this.database.find(this.#view, at, lengthBytes)
    if (entry === undefined) return
    const { sa, owner } = entry
    const payloadBytes = sa.open(at, lengthBytes)
    if (payloadBytes < 0) return
    owner.heardFrom(envelope)
    const i = this.#waiting++
    this.#owners[i] = owner
    this.#ats[i] = at + sa.payloadOffset
    this.#lengths[i] = payloadBytes
    this.#nextHeaders[i] = sa.nextHeader
    if (i === MOST_WAITING - 1) this.deliver()
  }

  /** Hands on what was opened, in its order. */
  deliver(): void {
    const count = this.#waiting
    this.#waiting = 0
    for (let i = 0; i < count; i++) {
      const owner = this.#owners[i]
      this.#owners[i] = undefined
      owner?.payload(this.#ats[i] ?? 0, this.#lengths[i] ?? 0, this.#nextHeaders[i] ?? 0)
    }
  }
}

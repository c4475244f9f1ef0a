/**
 * Makes and takes tickets of session resumption, RFC 5723: the state of an IKE SA, sealed with
 * AES-256-GCM under a key that nobody else has. Keys change with time and are never written down, so a
 * restart ends all tickets.
 *
 *  |  version (1)  |  key number (1)  |  IV (8)  |  sealed state  |  ICV (16)  |
 */
import { copyBytes, toHex } from '../core/bytes.ts'
import { Counters } from '../core/faults.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import { wipe } from '../core/secret.ts'
import { PayloadCipher } from '../crypto/payload-cipher.ts'
import { EncryptionId, encryptionKeyBytes, encryptionTransform } from '../crypto/transforms.ts'
import { encodeTicket, parseTicket, type TicketState } from './ticket.ts'

const VERSION = 1
const HEAD_BYTES = 2
const ICV_BYTES = 16
const KEY_BITS = 256

/** A ticket travels in a datagram of its own, which no link should cut into pieces. */
export const TICKET_MAX_BYTES = 1024

/** Tickets that were used are known until they would run out; beyond that the oldest is forgotten. */
const SPENT_MAX = 10_000

export class TicketOffice {
  /** How long a ticket is good for, ms; of those that are made from now on. */
  lifetimeMs: number
  readonly counters = new Counters()
  readonly #random: RandomSource
  #number = 0
  #current: PayloadCipher
  /** Opens what was made before the last change of keys. */
  #previous: PayloadCipher | undefined
  #madeMs: number
  /** Longest life of a ticket under the keys that are held, ms. */
  #longestMs: number
  /** Name of a ticket -> when it runs out, in the order of their use. */
  readonly #spent = new Map<string, number>()

  constructor(random: RandomSource, lifetimeMs: number, nowMs: number) {
    this.#random = random
    this.lifetimeMs = lifetimeMs
    this.#longestMs = lifetimeMs
    this.#current = this.#draw()
    this.#madeMs = nowMs
  }

  /** Undefined when the state is too long for a ticket. */
  issue(state: TicketState, nowMs: number): Uint8Array | undefined {
    this.#rotate(nowMs)
    this.#longestMs = Math.max(this.#longestMs, this.lifetimeMs)
    const plaintext = encodeTicket(state, Math.floor((nowMs + this.lifetimeMs) / 1000))
    const cipher = this.#current
    const lengthBytes = HEAD_BYTES + cipher.bodyBytes(plaintext.length)
    if (lengthBytes > TICKET_MAX_BYTES) {
      this.counters.count('ticket-too-long')
      wipe(plaintext)
      return undefined
    }
    const ticket = new Uint8Array(lengthBytes)
    ticket[0] = VERSION
    ticket[1] = this.#number
    ticket.set(plaintext, HEAD_BYTES + cipher.ivBytes)
    cipher.seal(ticket, HEAD_BYTES, plaintext.length, this.#random)
    wipe(plaintext)
    this.counters.count('ticket-issued')
    return ticket
  }

  /** What the ticket holds; undefined when it is not ours, too old, or was used. */
  open(ticket: Uint8Array, nowMs: number): TicketState | undefined {
    this.#rotate(nowMs)
    const state = this.#read(ticket, nowMs)
    if (typeof state !== 'string') return state
    this.counters.count(`ticket-${state}`)
    return undefined
  }

  /** Its holder has proved to be its owner. It works once: false when it was used before. */
  spend(ticket: Uint8Array, nowMs: number): boolean {
    for (const [name, expiresMs] of this.#spent) {
      if (expiresMs > nowMs && this.#spent.size < SPENT_MAX) break
      this.#spent.delete(name)
    }
    const name = nameOf(ticket)
    if (this.#spent.has(name)) {
      this.counters.count('ticket-used-twice')
      return false
    }
    this.#spent.set(name, nowMs + this.#longestMs)
    this.counters.count('ticket-taken')
    return true
  }

  destroy(): void {
    this.#current.destroy()
    this.#previous?.destroy()
    this.#previous = undefined
    this.#spent.clear()
  }

  #read(ticket: Uint8Array, nowMs: number): TicketState | string {
    if (ticket.length > TICKET_MAX_BYTES || ticket.length < HEAD_BYTES + ICV_BYTES) {
      return 'malformed'
    }
    if (ticket[0] !== VERSION) return 'other-version'
    if (this.#spent.has(nameOf(ticket))) return 'used-twice'
    const isCurrent = ticket[1] === this.#number
    const isPrevious = ticket[1] === ((this.#number - 1) & 0xff)
    const cipher = isCurrent ? this.#current : isPrevious ? this.#previous : undefined
    if (cipher === undefined) return 'other-key'
    // copied: opened in place
    const opened = copyBytes(ticket)
    const lengthBytes = cipher.open(opened, HEAD_BYTES)
    if (lengthBytes < 0) return 'forged'
    const at = HEAD_BYTES + cipher.ivBytes
    const parsed = parseTicket(opened.subarray(at, at + lengthBytes))
    wipe(opened)
    if (parsed === undefined) return 'malformed'
    if (1000 * parsed.expirySeconds > nowMs) return parsed.state
    parsed.state.d.destroy()
    return 'expired'
  }

  /** A key makes tickets for as long as one lives, and opens them for as long again. */
  #rotate(nowMs: number): void {
    const ageMs = nowMs - this.#madeMs
    if (ageMs < this.#longestMs) return
    this.#previous?.destroy()
    this.#previous = ageMs < 2 * this.#longestMs ? this.#current : undefined
    if (this.#previous === undefined) this.#current.destroy()
    this.#current = this.#draw()
    this.#number = (this.#number + 1) & 0xff
    this.#madeMs = nowMs
  }

  #draw(): PayloadCipher {
    const encryption = encryptionTransform(EncryptionId.aesGcm16)
    if (encryption === undefined) throw new TypeError('AES-GCM is in the table')
    const key = randomBytes(this.#random, encryptionKeyBytes(encryption, KEY_BITS))
    const cipher = new PayloadCipher({
      encryption,
      integrity: undefined,
      encryptionKey: key,
      integrityKey: new Uint8Array(0),
    })
    wipe(key)
    return cipher
  }
}

/** Its check value: nobody can make another ticket with the same one. */
function nameOf(ticket: Uint8Array): string {
  return toHex(ticket.subarray(ticket.length - ICV_BYTES))
}

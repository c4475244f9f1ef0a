/**
 * How many packets of a call may be on their way (RFC 2637 §4.2), and how long their acknowledgments
 * may take (§4.4). The window opens while acknowledgments come and halves when they do not; nothing is
 * sent twice. Numbers and time come in, and the answer is whether one more packet may go.
 *
 * Deviation from the RFC: a peer that has acknowledged nothing yet, or nothing for `MAX_TIMEOUTS`
 * time-outs in a row, is not waited for. Some NATs swallow packets that carry an acknowledgment only,
 * and the kernels of Linux and Android never send any.
 */
import { serialDistance32 } from '../core/serial.ts'

/** Specification constants, RFC 2637 §4.4.1 and §4.4.2. */
const ALPHA = 1 / 8
const BETA = 1 / 4
const CHI = 4
const DELTA = 2

/** Implementation constants; §4.4 leaves the first three open. */

/** A peer may delay an acknowledgment by half a second, and its packet has to travel. */
const MIN_TIMEOUT_MS = 600
const MAX_TIMEOUT_MS = 4_000
/** What a peer says of its processing delay is believed up to this. */
const MAX_FIRST_ROUND_TRIP_MS = 1_000
const MAX_TIMEOUTS = 3
/** More is of no use: our own places for packets are fewer. */
const MAX_WINDOW_PACKETS = 256

export class SendWindow {
  readonly #maxPackets: number
  #sizePackets: number
  /** The first sequence number that is not acknowledged, and the next that is sent. */
  #oldest = 0
  #next = 0
  /** One packet at a time is timed; -1: none. */
  #timedSequence = -1
  #timedMs = 0
  #roundTripMs: number
  #deviationMs = 0
  #acknowledgedPackets = 0
  #timeouts = 0
  #hasHeard = false
  /** When the packets that are on their way count as lost; `Infinity` when nothing is waited for. */
  deadlineMs = Number.POSITIVE_INFINITY

  /** `peerWindowPackets` and `processingDelayMs` are what the peer said when the call was set up. */
  constructor(peerWindowPackets: number, processingDelayMs = 0) {
    this.#maxPackets = Math.min(Math.max(peerWindowPackets, 1), MAX_WINDOW_PACKETS)
    // §4.2.1: the first window is half of what the peer offers.
    this.#sizePackets = Math.ceil(this.#maxPackets / 2)
    this.#roundTripMs = Math.min(processingDelayMs, MAX_FIRST_ROUND_TRIP_MS)
  }

  get sizePackets(): number {
    return this.#sizePackets
  }

  /** Sent and neither acknowledged nor given up. */
  get outstandingPackets(): number {
    return serialDistance32(this.#oldest, this.#next)
  }

  get roundTripMs(): number {
    return this.#roundTripMs
  }

  /** §4.4.1: the adaptive time-out. */
  get timeoutMs(): number {
    const timeoutMs = this.#roundTripMs + CHI * this.#deviationMs
    return Math.max(MIN_TIMEOUT_MS, Math.min(timeoutMs, MAX_TIMEOUT_MS))
  }

  /** Whether acknowledgments are waited for. */
  get isObeyed(): boolean {
    return this.#hasHeard && this.#timeouts < MAX_TIMEOUTS
  }

  /** Whether a packet may be sent now. */
  get isOpen(): boolean {
    return !this.isObeyed || this.outstandingPackets < this.#sizePackets
  }

  /** The packet with the next sequence number has left. */
  sent(nowMs: number): void {
    if (this.#timedSequence < 0) {
      this.#timedSequence = this.#next
      this.#timedMs = nowMs
    }
    this.#next = (this.#next + 1) >>> 0
    if (this.isObeyed && this.deadlineMs === Number.POSITIVE_INFINITY) {
      this.deadlineMs = nowMs + this.timeoutMs
    }
  }

  /** The peer has received everything up to `sequence`. False: that was never sent. */
  acknowledged(sequence: number, nowMs: number): boolean {
    if (serialDistance32(sequence, this.#next) <= 0) return false
    this.#hasHeard = true
    this.#timeouts = 0
    this.#measure(sequence, nowMs)
    const count = serialDistance32(this.#oldest, sequence) + 1
    if (count <= 0) return true
    this.#oldest = (sequence + 1) >>> 0
    this.#grow(count)
    this.deadlineMs =
      this.outstandingPackets === 0 ? Number.POSITIVE_INFINITY : nowMs + this.timeoutMs
    return true
  }

  /** §4.2.2, §4.4.2: acknowledgments are late; what is on its way counts as lost. */
  expire(): void {
    this.#timeouts++
    this.#sizePackets = Math.ceil(this.#sizePackets / 2)
    this.#acknowledgedPackets = 0
    this.#roundTripMs = Math.min(Math.max(this.#roundTripMs, 1) * DELTA, MAX_TIMEOUT_MS)
    this.#oldest = this.#next
    this.#timedSequence = -1
    this.deadlineMs = Number.POSITIVE_INFINITY
  }

  #measure(sequence: number, nowMs: number): void {
    if (this.#timedSequence < 0 || serialDistance32(this.#timedSequence, sequence) < 0) return
    const difference = nowMs - this.#timedMs - this.#roundTripMs
    this.#deviationMs += BETA * (Math.abs(difference) - this.#deviationMs)
    this.#roundTripMs += ALPHA * difference
    this.#timedSequence = -1
  }

  /** §4.2.3: one packet more for each window that was acknowledged in time. */
  #grow(count: number): void {
    this.#acknowledgedPackets += count
    while (this.#acknowledgedPackets >= this.#sizePackets && this.#sizePackets < this.#maxPackets) {
      this.#acknowledgedPackets -= this.#sizePackets
      this.#sizePackets++
    }
    this.#acknowledgedPackets = Math.min(this.#acknowledgedPackets, this.#sizePackets)
  }
}

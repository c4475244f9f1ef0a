/**
 * Reliable delivery of control messages (RFC 2661 §5.8, Appendix A): Ns and Nr, a window with slow
 * start and congestion avoidance, retransmission with a measured timeout, delayed acknowledgements.
 *
 * It numbers, orders and repeats; it does not know what the messages mean. Its owner writes nothing
 * itself: every byte goes through `transmit`.
 */
import { serialAdd16, serialDistance16 } from '../core/serial.ts'
import { TimerTable } from '../core/timers.ts'
import { CONTROL_HEADER_BYTES, encodeControlHeader } from './wire/header.ts'

/** Specification constants: RFC 2661 §5.8. */
export const firstTimeoutMs = 1_000
export const longestTimeoutMs = 8_000
export const mostRetransmissions = 5
/** Longest silence of a message that is never acknowledged: 1 + 2 + 4 + 8 + 8 + 8 s. */
export const fullCycleMs = 31_000
/** §4.4.3, Receive Window Size: what a peer that says nothing can take. */
export const defaultWindowPackets = 4

/** Implementation constants. */
const ackDelayMs = 200
const mostQueuedMessages = 256
/** §3.1 and Appendix A: half the number space; a peer's larger offer cannot be used. */
const largestWindowPackets = 32_768

export interface ControlChannelPorts {
  /** `bytes` is the channel's own copy. */
  transmit(bytes: Uint8Array): void
  /** Something happened that only a counter needs to know. */
  count(name: string): void
}

interface Sent {
  /** With room for the header in front. */
  readonly bytes: Uint8Array
  readonly sessionId: number
  readonly ns: number
  sentMs: number
  isRepeated: boolean
}

interface Queued {
  readonly bytes: Uint8Array
  readonly sessionId: number
}

/** What `receive` says of a message with a body. */
export type Reception =
  /** The next one: process it, then ask `takeHeld` for those that waited for it. */
  | 'in-order'
  /** A repetition; it has been acknowledged again. */
  | 'duplicate'
  /** Ahead of the next one, inside the window: kept. */
  | 'held'
  /** Outside of the window, or an acknowledgement of what was never sent. */
  | 'rejected'

export class ControlChannel {
  readonly #ports: ControlChannelPorts
  readonly #timers = new TimerTable<'retransmit' | 'acknowledge'>()
  readonly #receiveWindowPackets: number
  #peerTunnelId = 0

  #nextNs = 0
  #nextNr = 0
  readonly #unacknowledged: Sent[] = []
  readonly #queue: Queued[] = []
  /** Messages that came ahead of their turn, by Ns. */
  readonly #held = new Map<number, Uint8Array>()

  #peerWindowPackets = defaultWindowPackets
  /** Appendix A. */
  #congestionWindow = 1
  #slowStartThreshold = defaultWindowPackets
  #windowFraction = 0

  #smoothedMs = 0
  #variationMs = 0
  #timeoutMs = firstTimeoutMs
  #retransmissions = 0
  #hasGivenUp = false
  /** Bytes that may still be sent to a peer that has not shown that it receives them. */
  #budgetBytes = Number.POSITIVE_INFINITY

  constructor(receiveWindowPackets: number, ports: ControlChannelPorts) {
    this.#receiveWindowPackets = receiveWindowPackets
    this.#ports = ports
  }

  setPeerTunnelId(tunnelId: number): void {
    this.#peerTunnelId = tunnelId
  }

  /** The peer's Receive Window Size; 0 is taken as 1. */
  setPeerWindow(packets: number, nowMs: number): void {
    this.#peerWindowPackets = Math.min(Math.max(packets, 1), largestWindowPackets)
    this.#slowStartThreshold = this.#peerWindowPackets
    this.#pump(nowMs)
  }

  /** Until `lift`, sends at most `factor` times the bytes received: nobody is flooded through us. */
  limitAmplification(): void {
    this.#budgetBytes = 0
  }

  liftAmplificationLimit(): void {
    this.#budgetBytes = Number.POSITIVE_INFINITY
  }

  grantBudget(bytes: number): void {
    this.#budgetBytes += bytes
  }

  /** No answer after the last retransmission. */
  get hasGivenUp(): boolean {
    return this.#hasGivenUp
  }

  /** Everything that was sent has been acknowledged. */
  get isIdle(): boolean {
    return this.#unacknowledged.length === 0 && this.#queue.length === 0
  }

  /** Ns of the next message that is sent. */
  get nextNs(): number {
    return serialAdd16(this.#nextNs, this.#queue.length)
  }

  /** Queues a message, sends it when the window allows. False when too many wait already. */
  send(bytes: Uint8Array, sessionId: number, nowMs: number): boolean {
    if (this.#queue.length >= mostQueuedMessages) return false
    this.#queue.push({ bytes, sessionId })
    this.#pump(nowMs)
    return true
  }

  /** Sends the last message at once, ahead of what waits, which is dropped. */
  sendLast(bytes: Uint8Array, nowMs: number): void {
    this.#queue.length = 0
    this.#transmitNew({ bytes, sessionId: 0 }, nowMs)
  }

  /**
   * A message of the peer. `body` is what to keep of it (a copy is made) when it came early; empty
   * for a zero-length body, which takes no number (§5.8).
   */
  receive(
    ns: number,
    nr: number,
    body: Uint8Array,
    isZeroLength: boolean,
    nowMs: number,
  ): Reception {
    // An Nr ahead of what was sent is a forgery or a fault; behind it is merely old.
    if (serialDistance16(this.#nextNs, nr) > 0) {
      this.#ports.count('l2tp-nr-not-sent')
      return 'rejected'
    }
    this.#acknowledge(nr, nowMs)
    if (isZeroLength) return 'duplicate'
    const ahead = serialDistance16(this.#nextNr, ns)
    if (ahead < 0) {
      this.#ports.count('l2tp-duplicate')
      this.#transmitAcknowledgement()
      return 'duplicate'
    }
    if (ahead >= this.#receiveWindowPackets) {
      this.#ports.count('l2tp-out-of-window')
      return 'rejected'
    }
    if (ahead > 0) {
      this.#ports.count('l2tp-out-of-order')
      if (!this.#held.has(ns)) this.#held.set(ns, Uint8Array.from(body)) // copied: outlives the burst
      this.#transmitAcknowledgement()
      return 'held'
    }
    this.#expectNext(nowMs)
    return 'in-order'
  }

  /** The next message that waited for its predecessor, now in order. */
  takeHeld(nowMs: number): Uint8Array | undefined {
    const bytes = this.#held.get(this.#nextNr)
    if (bytes === undefined) return undefined
    this.#held.delete(this.#nextNr)
    this.#expectNext(nowMs)
    return bytes
  }

  onTimeout(nowMs: number): void {
    for (
      let timer = this.#timers.takeExpired(nowMs);
      timer !== undefined;
      timer = this.#timers.takeExpired(nowMs)
    ) {
      if (timer === 'acknowledge') this.#transmitAcknowledgement()
      else this.#retransmit(nowMs)
    }
  }

  /** Starts the count of retransmissions again: the peer lives, though it does not acknowledge. */
  persevere(nowMs: number): void {
    this.#hasGivenUp = false
    this.#retransmissions = 0
    this.#armRetransmission(nowMs)
  }

  /** Forgets what is not acknowledged: the peer no longer knows us. Still acknowledges. */
  discard(): void {
    this.#unacknowledged.length = 0
    this.#queue.length = 0
    this.#held.clear()
    this.#timers.clear('retransmit')
  }

  stop(): void {
    this.discard()
    this.#timers.clearAll()
  }

  nextDeadlineMs(): number {
    return this.#timers.nextDeadlineMs()
  }

  /** Sends an acknowledgement that is due later now. */
  flushAcknowledgement(): void {
    if (this.#timers.isSet('acknowledge')) this.#transmitAcknowledgement()
  }

  #expectNext(nowMs: number): void {
    this.#nextNr = serialAdd16(this.#nextNr, 1)
    if (!this.#timers.isSet('acknowledge')) this.#timers.set('acknowledge', nowMs + ackDelayMs)
  }

  #acknowledge(nr: number, nowMs: number): void {
    let acknowledged = 0
    for (let first = this.#unacknowledged[0]; first !== undefined; ) {
      if (serialDistance16(first.ns, nr) <= 0) break
      this.#unacknowledged.shift()
      acknowledged++
      // Karn: a repeated message says nothing about the round trip.
      if (!first.isRepeated) this.#measure(nowMs - first.sentMs)
      this.#openWindow()
      first = this.#unacknowledged[0]
    }
    if (acknowledged === 0) return
    this.#retransmissions = 0
    this.#hasGivenUp = false
    this.#armRetransmission(nowMs)
    this.#pump(nowMs)
  }

  /** RFC 6298 §2, between the bounds of RFC 2661 §5.8. */
  #measure(roundTripMs: number): void {
    if (this.#smoothedMs === 0) {
      this.#smoothedMs = roundTripMs
      this.#variationMs = roundTripMs / 2
    } else {
      this.#variationMs += (Math.abs(this.#smoothedMs - roundTripMs) - this.#variationMs) / 4
      this.#smoothedMs += (roundTripMs - this.#smoothedMs) / 8
    }
    const measured = this.#smoothedMs + 4 * this.#variationMs
    this.#timeoutMs = Math.min(Math.max(measured, firstTimeoutMs), longestTimeoutMs)
  }

  /** Appendix A: slow start to the threshold, then one more per window. */
  #openWindow(): void {
    if (this.#congestionWindow < this.#slowStartThreshold) this.#congestionWindow++
    else if (++this.#windowFraction >= this.#congestionWindow) {
      this.#windowFraction = 0
      this.#congestionWindow++
    }
    this.#congestionWindow = Math.min(this.#congestionWindow, this.#peerWindowPackets)
  }

  #pump(nowMs: number): void {
    const window = Math.min(this.#congestionWindow, this.#peerWindowPackets)
    while (this.#unacknowledged.length < window) {
      const next = this.#queue.shift()
      if (next === undefined) break
      this.#transmitNew(next, nowMs)
    }
  }

  #transmitNew(next: Queued, nowMs: number): void {
    const sent: Sent = { ...next, ns: this.#nextNs, sentMs: nowMs, isRepeated: false }
    this.#nextNs = serialAdd16(this.#nextNs, 1)
    this.#unacknowledged.push(sent)
    this.#transmit(sent)
    if (!this.#timers.isSet('retransmit')) this.#armRetransmission(nowMs)
  }

  #armRetransmission(nowMs: number): void {
    if (this.#unacknowledged.length === 0) {
      this.#timers.clear('retransmit')
      return
    }
    const backedOff = this.#timeoutMs * 2 ** this.#retransmissions
    this.#timers.set('retransmit', nowMs + Math.min(backedOff, longestTimeoutMs))
  }

  #retransmit(nowMs: number): void {
    const first = this.#unacknowledged[0]
    if (first === undefined) return
    if (this.#retransmissions === mostRetransmissions) {
      this.#hasGivenUp = true
      return
    }
    this.#retransmissions++
    this.#slowStartThreshold = Math.max(this.#congestionWindow >>> 1, 1)
    this.#congestionWindow = 1
    this.#windowFraction = 0
    first.isRepeated = true
    this.#ports.count('l2tp-retransmission')
    this.#transmit(first)
    this.#armRetransmission(nowMs)
  }

  #transmit(sent: Sent): void {
    if (!this.#spend(sent.bytes.length)) return
    const bytes = Uint8Array.from(sent.bytes)
    encodeControlHeader(
      bytes,
      0,
      bytes.length,
      this.#peerTunnelId,
      sent.sessionId,
      sent.ns,
      this.#nextNr,
    )
    this.#timers.clear('acknowledge')
    this.#ports.transmit(bytes)
  }

  /** A zero-length body carries the next Ns without using it up. */
  #transmitAcknowledgement(): void {
    this.#timers.clear('acknowledge')
    if (!this.#spend(CONTROL_HEADER_BYTES)) return
    const bytes = new Uint8Array(CONTROL_HEADER_BYTES)
    encodeControlHeader(
      bytes,
      0,
      CONTROL_HEADER_BYTES,
      this.#peerTunnelId,
      0,
      this.#nextNs,
      this.#nextNr,
    )
    this.#ports.transmit(bytes)
  }

  #spend(bytes: number): boolean {
    if (bytes > this.#budgetBytes) {
      this.#ports.count('l2tp-amplification-limit')
      return false
    }
    this.#budgetBytes -= bytes
    return true
  }
}

/** What the four halves of authentication (PAP and CHAP, server and client) share. */
import type { Proof, RejectReason, Verdict } from '../../aaa/authenticator.ts'
import type { ServerKeys } from '../../crypto/mppe-keys.ts'
import type { ControlPacket } from '../wire/control-packet.ts'

// Specification constants.

/** RFC 1994 §4.1 and RFC 1334 §2.2.1 leave it open; three seconds is the Restart timer's value. */
export const retransmitMs = 3000
export const maxTransmissions = 10

// Implementation constants.

/** How often one answer is repeated for copies of what it answered. */
export const maxRepeats = 12
/** Longest name that we read, bytes; RADIUS and the users database take 253. */
export const maxNameBytes = 253

export type AcceptVerdict = Extract<Verdict, { type: 'accept' }>
export type RejectVerdict = Extract<Verdict, { type: 'reject' }>

interface ExchangePorts {
  send(packet: ControlPacket): void
  setTimer(deadlineMs: number): void
  clearTimer(): void
  unexpected(counter: string): void
  /** The peer never answered. */
  silent(nowMs: number): void
}

/** What the authenticating side reports. */
export interface ServerExchangePorts extends ExchangePorts {
  judge(userName: string, proof: Proof): void
  accepted(userName: string, verdict: AcceptVerdict, nowMs: number): void
  refused(reason: RejectReason, canRetry: boolean, nowMs: number): void
  /** Our own side is broken: the verdict lacks what the method needs. */
  broken(detail: string, nowMs: number): void
}

/** What the proving side reports. */
export interface ClientExchangePorts extends ExchangePorts {
  /** `keys` are the server's; undefined when the method makes none. */
  accepted(keys: ServerKeys | undefined, hasChangedPassword: boolean, nowMs: number): void
  /** `errorCode` is the Windows error of MS-CHAPv2, 0 for other methods. */
  refused(errorCode: number, message: string | undefined, nowMs: number): void
  /** The server could not prove that it knows the password. */
  forged(nowMs: number): void
}

export interface ServerExchange {
  start(nowMs: number): void
  receive(packet: ControlPacket, nowMs: number): void
  verdict(verdict: Verdict, nowMs: number): void
  /** The timer that was set has run out. */
  timer(nowMs: number): void
  /** The link moves on without the end of the exchange. */
  destroy?(): void
}

export interface ClientExchange {
  start(nowMs: number): void
  receive(packet: ControlPacket, nowMs: number): void
  timer(nowMs: number): void
  /** Wipes what was derived from the password. */
  destroy(): void
}

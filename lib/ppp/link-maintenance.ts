/**
 * LCP's packets beyond negotiation: keep-alive by Echo-Request (RFC 1661 §5.8), Protocol-Reject
 * (§5.7), Discard-Request (§5.9), Identification and Time-Remaining (RFC 1570 §2).
 */
import { copyBytes } from '../core/bytes.ts'
import { faultName, type WireFault } from '../core/faults.ts'
import type { LcpOptions } from './lcp.ts'
import { RejectAllowance } from './reject-allowance.ts'
import type { PppTiming } from './settings.ts'
import { ControlCode, type ControlPacket, controlHeaderBytes } from './wire/control-packet.ts'
import {
  checkMagicPacket,
  checkProtocolReject,
  checkTimeRemaining,
  encodeMagicPacket,
  encodeProtocolReject,
  magicNumberBytes,
  magicOf,
  printableText,
  rejectedProtocolOf,
  restOf,
} from './wire/link-packet.ts'

// Implementation constants.

/** Windows sends three Identifications. */
const maxIdentifications = 8
const identificationBytes = 64

export interface LinkPorts {
  /** Sends an LCP packet with an identifier of its own. */
  send(code: number, data: Uint8Array): void
  reply(code: number, identifier: number, data: Uint8Array): void
  protocolRejected(protocol: number, nowMs: number): void
  identification(text: string | undefined): void
  unexpected(counter: string): void
}

export class LinkMaintenance {
  readonly #lcp: LcpOptions
  readonly #timing: PppTiming
  readonly #ports: LinkPorts
  #isAlive = true
  #misses = 0
  #isEchoRefused = false
  #identifications = 0
  readonly #rejects = new RejectAllowance()

  constructor(lcp: LcpOptions, timing: PppTiming, ports: LinkPorts) {
    this.#lcp = lcp
    this.#timing = timing
    this.#ports = ports
  }

  /** A frame came: whatever it is, the peer lives. */
  alive(): void {
    this.#isAlive = true
  }

  /** LCP has opened. Returns when `echo` wants to be called. */
  opened(nowMs: number): number {
    this.#isAlive = true
    this.#misses = 0
    return nowMs + this.#timing.echoIntervalMs
  }

  /** The echo interval is over. Returns when to call again, undefined when the peer is gone. */
  echo(nowMs: number): number | undefined {
    if (this.#isAlive || this.#isEchoRefused) {
      this.#misses = 0
    } else if (++this.#misses > this.#timing.echoMisses) {
      return undefined
    }
    if (!this.#isAlive) {
      const data = encodeMagicPacket(this.#lcp.magicNumber, new Uint8Array(0))
      this.#ports.send(ControlCode.echoRequest, data)
    }
    this.#isAlive = false
    return nowMs + this.#timing.echoIntervalMs
  }

  /** LCP packets of the codes above 7. */
  extension(packet: ControlPacket, nowMs: number): 'taken' | 'echo' | 'unknown' {
    const { code, data } = packet
    switch (code) {
      case ControlCode.protocolReject:
        if (this.#isSound(checkProtocolReject(data))) {
          this.#ports.protocolRejected(rejectedProtocolOf(data), nowMs)
        }
        return 'taken'
      case ControlCode.echoRequest:
      case ControlCode.echoReply:
      case ControlCode.discardRequest:
        if (!this.#isSound(checkMagicPacket(data))) return 'taken'
        if (magicOf(data) !== 0 && magicOf(data) === this.#lcp.magicNumber) {
          this.#ports.unexpected('looped-back')
        }
        return 'echo'
      case ControlCode.identification:
        if (this.#isSound(checkMagicPacket(data))) this.#identify(restOf(data))
        return 'taken'
      case ControlCode.timeRemaining:
        this.#isSound(checkTimeRemaining(data))
        return 'taken'
      default:
        return 'unknown'
    }
  }

  /** Answers an Echo-Request with our magic number, never longer than the peer's MRU. */
  replyEcho(packet: ControlPacket): void {
    if (packet.code !== ControlCode.echoRequest) return
    const room = this.#lcp.peerMruBytes - controlHeaderBytes - magicNumberBytes
    const echoed = copyBytes(restOf(packet.data), 0, Math.max(0, room))
    const data = encodeMagicPacket(this.#lcp.magicNumber, echoed)
    this.#ports.reply(ControlCode.echoReply, packet.identifier, data)
  }

  codeRejected(code: number): void {
    if (code === ControlCode.echoRequest) this.#isEchoRefused = true
  }

  /** Tells the peer that we do not speak `protocol`. */
  rejectProtocol(protocol: number, information: Uint8Array, nowMs: number): void {
    this.#ports.unexpected('unknown-protocol')
    if (!this.permitsReject(nowMs)) return
    const maxBytes = this.#lcp.peerMruBytes - controlHeaderBytes
    const data = encodeProtocolReject(protocol, information, maxBytes)
    this.#ports.send(ControlCode.protocolReject, data)
  }

  permitsReject(nowMs: number): boolean {
    const isPermitted = this.#rejects.take(nowMs)
    if (!isPermitted) this.#ports.unexpected('reject-suppressed')
    return isPermitted
  }

  #identify(message: Uint8Array): void {
    if (++this.#identifications > maxIdentifications) {
      this.#ports.unexpected('identification-flood')
      return
    }
    this.#ports.identification(printableText(copyBytes(message, 0, identificationBytes)))
  }

  #isSound(fault: WireFault): boolean {
    if (fault) this.#ports.unexpected(`malformed-${faultName(fault)}`)
    return fault === 0
  }
}

/**
 * CHAP, the side that asks: CHAP-MD5 (RFC 1994) and MS-CHAPv2 (RFC 2759) with retry and change of an
 * expired password. Whether a response is right is for the authenticator behind the engine.
 *
 * - `challenged`: a Challenge is out and repeated.
 * - `judging`: a Response was handed on; copies of it are dropped.
 * - `retrying`: a Failure with R=1 is out; the user types again, nothing is repeated (RFC 2759 §6).
 * - `done`: Success or the last Failure; copies of the Response get the same answer (RFC 1994 §4.2).
 */
import type { Proof, RejectReason, Verdict } from '../../aaa/authenticator.ts'
import { utf8, utf8Text } from '../../core/bytes.ts'
import { assertNever } from '../../core/errors.ts'
import { faultName } from '../../core/faults.ts'
import { type RandomSource, randomBytes } from '../../core/random.ts'
import {
  ChapCode,
  checkChangePassword,
  checkChapValue,
  checkMschapv2Value,
  encodeChapValue,
  encodeMschapv2Failure,
  md5ValueBytes,
  parseChangePassword,
  parseChapValue,
  parseMschapv2Value,
} from '../wire/chap.ts'
import type { ControlPacket } from '../wire/control-packet.ts'
import {
  type AcceptVerdict,
  maxNameBytes,
  maxRepeats,
  maxTransmissions,
  type RejectVerdict,
  retransmitMs,
  type ServerExchange,
  type ServerExchangePorts,
} from './exchange.ts'

/** RFC 2759 §2: both challenges have 16 bytes; we use as many for MD5. */
const challengeBytes = 16
/** RFC 2759 §6 leaves it to us how often a user may type again on one link. */
export const maxRetries = 3

/** RFC 2759 §6. What is wrong with a name or a password is the same 691. */
const errorCodes = {
  'bad-credentials': 691,
  'locked-out': 691,
  'account-disabled': 647,
  'account-expired': 647,
  'password-expired': 648,
  'no-dial-in': 649,
  'restricted-hours': 646,
  'change-password-failed': 709,
  'method-not-allowed': 691,
  'backend-unavailable': 691,
} as const satisfies Record<RejectReason, number>

export type ChapMethod = 'chap-md5' | 'mschapv2'

type State = 'challenged' | 'judging' | 'retrying' | 'done'

export class ChapServer implements ServerExchange {
  readonly #method: ChapMethod
  readonly #serverName: Uint8Array
  readonly #random: RandomSource
  readonly #ports: ServerExchangePorts
  #state: State = 'challenged'
  #identifier: number
  #challenge: Uint8Array
  #transmissions = 0
  #retries = 0
  #isPasswordExpired = false
  #userName = ''
  /** The last Success or Failure; its identifier is that of the Response. */
  #answer: ControlPacket | undefined
  #repeats = 0

  constructor(
    method: ChapMethod,
    serverName: string,
    random: RandomSource,
    ports: ServerExchangePorts,
  ) {
    this.#method = method
    this.#serverName = utf8(serverName)
    this.#random = random
    this.#ports = ports
    this.#identifier = randomBytes(random, 1)[0] ?? 0
    this.#challenge = randomBytes(random, challengeBytes)
  }

  start(nowMs: number): void {
    this.#transmitChallenge(nowMs)
  }

  timer(nowMs: number): void {
    if (this.#state !== 'challenged') return
    if (this.#transmissions >= maxTransmissions) {
      this.#ports.silent(nowMs)
      return
    }
    this.#transmitChallenge(nowMs)
  }

  receive(packet: ControlPacket): void {
    const isResponse = packet.code === ChapCode.response
    const isChange = packet.code === ChapCode.changePassword && this.#method === 'mschapv2'
    if (!isResponse && !isChange) {
      this.#ports.unexpected('chap-code')
      return
    }
    if (this.#state === 'judging') {
      this.#ports.unexpected('chap-response-while-judging')
      return
    }
    if (packet.identifier === this.#answer?.identifier) {
      this.#repeatAnswer(this.#answer)
      return
    }
    if (this.#state === 'done' || packet.identifier !== this.#identifier) {
      this.#ports.unexpected('chap-stale-response')
      return
    }
    if (isChange && !this.#isPasswordExpired) {
      this.#ports.unexpected('chap-change-not-asked-for')
      return
    }
    const proof = isChange ? this.#changeOf(packet) : this.#proofOf(packet)
    if (proof === undefined) return
    this.#state = 'judging'
    this.#ports.clearTimer()
    this.#ports.judge(this.#userName, proof)
  }

  verdict(verdict: Verdict, nowMs: number): void {
    if (this.#state !== 'judging') {
      this.#ports.unexpected('verdict-without-request')
      return
    }
    switch (verdict.type) {
      case 'accept':
        this.#accept(verdict, nowMs)
        return
      case 'reject':
        this.#reject(verdict, nowMs)
        return
      default:
        assertNever(verdict)
    }
  }

  #accept(verdict: AcceptVerdict, nowMs: number): void {
    let text = verdict.message ?? ''
    if (this.#method === 'mschapv2') {
      const { authenticatorResponse, message } = verdict
      if (authenticatorResponse === undefined || verdict.keys === undefined) {
        this.#ports.broken('the verdict has no authenticator response or keys', nowMs)
        return
      }
      // RFC 2759 §5: exactly one space. Old clients stumble over an M= that says nothing.
      text = message === undefined ? authenticatorResponse : `${authenticatorResponse} M=${message}`
    }
    this.#state = 'done'
    this.#sendAnswer(ChapCode.success, text)
    this.#ports.accepted(this.#userName, verdict, nowMs)
  }

  #reject(verdict: RejectVerdict, nowMs: number): void {
    const canRetry = this.#method === 'mschapv2' && verdict.canRetry && this.#retries++ < maxRetries
    this.#isPasswordExpired = canRetry && verdict.reason === 'password-expired'
    if (canRetry) this.#challenge = randomBytes(this.#random, challengeBytes)
    const text =
      this.#method === 'mschapv2'
        ? encodeMschapv2Failure({
            errorCode: errorCodes[verdict.reason],
            canRetry,
            challenge: this.#challenge,
            ...(verdict.message === undefined ? {} : { message: verdict.message }),
          })
        : (verdict.message ?? '')
    this.#state = canRetry ? 'retrying' : 'done'
    this.#sendAnswer(ChapCode.failure, text)
    // RFC 2759 §6, §7: the next Response or Change-Password has the identifier after this one's.
    if (canRetry) this.#identifier = (this.#identifier + 1) & 0xff
    this.#ports.refused(verdict.reason, canRetry, nowMs)
  }

  /** Undefined when malformed, which is counted; the peer will hear the Challenge again. */
  #proofOf(packet: ControlPacket): Proof | undefined {
    const fault = checkChapValue(packet.data)
    if (fault) return this.#malformed(faultName(fault))
    const { value, name } = parseChapValue(packet.data)
    if (name.length > maxNameBytes) return this.#malformed('name-too-long')
    const { identifier } = packet
    if (this.#method === 'chap-md5') {
      if (value.length !== md5ValueBytes) return this.#malformed('bad-value')
      this.#userName = utf8Text(name)
      return { method: 'chap-md5', identifier, challenge: this.#challenge, response: value }
    }
    const valueFault = checkMschapv2Value(value)
    if (valueFault) return this.#malformed(faultName(valueFault))
    this.#userName = utf8Text(name)
    const authenticatorChallenge = this.#challenge
    return { method: 'mschapv2', identifier, authenticatorChallenge, ...parseMschapv2Value(value) }
  }

  /** RFC 2759 §7 carries no name: it is that of the Response before. */
  #changeOf(packet: ControlPacket): Proof | undefined {
    const fault = checkChangePassword(packet.data)
    if (fault) return this.#malformed(faultName(fault))
    return {
      method: 'mschapv2-change-password',
      identifier: packet.identifier,
      authenticatorChallenge: this.#challenge,
      ...parseChangePassword(packet.data),
    }
  }

  #malformed(what: string): undefined {
    this.#ports.unexpected(`malformed-chap-${what}`)
    return undefined
  }

  #sendAnswer(code: number, text: string): void {
    this.#answer = { code, identifier: this.#identifier, data: utf8(text) }
    this.#repeats = 0
    this.#ports.send(this.#answer)
  }

  #repeatAnswer(answer: ControlPacket): void {
    if (++this.#repeats > maxRepeats) {
      this.#ports.unexpected('chap-response-flood')
      return
    }
    this.#ports.unexpected('chap-response-again')
    this.#ports.send(answer)
  }

  #transmitChallenge(nowMs: number): void {
    this.#transmissions++
    const data = encodeChapValue({ value: this.#challenge, name: this.#serverName })
    this.#ports.send({ code: ChapCode.challenge, identifier: this.#identifier, data })
    this.#ports.setTimer(nowMs + retransmitMs)
  }
}

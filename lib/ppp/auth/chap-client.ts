/**
 * CHAP, the side that proves itself: CHAP-MD5 (RFC 1994) and MS-CHAPv2 (RFC 2759), where the server
 * has to prove itself too. A Response is repeated until it is answered, since the server need not
 * know that its answer was lost.
 */
import { createHash } from 'node:crypto'
import { concatBytes, equalBytes, utf8, utf8Text } from '../../core/bytes.ts'
import { faultName } from '../../core/faults.ts'
import { type RandomSource, randomBytes } from '../../core/random.ts'
import { type Secret, wipe } from '../../core/secret.ts'
import { serverKeysOf } from '../../crypto/mppe-keys.ts'
import {
  challengeBytes,
  checkAuthenticatorResponse,
  encryptNewPassword,
  encryptOldNtHash,
  generateNtResponse,
  type Mschapv2Exchange,
  ntPasswordHash,
} from '../../crypto/ms-chap.ts'
import {
  ChapCode,
  checkChapValue,
  encodeChangePassword,
  encodeChapValue,
  encodeMschapv2Value,
  parseChapValue,
  parseMschapv2Failure,
} from '../wire/chap.ts'
import type { ControlPacket } from '../wire/control-packet.ts'
import type { ChapMethod } from './chap-server.ts'
import {
  type ClientExchange,
  type ClientExchangePorts,
  maxTransmissions,
  retransmitMs,
} from './exchange.ts'

/** RFC 2759 §6: ERROR_PASSWD_EXPIRED. */
const passwordExpired = 648

export interface Credentials {
  readonly userName: string
  readonly password: Secret
  readonly newPassword?: Secret | undefined
}

/** What we have answered and wait for a verdict on. */
interface Answer {
  readonly challenge: Uint8Array
  readonly packet: ControlPacket
  readonly isChange: boolean
  /** MS-CHAPv2: what the server's proof is checked with. */
  readonly exchange?: Mschapv2Exchange
  readonly ntResponse?: Uint8Array
}

export class ChapClient implements ClientExchange {
  readonly #method: ChapMethod
  readonly #credentials: Credentials
  readonly #random: RandomSource
  readonly #ports: ClientExchangePorts
  #ntHash: Uint8Array
  #answer: Answer | undefined
  #isAnswered = false
  #transmissions = 0

  constructor(
    method: ChapMethod,
    credentials: Credentials,
    random: RandomSource,
    ports: ClientExchangePorts,
  ) {
    this.#method = method
    this.#credentials = credentials
    this.#random = random
    this.#ports = ports
    this.#ntHash = ntPasswordHash(credentials.password.exposeText())
  }

  start(): void {
    // The server speaks first (RFC 1994 §4.1).
  }

  destroy(): void {
    wipe(this.#ntHash)
    this.#ntHash = new Uint8Array(0)
    this.#isAnswered = true
  }

  timer(nowMs: number): void {
    if (this.#answer === undefined || this.#isAnswered) return
    if (this.#transmissions >= maxTransmissions) {
      this.#ports.silent(nowMs)
      return
    }
    this.#transmit(this.#answer, nowMs)
  }

  receive(packet: ControlPacket, nowMs: number): void {
    switch (packet.code) {
      case ChapCode.challenge:
        this.#receiveChallenge(packet, nowMs)
        return
      case ChapCode.success:
      case ChapCode.failure:
        this.#receiveVerdict(packet, nowMs)
        return
      default:
        this.#ports.unexpected('chap-code')
        return
    }
  }

  #receiveChallenge(packet: ControlPacket, nowMs: number): void {
    const fault = checkChapValue(packet.data)
    if (fault) {
      this.#ports.unexpected(`malformed-chap-${faultName(fault)}`)
      return
    }
    const { value: challenge } = parseChapValue(packet.data)
    if (this.#method === 'mschapv2' && challenge.length !== challengeBytes) {
      this.#ports.unexpected('malformed-chap-bad-value')
      return
    }
    const last = this.#answer
    const isRepeated =
      last !== undefined &&
      last.packet.identifier === packet.identifier &&
      equalBytes(last.challenge, challenge)
    if (isRepeated) {
      this.#ports.send(last.packet)
      return
    }
    this.#begin(
      this.#method === 'mschapv2'
        ? this.#mschapv2Answer(packet.identifier, challenge)
        : this.#md5Answer(packet.identifier, challenge),
      nowMs,
    )
  }

  #receiveVerdict(packet: ControlPacket, nowMs: number): void {
    const answer = this.#answer
    // Success counts only as the answer to a Response of ours, and once.
    if (answer === undefined || this.#isAnswered) {
      this.#ports.unexpected('chap-verdict')
      return
    }
    if (packet.identifier !== answer.packet.identifier) {
      this.#ports.unexpected('chap-stale-verdict')
      return
    }
    this.#isAnswered = true
    this.#ports.clearTimer()
    if (packet.code === ChapCode.success) {
      this.#succeed(answer, packet, nowMs)
      return
    }
    const text = utf8Text(packet.data)
    const failure = this.#method === 'mschapv2' ? parseMschapv2Failure(text) : undefined
    if (failure === undefined) {
      this.#ports.refused(0, text, nowMs)
      return
    }
    const { newPassword } = this.#credentials
    const canChange =
      failure.errorCode === passwordExpired &&
      failure.canRetry &&
      failure.challenge !== undefined &&
      newPassword !== undefined &&
      !answer.isChange
    if (!canChange || failure.challenge === undefined || newPassword === undefined) {
      this.#ports.refused(failure.errorCode, failure.message, nowMs)
      return
    }
    const identifier = (packet.identifier + 1) & 0xff
    this.#begin(this.#changeAnswer(identifier, failure.challenge, newPassword), nowMs)
  }

  #succeed(answer: Answer, packet: ControlPacket, nowMs: number): void {
    const { exchange, ntResponse } = answer
    if (exchange === undefined || ntResponse === undefined) {
      this.#ports.accepted(undefined, false, nowMs)
      return
    }
    const text = utf8Text(packet.data)
    if (!checkAuthenticatorResponse(exchange, this.#ntHash, ntResponse, text)) {
      this.#ports.forged(nowMs)
      return
    }
    this.#ports.accepted(serverKeysOf(this.#ntHash, ntResponse), answer.isChange, nowMs)
  }

  /** RFC 1994 §4.1: MD5 over identifier, secret and challenge. */
  #md5Answer(identifier: number, challenge: Uint8Array): Answer {
    const input = concatBytes(
      Uint8Array.of(identifier),
      this.#credentials.password.expose(),
      challenge,
    )
    const value = Uint8Array.from(createHash('md5').update(input).digest())
    wipe(input)
    const data = encodeChapValue({ value, name: utf8(this.#credentials.userName) })
    const packet = { code: ChapCode.response, identifier, data }
    return { challenge, packet, isChange: false }
  }

  #mschapv2Answer(identifier: number, challenge: Uint8Array): Answer {
    const exchange = this.#exchange(challenge)
    const ntResponse = generateNtResponse(exchange, this.#ntHash)
    const value = encodeMschapv2Value({ peerChallenge: exchange.peerChallenge, ntResponse })
    const data = encodeChapValue({ value, name: utf8(this.#credentials.userName) })
    const packet = { code: ChapCode.response, identifier, data }
    return { challenge, packet, isChange: false, exchange, ntResponse }
  }

  /** RFC 2759 §7: from here on the new password is ours. */
  #changeAnswer(identifier: number, challenge: Uint8Array, newPassword: Secret): Answer {
    const exchange = this.#exchange(challenge)
    const oldNtHash = this.#ntHash
    const text = newPassword.exposeText()
    this.#ntHash = ntPasswordHash(text)
    const ntResponse = generateNtResponse(exchange, this.#ntHash)
    const data = encodeChangePassword({
      encryptedPassword: encryptNewPassword(text, oldNtHash, randomBytes(this.#random, 512)),
      encryptedHash: encryptOldNtHash(oldNtHash, this.#ntHash),
      peerChallenge: exchange.peerChallenge,
      ntResponse,
    })
    wipe(oldNtHash)
    const packet = { code: ChapCode.changePassword, identifier, data }
    return { challenge, packet, isChange: true, exchange, ntResponse }
  }

  #exchange(authenticatorChallenge: Uint8Array): Mschapv2Exchange {
    const peerChallenge = randomBytes(this.#random, challengeBytes)
    return { userName: this.#credentials.userName, authenticatorChallenge, peerChallenge }
  }

  #begin(answer: Answer, nowMs: number): void {
    this.#answer = answer
    this.#isAnswered = false
    this.#transmissions = 0
    this.#transmit(answer, nowMs)
  }

  #transmit(answer: Answer, nowMs: number): void {
    this.#transmissions++
    this.#ports.send(answer.packet)
    this.#ports.setTimer(nowMs + retransmitMs)
  }
}

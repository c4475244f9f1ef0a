/** PAP, the side that proves itself (RFC 1334 §2). */
import { utf8, utf8Text } from '../../core/bytes.ts'
import type { Secret } from '../../core/secret.ts'
import { wipe } from '../../core/secret.ts'
import type { ControlPacket } from '../wire/control-packet.ts'
import { encodePapRequest, PapCode, papMessage } from '../wire/pap.ts'
import {
  type ClientExchange,
  type ClientExchangePorts,
  maxTransmissions,
  retransmitMs,
} from './exchange.ts'

export class PapClient implements ClientExchange {
  readonly #ports: ClientExchangePorts
  readonly #userName: string
  readonly #password: Secret
  #identifier = 0
  #transmissions = 0
  #isDone = false

  constructor(userName: string, password: Secret, ports: ClientExchangePorts) {
    this.#userName = userName
    this.#password = password
    this.#ports = ports
  }

  start(nowMs: number): void {
    this.#transmit(nowMs)
  }

  receive(packet: ControlPacket, nowMs: number): void {
    if (this.#isDone) {
      this.#ports.unexpected('pap-answer-again')
      return
    }
    const isAck = packet.code === PapCode.authenticateAck
    if (!isAck && packet.code !== PapCode.authenticateNak) {
      this.#ports.unexpected('pap-code')
      return
    }
    if (packet.identifier !== this.#identifier) {
      this.#ports.unexpected('pap-stale-answer')
      return
    }
    this.#isDone = true
    this.#ports.clearTimer()
    if (isAck) {
      this.#ports.accepted(undefined, false, nowMs)
      return
    }
    this.#ports.refused(0, utf8Text(papMessage(packet.data)), nowMs)
  }

  timer(nowMs: number): void {
    if (this.#isDone) return
    if (this.#transmissions >= maxTransmissions) {
      this.#ports.silent(nowMs)
      return
    }
    this.#transmit(nowMs)
  }

  destroy(): void {
    this.#isDone = true
  }

  #transmit(nowMs: number): void {
    // RFC 1334 §2.2.1: a new identifier only for a new request; a repetition is the same packet.
    if (this.#transmissions++ === 0) this.#identifier = 1
    const data = encodePapRequest({
      peerId: utf8(this.#userName),
      password: this.#password.expose(),
    })
    this.#ports.send({ code: PapCode.authenticateRequest, identifier: this.#identifier, data })
    wipe(data)
    this.#ports.setTimer(nowMs + retransmitMs)
  }
}

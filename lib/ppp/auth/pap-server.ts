/** PAP, the side that asks (RFC 1334 §2). Off until it is named in the configuration. */
import type { Verdict } from '../../aaa/authenticator.ts'
import { utf8, utf8Text } from '../../core/bytes.ts'
import { faultName } from '../../core/faults.ts'
import { Secret, wipe } from '../../core/secret.ts'
import type { ControlPacket } from '../wire/control-packet.ts'
import { checkPapRequest, encodePapMessage, PapCode, parsePapRequest } from '../wire/pap.ts'
import {
  maxNameBytes,
  maxRepeats,
  type ServerExchange,
  type ServerExchangePorts,
} from './exchange.ts'

export class PapServer implements ServerExchange {
  readonly #ports: ServerExchangePorts
  #judging: { readonly identifier: number; readonly userName: string } | undefined
  #answer: ControlPacket | undefined
  #repeats = 0

  constructor(ports: ServerExchangePorts) {
    this.#ports = ports
  }

  start(): void {
    // The peer speaks first (RFC 1334 §2.2.1).
  }

  receive(packet: ControlPacket): void {
    if (packet.code !== PapCode.authenticateRequest) {
      this.#ports.unexpected('pap-code')
      return
    }
    if (this.#judging !== undefined) {
      this.#ports.unexpected('pap-request-while-judging')
      return
    }
    if (this.#answer !== undefined) {
      // RFC 1334 §2.2.1: the answer was lost; the same again, without another look.
      if (++this.#repeats > maxRepeats) {
        this.#ports.unexpected('pap-request-flood')
        return
      }
      this.#ports.send({ ...this.#answer, identifier: packet.identifier })
      return
    }
    const fault = checkPapRequest(packet.data)
    if (fault) {
      this.#ports.unexpected(`malformed-pap-${faultName(fault)}`)
      return
    }
    const { peerId, password } = parsePapRequest(packet.data)
    if (peerId.length > maxNameBytes) {
      this.#ports.unexpected('name-too-long')
      return
    }
    const userName = utf8Text(peerId)
    this.#judging = { identifier: packet.identifier, userName }
    this.#ports.judge(userName, { method: 'pap', password: new Secret(password) })
    wipe(password, packet.data)
  }

  verdict(verdict: Verdict, nowMs: number): void {
    const judging = this.#judging
    if (judging === undefined) {
      this.#ports.unexpected('verdict-without-request')
      return
    }
    this.#judging = undefined
    const code = verdict.type === 'accept' ? PapCode.authenticateAck : PapCode.authenticateNak
    const data = encodePapMessage(utf8(verdict.message ?? ''))
    this.#answer = { code, identifier: judging.identifier, data }
    this.#ports.send(this.#answer)
    if (verdict.type === 'accept') this.#ports.accepted(judging.userName, verdict, nowMs)
    else this.#ports.refused(verdict.reason, false, nowMs)
  }

  timer(): void {
    // None is set: the engine bounds the whole phase.
  }
}

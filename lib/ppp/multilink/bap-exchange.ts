/**
 * Requests and responses of BAP (RFC 2125 §5): one request of ours at a time, repeated until it is
 * answered, and one answer to each of the peer's, however often it comes.
 */
import { faultName } from '../../core/faults.ts'
import {
  type BapOptions,
  type BapPacket,
  BapResponse,
  BapType,
  checkBapPacket,
  encodeBapPacket,
  isBapResponse,
  parseBapPacket,
} from '../wire/bap.ts'

// Implementation constants: RFC 2125 §5.3 leaves both to us.

export const bapRetransmitMs = 3000
export const bapTries = 5

/** Kinds that wait for a response. */
export type BapRequestType = 1 | 3 | 5 | 7

export interface BapAnswer {
  readonly response: number
  readonly options?: BapOptions
}

export interface BapExchangePorts {
  send(packet: Uint8Array): void
  setTimer(deadlineMs: number): void
  clearTimer(): void
  /** RFC 2125 §5.4: our requests go before those of the peer. */
  isFavored(): boolean
  /** What we say to a request of the peer. */
  judge(request: BapPacket, nowMs: number): BapAnswer
  /** The peer said this to our request; undefined: nothing, although it was asked often enough. */
  answered(type: BapRequestType, response: number | undefined, nowMs: number): void
  unexpected(counter: string): void
}

interface Outstanding {
  readonly type: BapRequestType
  readonly identifier: number
  readonly packet: Uint8Array
  triesLeft: number
}

export class BapExchange {
  readonly #ports: BapExchangePorts
  #outstanding: Outstanding | undefined
  #nextIdentifier = 1
  /** What we said last, and to what. */
  #lastAnswer:
    | { readonly type: number; readonly identifier: number; packet: Uint8Array }
    | undefined

  constructor(ports: BapExchangePorts) {
    this.#ports = ports
  }

  get isBusy(): boolean {
    return this.#outstanding !== undefined
  }

  /** False: another one waits for its answer. */
  request(type: BapRequestType, options: BapOptions, nowMs: number): boolean {
    if (this.#outstanding !== undefined) return false
    const identifier = this.#nextIdentifier
    this.#nextIdentifier = (identifier + 1) & 0xff
    const packet = encodeBapPacket({ type, identifier, options })
    this.#outstanding = { type, identifier, packet, triesLeft: bapTries }
    this.#try(nowMs)
    return true
  }

  timer(nowMs: number): void {
    const { type, triesLeft } = this.#outstanding ?? { triesLeft: 0 }
    if (type === undefined) return
    if (triesLeft > 0) {
      this.#try(nowMs)
      return
    }
    this.#outstanding = undefined
    this.#ports.unexpected('bap-unanswered')
    this.#ports.answered(type, undefined, nowMs)
  }

  /** An information field of protocol 0xc02d. */
  receive(bytes: Uint8Array, nowMs: number): void {
    const fault = checkBapPacket(bytes, 0, bytes.length)
    if (fault) {
      this.#ports.unexpected(`bap-malformed-${faultName(fault)}`)
      return
    }
    const packet = parseBapPacket(bytes, 0)
    if (isBapResponse(packet.type)) this.#receiveResponse(packet, nowMs)
    else this.#receiveRequest(packet, nowMs)
  }

  /** Nothing is waited for any more. */
  clear(): void {
    this.#outstanding = undefined
    this.#lastAnswer = undefined
    this.#ports.clearTimer()
  }

  #try(nowMs: number): void {
    const outstanding = this.#outstanding
    if (outstanding === undefined) return
    outstanding.triesLeft--
    this.#ports.send(Uint8Array.from(outstanding.packet))
    this.#ports.setTimer(nowMs + bapRetransmitMs)
  }

  #receiveResponse({ type, identifier, response }: BapPacket, nowMs: number): void {
    const outstanding = this.#outstanding
    if (outstanding?.identifier !== identifier || outstanding.type + 1 !== type) {
      this.#ports.unexpected('bap-stale-response')
      return
    }
    this.#outstanding = undefined
    this.#ports.clearTimer()
    this.#ports.answered(outstanding.type, response, nowMs)
  }

  #receiveRequest(request: BapPacket, nowMs: number): void {
    const { type, identifier } = request
    const last = this.#lastAnswer
    if (last?.type === type && last.identifier === identifier) {
      this.#ports.unexpected('bap-repeated-request')
      this.#ports.send(Uint8Array.from(last.packet))
      return
    }
    const { response, options = {} } = this.#answerTo(request, nowMs)
    const answerType = ((type & 7) + 1) as 2 | 4 | 6 | 8
    const packet = encodeBapPacket({ type: answerType, identifier, response, options })
    this.#lastAnswer = { type, identifier, packet }
    this.#ports.send(Uint8Array.from(packet))
  }

  #answerTo(request: BapPacket, nowMs: number): BapAnswer {
    const own = this.#outstanding?.type
    const isChange = own !== undefined && own !== BapType.callStatusIndication
    if (isChange && request.type !== BapType.callStatusIndication) {
      if (this.#ports.isFavored()) {
        this.#ports.unexpected('bap-collision')
        return { response: BapResponse.nak }
      }
      // The peer refuses ours, since it is favored: its own is looked at.
      this.#ports.unexpected('bap-yielded')
      this.#outstanding = undefined
      this.#ports.clearTimer()
    }
    return this.#ports.judge(request, nowMs)
  }
}

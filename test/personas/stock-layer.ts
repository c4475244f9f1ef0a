/** One protocol that negotiates options, as every stock client does it (RFC 1661 §5.1 to §5.4): our request. */
import { equalBytes } from '../../lib/core/bytes.ts'
import { ControlCode } from '../../lib/ppp/wire/control-packet.ts'
import {
  encodeOptions,
  isSameOption,
  type Option,
  parseOptions,
} from '../../lib/ppp/wire/option.ts'

/** `again`: our request has changed. `stale`: that was no answer to it. */
export type StockAnswer = 'acked' | 'again' | 'stale'

export class StockLayer {
  readonly #name: string
  options: Option[] = []
  identifier = -1
  isAcked = false
  hasAcked = false
  tries = 0
  dueMs = Number.POSITIVE_INFINITY

  constructor(name: string) {
    this.#name = name
  }

  get isOpen(): boolean {
    return this.isAcked && this.hasAcked
  }

  /** What the server says to our request; `complain` hears what it must never say. */
  heard(
    code: number,
    identifier: number,
    data: Uint8Array,
    complain: (what: string) => void,
  ): StockAnswer {
    const isAnswer = code >= ControlCode.configureAck && code <= ControlCode.configureReject
    if (!isAnswer) complain(`${this.#name}: code ${code}`)
    if (!isAnswer || identifier !== this.identifier) return 'stale'
    const said = parseOptions(data)
    switch (code) {
      case ControlCode.configureAck:
        if (!equalBytes(data, encodeOptions(this.options))) {
          complain(`${this.#name}: an Ack that is not our request`)
        }
        this.isAcked = true
        this.dueMs = Number.POSITIVE_INFINITY
        return 'acked'
      case ControlCode.configureNak:
        this.options = this.options.map(own => said.find(({ type }) => type === own.type) ?? own)
        return 'again'
      default:
        if (!said.every(one => this.options.some(own => isSameOption(own, one)))) {
          complain(`${this.#name}: a Reject of what we did not ask for`)
        }
        // With all of them rejected an empty request is left, which must be acknowledged.
        this.options = this.options.filter(own => !said.some(one => isSameOption(own, one)))
        return 'again'
    }
  }
}

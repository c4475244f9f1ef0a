/**
 * What CCP may agree on: MPPE (RFC 3078 §2) and MPPC (RFC 2118 §4), either role. Each direction is
 * agreed by itself: our acknowledged request is how the peer sends, the peer's how we send.
 */
import type { Judgement, NegotiationFailure, OptionSemantics } from './negotiation.ts'
import type { CompressionSettings } from './settings.ts'
import {
  ccpOptions,
  MicrosoftBit,
  type MppeKeyBits,
  microsoftOption,
  mppeBitOf,
  mppeStrengths,
} from './wire/ccp-options.ts'
import { isWellFormed, type Option, u32OfOption } from './wire/option.ts'

/** How one direction carries data. */
export interface DirectionAgreement {
  /** 0: not encrypted. */
  readonly keyBits: MppeKeyBits | 0
  readonly isStateless: boolean
  readonly isCompressed: boolean
}

export interface CompressionAgreement {
  readonly send: DirectionAgreement
  readonly receive: DirectionAgreement
}

const strengthBits = MicrosoftBit.mppe40 | MicrosoftBit.mppe56 | MicrosoftBit.mppe128

export class CcpOptions implements OptionSemantics {
  readonly isUnmistakable = false
  readonly #settings: CompressionSettings
  /** Bits of our request; 0: nothing is left to ask for. */
  #wanted = 0
  /** Bits of the request that we acknowledged. */
  #granted = 0

  constructor(settings: CompressionSettings) {
    this.#settings = settings
    this.restart()
  }

  get agreement(): CompressionAgreement {
    return { send: directionOf(this.#granted), receive: directionOf(this.#wanted) }
  }

  /** Both directions are encrypted, or none is where none has to be. */
  get isAcceptable(): boolean {
    const { send, receive } = this.agreement
    const isEncrypted = send.keyBits !== 0 && receive.keyBits !== 0
    return this.#settings.encryption === 'required'
      ? isEncrypted
      : isEncrypted || (send.keyBits === 0 && receive.keyBits === 0)
  }

  /** RFC 3078 §2.1: whoever asks first names all that it can, and the peer takes one. */
  restart(): void {
    const { encryption, strengths } = this.#settings
    this.#wanted = this.#best
    if (encryption !== 'none') for (const bits of strengths) this.#wanted |= mppeBitOf[bits]
    this.#granted = 0
  }

  request(): readonly Option[] {
    return this.#wanted === 0 ? [] : [microsoftOption(this.#wanted)]
  }

  judge(options: readonly Option[]): Judgement {
    const refused = options.filter(option => !isWellFormed(ccpOptions, option))
    if (refused.length > 0) return { type: 'reject', options: refused }
    const [option] = options
    if (option !== undefined && options.length === 1) {
      const bits = u32OfOption(option)
      const counter = this.#counterOffer(bits)
      if (bits === counter && bits !== 0) return { type: 'ack' }
      return this.#nak(counter)
    }
    // Nothing at all, or the same thing twice.
    return this.#nak(this.#best)
  }

  accept(options: readonly Option[]): void {
    const [option] = options
    this.#granted = option === undefined ? 0 : u32OfOption(option)
  }

  naked(options: readonly Option[]): NegotiationFailure | undefined {
    const option = options.find(({ type }) => type === ccpOptions.microsoft.type)
    if (option === undefined || !isWellFormed(ccpOptions, option)) return undefined
    const bits = u32OfOption(option)
    const strength = this.#strengthOf(bits)
    if (strength === 0 && this.#settings.encryption === 'required') {
      return 'essential-option-rejected'
    }
    const { allowsStateful } = this.#settings
    const stateless = allowsStateful ? bits & MicrosoftBit.stateless : MicrosoftBit.stateless
    const mppc = this.#settings.hasMppc ? bits & MicrosoftBit.mppc : 0
    const wanted = strength | mppc
    this.#wanted = wanted === 0 ? 0 : wanted | (strength === 0 ? 0 : stateless)
    return undefined
  }

  rejected(): NegotiationFailure | undefined {
    this.#wanted = 0
    return this.#settings.encryption === 'required' ? 'essential-option-rejected' : undefined
  }

  get #best(): number {
    const { encryption, strengths, hasMppc, prefersStateful } = this.#settings
    const mppc = hasMppc ? MicrosoftBit.mppc : 0
    const strongest = mppeStrengths.find(bits => strengths.includes(bits))
    if (encryption === 'none' || strongest === undefined) return mppc
    return mppeBitOf[strongest] | mppc | (prefersStateful ? 0 : MicrosoftBit.stateless)
  }

  /** The strongest of ours among `bits`, as a bit; 0 when there is none. */
  #strengthOf(bits: number): number {
    const { encryption, strengths } = this.#settings
    if (encryption === 'none') return 0
    const strength = mppeStrengths.find(
      candidate => strengths.includes(candidate) && (bits & mppeBitOf[candidate]) !== 0,
    )
    return strength === undefined ? 0 : mppeBitOf[strength]
  }

  /** What we would acknowledge, nearest to `bits`. */
  #counterOffer(bits: number): number {
    const { allowsStateful, prefersStateful, hasMppc, encryption } = this.#settings
    const mppc = hasMppc ? bits & MicrosoftBit.mppc : 0
    let strength = this.#strengthOf(bits)
    if (strength === 0 && encryption !== 'none') strength = this.#best & strengthBits
    if (strength === 0) return mppc
    if (allowsStateful && prefersStateful) return strength | mppc
    if (allowsStateful && prefersStateful) return strength | mppc
    const stateless = allowsStateful ? bits & MicrosoftBit.stateless : MicrosoftBit.stateless
    return strength | stateless | mppc
  }

  #nak(bits: number): Judgement {
    return {
      type: 'nak',
      options: [microsoftOption(bits)],
      isEssential: this.#settings.encryption === 'required',
    }
  }
}

function directionOf(bits: number): DirectionAgreement {
  const keyBits = mppeStrengths.find(strength => (bits & mppeBitOf[strength]) !== 0) ?? 0
  return {
    keyBits,
    isStateless: (bits & MicrosoftBit.stateless) !== 0,
    isCompressed: (bits & MicrosoftBit.mppc) !== 0,
  }
}

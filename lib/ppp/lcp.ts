/** The options of LCP (RFC 1661 §6) as we negotiate them; the automaton is in negotiation.ts. */
import { type RandomSource, randomU32 } from '../core/random.ts'
import { LcpMultilink, type MultilinkAgreement } from './multilink/lcp-multilink.ts'
import {
  type Judgement,
  maxFailure,
  type NegotiationFailure,
  type OptionSemantics,
} from './negotiation.ts'
import type { MultilinkSettings } from './settings.ts'
import {
  type AuthenticationProtocol,
  authenticationOf,
  authenticationOption,
  authenticationOptionOf,
  defaultMruBytes,
  lcpOptions,
  mruOf,
  mruOption,
} from './wire/lcp-options.ts'
import { isWellFormed, type Option, optionU32, u32OfOption } from './wire/option.ts'

/** We never ask for less nor agree to less: every IPv4 host takes 576 bytes (RFC 791 §3.1). */
export const minMruBytes = 576

export interface LcpWishes {
  readonly mruBytes: number
  /** What the peer shall prove itself with, strongest first; empty: it need not. */
  readonly demands: readonly AuthenticationProtocol[]
  /** What we prove ourselves with when the peer asks, strongest first; empty: we refuse. */
  readonly offers: readonly AuthenticationProtocol[]
  /** Absent: the three options of multilink are rejected. */
  readonly multilink?: MultilinkSettings
}

export class LcpOptions implements OptionSemantics {
  readonly #random: RandomSource
  readonly #mruBytes: number
  #demands: readonly AuthenticationProtocol[]
  #offers: readonly AuthenticationProtocol[]
  // Ours.
  #ownMruBytes = 0
  #isMruRefused = false
  #magicNumber = 0
  #demand = 0
  #demandNaks = 0
  // The peer's.
  #peerMruBytes = defaultMruBytes
  #offered: AuthenticationProtocol | undefined
  readonly #multilink: LcpMultilink | undefined

  constructor(wishes: LcpWishes, random: RandomSource) {
    this.#random = random
    this.#mruBytes = wishes.mruBytes
    this.#demands = wishes.demands
    this.#offers = wishes.offers
    const { multilink } = wishes
    this.#multilink = multilink === undefined ? undefined : new LcpMultilink(multilink)
    this.restart()
  }

  get isUnmistakable(): boolean {
    return this.#magicNumber !== 0
  }

  /** Largest information field that the peer takes, bytes. */
  get peerMruBytes(): number {
    return this.#peerMruBytes
  }

  /** Undefined: the link stands alone. */
  get multilink(): MultilinkAgreement | undefined {
    return this.#multilink?.agreement
  }

  /** Ours, for echoes; 0 when there is none. */
  get magicNumber(): number {
    return this.#magicNumber
  }

  /** What the peer has agreed to prove itself with. */
  get demanded(): AuthenticationProtocol | undefined {
    return this.#demands[this.#demand]
  }

  /** What we have agreed to prove ourselves with. */
  get offered(): AuthenticationProtocol | undefined {
    return this.#offered
  }

  /** Either side proves itself by EAP. */
  get isEapAgreed(): boolean {
    return this.demanded === 'eap' || this.#offered === 'eap'
  }

  /** From now on nothing weaker than `protocol` is agreed on, in renegotiations of this link. */
  neverBelow(protocol: AuthenticationProtocol): void {
    this.#demands = this.#demands.slice(0, this.#demands.indexOf(protocol) + 1)
    this.#offers = this.#offers.slice(0, this.#offers.indexOf(protocol) + 1)
  }

  restart(): void {
    this.#ownMruBytes = this.#mruBytes
    this.#isMruRefused = false
    this.#magicNumber = randomU32(this.#random)
    this.#demand = 0
    this.#demandNaks = 0
    this.#peerMruBytes = defaultMruBytes
    this.#offered = undefined
    this.#multilink?.restart()
  }

  request(): readonly Option[] {
    const options: Option[] = []
    if (!this.#isMruRefused) options.push(mruOption(this.#ownMruBytes))
    const { demanded } = this
    if (demanded !== undefined) options.push(authenticationOptionOf(demanded))
    if (this.#magicNumber !== 0) {
      options.push(optionU32(lcpOptions.magicNumber.type, this.#magicNumber))
    }
    if (this.#multilink !== undefined) options.push(...this.#multilink.request())
    return options
  }

  judge(options: readonly Option[]): Judgement {
    // Callback, multilink, padding and the unknown: all in one Configure-Reject, before any Nak.
    const refused = options.filter(option => !this.#isNegotiable(option))
    if (refused.length > 0) return { type: 'reject', options: refused }
    const counterOffers: Option[] = []
    let isEssential = false
    for (const option of options) {
      const counterOffer = this.#counterOffer(option)
      if (counterOffer === undefined) continue
      counterOffers.push(counterOffer)
      isEssential ||=
        option.type === authenticationOption || option.type === lcpOptions.magicNumber.type
    }
    return counterOffers.length > 0
      ? { type: 'nak', options: counterOffers, isEssential }
      : { type: 'ack' }
  }

  accept(options: readonly Option[]): void {
    this.#peerMruBytes = defaultMruBytes
    this.#offered = undefined
    this.#multilink?.forgetPeer()
    for (const option of options) {
      this.#multilink?.accept(option)
      if (option.type === lcpOptions.maximumReceiveUnit.type) this.#peerMruBytes = mruOf(option)
      if (option.type === authenticationOption) this.#offered = authenticationOf(option)
    }
  }

  naked(options: readonly Option[]): NegotiationFailure | undefined {
    for (const option of options) {
      if (option.type === authenticationOption) {
        if (!this.#walkDown(authenticationOf(option))) return 'authentication-refused'
        continue
      }
      this.#multilink?.naked(option)
      if (!isWellFormed(lcpOptions, option)) continue
      if (option.type === lcpOptions.maximumReceiveUnit.type) {
        this.#ownMruBytes = Math.min(this.#mruBytes, Math.max(minMruBytes, mruOf(option)))
      }
      if (option.type === lcpOptions.magicNumber.type) this.#magicNumber = randomU32(this.#random)
    }
    return undefined
  }

  rejected(options: readonly Option[]): NegotiationFailure | undefined {
    for (const option of options) {
      this.#multilink?.rejected(option)
      if (option.type === authenticationOption) return 'authentication-refused'
      if (option.type === lcpOptions.maximumReceiveUnit.type) this.#isMruRefused = true
      if (option.type === lcpOptions.magicNumber.type) this.#magicNumber = 0
    }
    return undefined
  }

  #isNegotiable(option: Option): boolean {
    if (option.type === authenticationOption) return this.#offers.length > 0
    return isWellFormed(lcpOptions, option) || this.#multilink?.knows(option) === true
  }

  /** What we want instead; undefined when the option is fine. */
  #counterOffer(option: Option): Option | undefined {
    switch (option.type) {
      case lcpOptions.maximumReceiveUnit.type: {
        const mruBytes = mruOf(option)
        const limitBytes = Math.max(minMruBytes, this.#mruBytes)
        if (mruBytes > limitBytes) return mruOption(limitBytes)
        return mruBytes < minMruBytes ? mruOption(minMruBytes) : undefined
      }
      case lcpOptions.magicNumber.type: {
        // RFC 1661 §6.4: zero is never right, and our own number means a loop.
        const magicNumber = u32OfOption(option)
        const isGood = magicNumber !== 0 && magicNumber !== this.#magicNumber
        return isGood ? undefined : optionU32(option.type, randomU32(this.#random))
      }
      case authenticationOption: {
        const wished = authenticationOf(option)
        const [best] = this.#offers
        if (best === undefined) return undefined
        const isGood = wished !== undefined && this.#offers.includes(wished)
        return isGood ? undefined : authenticationOptionOf(best)
      }
      default:
        return this.#multilink?.counterOffer(option)
    }
  }

  /** The peer wants another authentication: its wish if it is allowed, else the next weaker. */
  #walkDown(wished: AuthenticationProtocol | undefined): boolean {
    if (++this.#demandNaks > maxFailure) return false
    const index = wished === undefined ? -1 : this.#demands.indexOf(wished)
    this.#demand = index >= 0 ? index : Math.min(this.#demand + 1, this.#demands.length - 1)
    return true
  }
}

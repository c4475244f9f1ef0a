/** The one option of IPV6CP that matters: the interface identifier (RFC 5072 §4.1), either role. */
import { copyBytes, equalBytes } from '../core/bytes.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import type { Judgement, NegotiationFailure, OptionSemantics } from './negotiation.ts'
import { ipv6cpOptions } from './wire/ipv6cp-options.ts'
import { isWellFormed, type Option } from './wire/option.ts'

const { type: identifierType, dataBytes: identifierBytes } = ipv6cpOptions.interfaceIdentifier

/** RFC 5072 §4.1: the bit that says that an identifier is unique in the world. Random ones are not. */
const universalBit = 0x02

export class Ipv6cpOptions implements OptionSemantics {
  readonly isUnmistakable = false
  readonly #random: RandomSource
  #own: Uint8Array
  #peer: Uint8Array

  constructor(random: RandomSource) {
    this.#random = random
    this.#own = randomIdentifier(random)
    this.#peer = new Uint8Array(identifierBytes)
  }

  /** 8 bytes each: the lower halves of both link-local addresses. */
  get agreement(): { readonly localIdentifier: Uint8Array; readonly peerIdentifier: Uint8Array } {
    return { localIdentifier: copyBytes(this.#own), peerIdentifier: copyBytes(this.#peer) }
  }

  restart(): void {
    // Our identifier stays: a renegotiated link keeps its addresses.
    this.#peer = new Uint8Array(identifierBytes)
  }

  request(): readonly Option[] {
    return [{ type: identifierType, data: copyBytes(this.#own) }]
  }

  judge(options: readonly Option[]): Judgement {
    const refused = options.filter(option => !isWellFormed(ipv6cpOptions, option))
    if (refused.length > 0) return { type: 'reject', options: refused }
    // One identifier, neither zero nor ours (RFC 5072 §4.1); absent counts as zero.
    const isGood = options.length > 0 && options.every(option => this.#isFree(option.data))
    return isGood
      ? { type: 'ack' }
      : { type: 'nak', options: [this.#suggestion()], isEssential: true }
  }

  accept(options: readonly Option[]): void {
    for (const option of options) this.#peer = copyBytes(option.data)
  }

  naked(options: readonly Option[]): NegotiationFailure | undefined {
    for (const option of options) {
      if (!isWellFormed(ipv6cpOptions, option)) continue
      const isUsable = !isZero(option.data) && !equalBytes(option.data, this.#peer)
      this.#own = isUsable ? copyBytes(option.data) : randomIdentifier(this.#random)
    }
    return undefined
  }

  rejected(): NegotiationFailure | undefined {
    return 'essential-option-rejected'
  }

  #isFree(identifier: Uint8Array): boolean {
    return !isZero(identifier) && !equalBytes(identifier, this.#own)
  }

  #suggestion(): Option {
    let identifier = randomIdentifier(this.#random)
    while (!this.#isFree(identifier)) identifier = randomIdentifier(this.#random)
    return { type: identifierType, data: identifier }
  }
}

function randomIdentifier(random: RandomSource): Uint8Array {
  for (;;) {
    const identifier = randomBytes(random, identifierBytes)
    identifier[0] = (identifier[0] ?? 0) & ~universalBit
    if (!isZero(identifier)) return identifier
  }
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every(byte => byte === 0)
}

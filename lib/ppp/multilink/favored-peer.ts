/**
 * The one option of BACP (RFC 2125 §4.1): each side draws a number, and who has the lower one is
 * favored when both ask for a change at once.
 */
import { putU32 } from '../../core/bytes.ts'
import { type RandomSource, randomBytes } from '../../core/random.ts'
import type { Judgement, NegotiationFailure, OptionSemantics } from '../negotiation.ts'
import { isWellFormed, type Option, type OptionRow, u32OfOption } from '../wire/option.ts'

const bacpOptions = { favoredPeer: { type: 1, dataBytes: 4 } } as const satisfies Record<
  string,
  OptionRow
>

export class FavoredPeer implements OptionSemantics {
  /** Two sides may draw the same number: that is Naked, not taken for an echo. */
  readonly isUnmistakable = false
  readonly #random: RandomSource
  #own: number
  #peer = 0

  constructor(random: RandomSource) {
    this.#random = random
    this.#own = drawNumber(random)
  }

  /** Our requests go before those of the peer. */
  get isFavored(): boolean {
    return this.#own < this.#peer
  }

  restart(): void {
    this.#peer = 0
  }

  request(): readonly Option[] {
    return [numberOption(this.#own)]
  }

  judge(options: readonly Option[]): Judgement {
    const unknown = options.filter(option => !isWellFormed(bacpOptions, option))
    if (unknown.length > 0) return { type: 'reject', options: unknown }
    // It must be there, and tell the two sides apart.
    const isGood = options.length > 0 && options.every(option => this.#isFree(u32OfOption(option)))
    if (isGood) return { type: 'ack' }
    let number = drawNumber(this.#random)
    while (!this.#isFree(number)) number = drawNumber(this.#random)
    return { type: 'nak', options: [numberOption(number)], isEssential: true }
  }

  accept(options: readonly Option[]): void {
    for (const option of options) this.#peer = u32OfOption(option)
  }

  naked(options: readonly Option[]): NegotiationFailure | undefined {
    for (const option of options) {
      const isUsable = isWellFormed(bacpOptions, option) && u32OfOption(option) !== 0
      this.#own = isUsable ? u32OfOption(option) : drawNumber(this.#random)
    }
    return undefined
  }

  rejected(): NegotiationFailure | undefined {
    return 'essential-option-rejected'
  }

  #isFree(number: number): boolean {
    return number !== 0 && number !== this.#own
  }
}

function numberOption(number: number): Option {
  const data = new Uint8Array(bacpOptions.favoredPeer.dataBytes)
  putU32(data, 0, number)
  return { type: bacpOptions.favoredPeer.type, data }
}

function drawNumber(random: RandomSource): number {
  for (;;) {
    const number = u32OfOption({ type: 0, data: randomBytes(random, 4) })
    if (number !== 0) return number
  }
}

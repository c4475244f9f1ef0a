/** Encryption of a stock client: what it asks for in CCP, and its packets under what was agreed on. */
import type { MasterKeys } from '../../lib/aaa/authenticator.ts'
import { concatBytes, copyBytes, fromHex, putU16, u16 } from '../../lib/core/bytes.ts'
import { Decryption, MppeDecryptor } from '../../lib/ppp/mppe/mppe-decryptor.ts'
import { MppeEncryptor } from '../../lib/ppp/mppe/mppe-encryptor.ts'
import { type Option, u32OfOption } from '../../lib/ppp/wire/option.ts'

/** RFC 3078 §2: bits of option 18. */
const stateless = 0x01000000
const strengths = { 64: 128, 128: 56, 32: 40 } as const

const microsoft = (bits: string): Option => ({ type: 18, data: fromHex(bits) })

export class StockEncryption {
  /** Its first Configure-Request. */
  readonly request: readonly Option[]
  readonly #wish: Option

  /** Bits in hexadecimal: what it asks for first, and the one thing that it agrees to. */
  constructor(request: string, wish: string) {
    this.request = [microsoft(request)]
    this.#wish = microsoft(wish)
  }

  /** What it asks for instead of the server's `options`; undefined: it takes them. */
  answer(options: readonly Option[]): Option | undefined {
    const [option] = options
    const isSame = option?.type === 18 && u32OfOption(option) === u32OfOption(this.#wish)
    return isSame && options.length === 1 ? undefined : this.#wish
  }
}

export class StockMppe {
  readonly isStateless: boolean
  readonly #encryptor: MppeEncryptor
  readonly #decryptor: MppeDecryptor
  /** Packets that it could not open. */
  unopened = 0

  private constructor(encryptor: MppeEncryptor, decryptor: MppeDecryptor, isStateless: boolean) {
    this.#encryptor = encryptor
    this.#decryptor = decryptor
    this.isStateless = isStateless
  }

  /** `keys` are the server's; `agreed` is what it has acknowledged. Undefined: nothing encrypts. */
  static open(keys: MasterKeys, agreed: readonly Option[]): StockMppe | undefined {
    const [option] = agreed
    if (option === undefined) return undefined
    const bits = u32OfOption(option)
    const isStateless = (bits & stateless) !== 0
    for (const [bit, keyBits] of Object.entries(strengths)) {
      if ((bits & Number(bit)) === 0) continue
      return new StockMppe(
        new MppeEncryptor(keys.receive, keyBits, isStateless),
        new MppeDecryptor(keys.send, keyBits, isStateless, false),
        isStateless,
      )
    }
    return undefined
  }

  /** The server has lost its place: the next packet begins with fresh tables. */
  reset(): void {
    this.#encryptor.reset()
  }

  /** The information field of a frame of protocol 0x00fd. */
  seal(protocol: number, packet: Uint8Array): Uint8Array {
    const inside = concatBytes(Uint8Array.of(protocol >>> 8, protocol), packet)
    const head = new Uint8Array(2)
    putU16(head, 0, this.#encryptor.encrypt(inside, 0, inside.length))
    return concatBytes(head, inside)
  }

  /** The IP packet in it; undefined: lost, late or forged. */
  open(information: Uint8Array): Uint8Array | undefined {
    const inside = copyBytes(information, 2)
    const result = this.#decryptor.decrypt(u16(information, 0), inside, 0, inside.length)
    if (result === Decryption.ok) return copyBytes(inside, inside[0] === 0 ? 2 : 1)
    this.unopened++
    return undefined
  }
}

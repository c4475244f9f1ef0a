/** The LCP options of multilink (RFC 1990 §5.1, RFC 2125 §2.1), for links that may be bundled. */
import { putU16, u16 } from '../../core/bytes.ts'
import type { MultilinkSettings } from '../settings.ts'
import { type MultilinkOptionName, multilinkOptions } from '../wire/lcp-options.ts'
import type { Option } from '../wire/option.ts'

/** RFC 1990 §5.1.3: how an endpoint is named. */
export const EndpointClass = {
  none: 0,
  local: 1,
  ipv4: 2,
  macAddress: 3,
  magicNumbers: 4,
  directoryNumber: 5,
} as const

/** RFC 1990 §5.1.3: the longest address of any class. */
const maxAddressBytes = 20
/** Implementation constants: what a packet put together may have. RFC 1990 §5.1.1 wants no bounds. */
const minMrruBytes = 576
const maxMrruBytes = 16_384

/** What both sides have said. */
export interface MultilinkAgreement {
  readonly peerMrruBytes: number
  /** The peer wants short sequence numbers; so do we. */
  readonly sendsShort: boolean
  readonly receivesShort: boolean
  /** Class and address; empty when the peer has named none, as class `none`. */
  readonly endpoint: Uint8Array
  /** What each side calls the link; absent: BAP is not spoken. */
  readonly names?: LinkNames
}

/** Link-Discriminators of one link (RFC 2125 §2.1). */
export interface LinkNames {
  readonly own: number
  readonly peer: number
}

export class LcpMultilink {
  readonly #settings: MultilinkSettings
  readonly #refused = new Set<MultilinkOptionName>()
  #ownMrruBytes = 0
  #peerMrruBytes = 0
  #isPeerShort = false
  #endpoint: Uint8Array = new Uint8Array(0)
  #peerDiscriminator: number | undefined

  constructor(settings: MultilinkSettings) {
    this.#settings = settings
    this.restart()
  }

  /** Undefined while one side has not offered to put packets together. */
  get agreement(): MultilinkAgreement | undefined {
    if (this.#peerMrruBytes === 0 || this.#refused.has('mrru')) return undefined
    const own = this.#refused.has('discriminator') ? undefined : this.#settings.discriminator
    const peer = this.#peerDiscriminator
    return {
      peerMrruBytes: this.#peerMrruBytes,
      sendsShort: this.#isPeerShort,
      receivesShort: this.#settings.wantsShort && !this.#refused.has('short'),
      endpoint: this.#endpoint,
      ...(own !== undefined && peer !== undefined && { names: { own, peer } }),
    }
  }

  restart(): void {
    this.#refused.clear()
    this.#ownMrruBytes = this.#settings.mrruBytes
    this.forgetPeer()
  }

  forgetPeer(): void {
    this.#peerMrruBytes = 0
    this.#isPeerShort = false
    this.#endpoint = new Uint8Array(0)
    this.#peerDiscriminator = undefined
  }

  request(): readonly Option[] {
    const { endpoint, wantsShort, discriminator } = this.#settings
    const options: Option[] = []
    if (this.#refused.has('mrru')) return options
    options.push(u16Option(multilinkOptions.mrru, this.#ownMrruBytes))
    if (wantsShort && !this.#refused.has('short')) {
      options.push({ type: multilinkOptions.short, data: new Uint8Array(0) })
    }
    if (!this.#refused.has('endpoint')) {
      options.push({ type: multilinkOptions.endpoint, data: endpoint })
    }
    if (discriminator !== undefined && !this.#refused.has('discriminator')) {
      options.push(u16Option(multilinkOptions.discriminator, discriminator))
    }
    return options
  }

  /** Whether the option is one of them, and written as it must be. */
  knows({ type, data }: Option): boolean {
    if (type === multilinkOptions.mrru) return data.length === 2
    if (type === multilinkOptions.short) return data.length === 0
    if (type === multilinkOptions.discriminator) {
      return data.length === 2 && this.#settings.discriminator !== undefined
    }
    return (
      type === multilinkOptions.endpoint && data.length >= 1 && data.length <= 1 + maxAddressBytes
    )
  }

  /** What we want instead; undefined when the option is fine. */
  counterOffer({ type, data }: Option): Option | undefined {
    if (type !== multilinkOptions.mrru) return undefined
    const wished = u16(data, 0)
    if (wished < minMrruBytes) return u16Option(multilinkOptions.mrru, minMrruBytes)
    return wished > maxMrruBytes ? u16Option(multilinkOptions.mrru, maxMrruBytes) : undefined
  }

  accept({ type, data }: Option): void {
    if (type === multilinkOptions.mrru) this.#peerMrruBytes = u16(data, 0)
    else if (type === multilinkOptions.short) this.#isPeerShort = true
    else if (type === multilinkOptions.endpoint) this.#endpoint = data
    else if (type === multilinkOptions.discriminator) this.#peerDiscriminator = u16(data, 0)
  }

  naked(option: Option): void {
    if (option.type !== multilinkOptions.mrru || !this.knows(option)) return
    this.#ownMrruBytes = Math.min(
      this.#settings.mrruBytes,
      Math.max(minMrruBytes, u16(option.data, 0)),
    )
  }

  rejected({ type }: Option): void {
    for (const name of ['mrru', 'short', 'endpoint', 'discriminator'] as const) {
      if (multilinkOptions[name] === type) this.#refused.add(name)
    }
  }
}

function u16Option(type: number, value: number): Option {
  const data = new Uint8Array(2)
  putU16(data, 0, value)
  return { type, data }
}

/** The options of IPCP (RFC 1332, RFC 1877), one class for either role. */
import type { Judgement, NegotiationFailure, OptionSemantics } from './negotiation.ts'
import type { ClientNetwork, ServerNetwork } from './settings.ts'
import { ipcpOptions } from './wire/ipcp-options.ts'
import { isWellFormed, type Option, optionU32, u32OfOption } from './wire/option.ts'

/** What IPCP has agreed on; addresses in host order. */
export interface Ipv4Agreement {
  readonly localAddress: number
  /** 0 when the peer has none. */
  readonly peerAddress: number
  readonly dns: readonly number[]
  readonly wins: readonly number[]
}

const address = ipcpOptions.ipAddress.type

/** The server: asks for its own address only, and gives the client what was granted. */
export class IpcpServerOptions implements OptionSemantics {
  readonly isUnmistakable = false
  #network: NonNullable<ServerNetwork['ipv4']>
  #isAddressRefused = false

  constructor(network: NonNullable<ServerNetwork['ipv4']>) {
    this.#network = network
  }

  /** Holds from the next negotiation on. */
  set network(network: NonNullable<ServerNetwork['ipv4']>) {
    this.#network = network
  }

  get agreement(): Ipv4Agreement {
    const { localAddress, peerAddress, dns, wins } = this.#network
    return { localAddress, peerAddress, dns: dns.slice(0, 2), wins: wins.slice(0, 2) }
  }

  restart(): void {
    this.#isAddressRefused = false
  }

  request(): readonly Option[] {
    return this.#isAddressRefused ? [] : [optionU32(address, this.#network.localAddress)]
  }

  judge(options: readonly Option[]): Judgement {
    // Compression, the deprecated two addresses, and servers that we have no value for.
    const refused = options.filter(
      option => !isWellFormed(ipcpOptions, option) || this.#granted(option.type) === undefined,
    )
    if (refused.length > 0) return { type: 'reject', options: refused }
    const counterOffers: Option[] = []
    for (const option of options) {
      const granted = this.#granted(option.type)
      if (granted !== undefined && granted !== u32OfOption(option)) {
        counterOffers.push(optionU32(option.type, granted))
      }
    }
    const asksForAddress = options.some(option => option.type === address)
    if (!asksForAddress) counterOffers.push(optionU32(address, this.#network.peerAddress))
    const isEssential =
      !asksForAddress || counterOffers.some(counterOffer => counterOffer.type === address)
    return counterOffers.length > 0
      ? { type: 'nak', options: counterOffers, isEssential }
      : { type: 'ack' }
  }

  accept(): void {
    // Nothing to keep: an accepted request says exactly what was granted.
  }

  naked(): NegotiationFailure | undefined {
    return undefined // Our address is not the client's to choose.
  }

  rejected(): NegotiationFailure | undefined {
    this.#isAddressRefused = true
    return undefined
  }

  #granted(type: number): number | undefined {
    const { peerAddress, dns, wins } = this.#network
    switch (type) {
      case ipcpOptions.ipAddress.type:
        return peerAddress
      case ipcpOptions.primaryDns.type:
        return dns[0]
      case ipcpOptions.secondaryDns.type:
        return dns[1]
      case ipcpOptions.primaryWins.type:
        return wins[0]
      case ipcpOptions.secondaryWins.type:
        return wins[1]
      default:
        return undefined
    }
  }
}

/** The client: asks for an address and name servers, takes what it is given. */
export class IpcpClientOptions implements OptionSemantics {
  readonly isUnmistakable = false
  readonly #wishes: NonNullable<ClientNetwork['ipv4']>
  /** Option type -> the value that we ask for next; absent: not asked for. */
  readonly #values = new Map<number, number>()
  #peerAddress = 0

  constructor(wishes: NonNullable<ClientNetwork['ipv4']>) {
    this.#wishes = wishes
    this.restart()
  }

  get agreement(): Ipv4Agreement {
    const servers = (...types: number[]) =>
      types.map(type => this.#values.get(type) ?? 0).filter(value => value !== 0)
    return {
      localAddress: this.#values.get(address) ?? 0,
      peerAddress: this.#peerAddress,
      dns: servers(ipcpOptions.primaryDns.type, ipcpOptions.secondaryDns.type),
      wins: servers(ipcpOptions.primaryWins.type, ipcpOptions.secondaryWins.type),
    }
  }

  restart(): void {
    const { address: wished, wantsDns, wantsWins } = this.#wishes
    // A renegotiation asks for the address that it had.
    const lastAddress = this.#values.get(address) ?? 0
    this.#values.clear()
    this.#values.set(address, lastAddress !== 0 ? lastAddress : (wished ?? 0))
    // The order in which Windows asks.
    if (wantsDns) this.#values.set(ipcpOptions.primaryDns.type, 0)
    if (wantsWins) this.#values.set(ipcpOptions.primaryWins.type, 0)
    if (wantsDns) this.#values.set(ipcpOptions.secondaryDns.type, 0)
    if (wantsWins) this.#values.set(ipcpOptions.secondaryWins.type, 0)
    this.#peerAddress = 0
  }

  request(): readonly Option[] {
    return [...this.#values].map(([type, value]) => optionU32(type, value))
  }

  judge(options: readonly Option[]): Judgement {
    const refused = options.filter(
      option =>
        option.type !== address || !isWellFormed(ipcpOptions, option) || u32OfOption(option) === 0,
    )
    return refused.length > 0 ? { type: 'reject', options: refused } : { type: 'ack' }
  }

  accept(options: readonly Option[]): void {
    this.#peerAddress = 0
    for (const option of options) this.#peerAddress = u32OfOption(option)
  }

  naked(options: readonly Option[]): NegotiationFailure | undefined {
    for (const option of options) {
      if (isWellFormed(ipcpOptions, option) && this.#values.has(option.type)) {
        this.#values.set(option.type, u32OfOption(option))
      }
    }
    return undefined
  }

  rejected(options: readonly Option[]): NegotiationFailure | undefined {
    for (const option of options) {
      if (option.type === address) return 'essential-option-rejected'
      this.#values.delete(option.type)
    }
    return undefined
  }
}

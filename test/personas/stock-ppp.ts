/**
 * The PPP of a stock client over any tunnel: answers what it is asked and otherwise asks for what its
 * data say. It shares codecs with the server, and no state machine.
 */
import { concatBytes, copyBytes, fromHex, utf8, utf8Text } from '../../lib/core/bytes.ts'
import { randomBytes, SeededRandom } from '../../lib/core/random.ts'
import { serverKeysOf } from '../../lib/crypto/mppe-keys.ts'
import {
  checkAuthenticatorResponse,
  generateNtResponse,
  ntPasswordHash,
} from '../../lib/crypto/ms-chap.ts'
import { CcpCode } from '../../lib/ppp/wire/ccp-options.ts'
import {
  ChapCode,
  encodeChapValue,
  encodeMschapv2Value,
  parseChapValue,
} from '../../lib/ppp/wire/chap.ts'
import {
  ControlCode,
  checkControlPacket,
  encodeControlPacket,
  parseControlPacket,
} from '../../lib/ppp/wire/control-packet.ts'
import { encodeFrame, PppProtocol, peel } from '../../lib/ppp/wire/frame.ts'
import { authenticationOf, authenticationOptionOf } from '../../lib/ppp/wire/lcp-options.ts'
import { encodeOptions, type Option, parseOptions, u32OfOption } from '../../lib/ppp/wire/option.ts'
import type { OptionText } from './personas.ts'
import { StockLayer } from './stock-layer.ts'
import { type StockEncryption, StockMppe } from './stock-mppe.ts'

type Protocol = 'lcp' | 'ccp' | 'ipcp' | 'ipv6cp'
/** In the order of their first requests. */
export type StockNetworks = readonly ('ccp' | 'ipcp' | 'ipv6cp')[]

/** RFC 1661 §4.6: the restart timer and counter of every client here. */
const restartMs = 3000
const maxConfigure = 10

export interface StockPppOptions {
  readonly lcp: readonly OptionText[]
  readonly ipcp: readonly OptionText[]
  readonly speaksIpv6: boolean
  /** IPV6CP and IPCP when absent. */
  readonly networks?: StockNetworks
  /** Asks for nothing else before CCP is open. */
  readonly waitsForEncryption?: boolean
  readonly encryption?: StockEncryption
  /** Leaves away address, control and half of the protocol field once that is agreed. */
  readonly compressesHeaders?: boolean
  /** LCP Identifications (RFC 1570 §2.1), sent as soon as LCP is open. */
  readonly identifications?: readonly Uint8Array[]
  /** As it stands in the CHAP Response. */
  readonly userName: string
  readonly password: string
  frame(bytes: Uint8Array): void
  packet(bytes: Uint8Array): void
  complain(what: string): void
  /** Absent: nothing is lost, and nothing sent again. */
  nowMs?(): number
  linkUp?(): void
}

export class StockPpp {
  address = 0
  /** Text of a CHAP Failure. */
  failure: string | undefined
  isTerminated = false
  echoReplies = 0
  /** CCP Reset-Requests that it obeyed. */
  resets = 0
  /** What it has agreed on for its packets. */
  mppe: StockMppe | undefined
  readonly #options: StockPppOptions
  readonly #random = new SeededRandom(78)
  readonly #networks: StockNetworks
  readonly #layers: Record<Protocol, StockLayer>
  readonly #interfaceId = fromHex('021a4bfffe00c0de')
  readonly #magic = fromHex('5eed1e55')
  #identifier = 0
  #isServerProved: (text: string) => boolean = () => false
  /** The proof that waits for a verdict. */
  #response: { readonly identifier: number; readonly data: Uint8Array; dueMs: number } | undefined
  #keys: Parameters<typeof StockMppe.open>[0] | undefined

  constructor(options: StockPppOptions) {
    this.#options = options
    this.#networks = options.networks ?? (options.speaksIpv6 ? ['ipv6cp', 'ipcp'] : ['ipcp'])
    this.#layers = {
      lcp: new StockLayer('lcp'),
      ccp: new StockLayer('ccp'),
      ipcp: new StockLayer('ipcp'),
      ipv6cp: new StockLayer('ipv6cp'),
    }
  }

  get isUp(): boolean {
    return this.#networks.every(protocol => this.#isOpen(protocol))
  }

  start(): void {
    this.#request('lcp')
  }

  send(packet: Uint8Array): void {
    const protocol = (packet[0] ?? 0) >>> 4 === 6 ? PppProtocol.ipv6 : PppProtocol.ipv4
    if (this.mppe === undefined) this.#frame(protocol, packet)
    else this.#frame(PppProtocol.compressed, this.mppe.seal(protocol, packet))
  }

  /** Sends again what was not answered. */
  onTime(nowMs: number): void {
    for (const protocol of ['lcp', ...this.#networks] as const) {
      const layer = this.#layers[protocol]
      if (layer.isAcked || nowMs < layer.dueMs || layer.tries >= maxConfigure) continue
      const data = encodeOptions(layer.options)
      this.#control(protocol, ControlCode.configureRequest, layer.identifier, data)
      layer.tries++
      layer.dueMs = nowMs + restartMs
    }
    const response = this.#response
    if (response === undefined || nowMs < response.dueMs) return
    response.dueMs = nowMs + restartMs
    this.#control('chap', ChapCode.response, response.identifier, response.data)
  }

  terminate(): void {
    this.#control('lcp', ControlCode.terminateRequest, ++this.#identifier, utf8('User request'))
  }

  /** As if it could not follow. */
  askForReset(): void {
    this.#control('ccp', CcpCode.resetRequest, ++this.#identifier, new Uint8Array(0))
  }

  receive(bytes: Uint8Array): void {
    const peeled = peel(bytes, 0, bytes.length)
    const at = peeled >>> 16
    const protocol = peeled & 0xffff
    if (protocol === PppProtocol.ipv4 || protocol === PppProtocol.ipv6) {
      if (this.mppe !== undefined) this.#options.complain('a packet in clear')
      this.#options.packet(copyBytes(bytes, at))
      return
    }
    if (protocol === PppProtocol.compressed && this.mppe !== undefined) {
      const packet = this.mppe.open(copyBytes(bytes, at))
      if (packet !== undefined) this.#options.packet(packet)
      return
    }
    if (checkControlPacket(bytes, at, bytes.length - at)) {
      this.#options.complain('a malformed PPP packet')
      return
    }
    const { code, identifier, data } = parseControlPacket(bytes, at)
    if (protocol === PppProtocol.chap) this.#chap(code, identifier, data)
    else if (protocol === PppProtocol.lcp) this.#lcp(code, identifier, data)
    else if (protocol === PppProtocol.ipcp) this.#negotiate('ipcp', code, identifier, data)
    else if (protocol === PppProtocol.ipv6cp && this.#networks.includes('ipv6cp')) {
      this.#negotiate('ipv6cp', code, identifier, data)
    } else if (protocol === PppProtocol.ccp && this.#networks.includes('ccp')) {
      if (code === CcpCode.resetRequest) {
        this.resets++
        this.mppe?.reset()
      } else this.#negotiate('ccp', code, identifier, data)
    } else {
      const rejected = concatBytes(Uint8Array.of(protocol >>> 8, protocol), copyBytes(bytes, at))
      this.#control('lcp', ControlCode.protocolReject, ++this.#identifier, rejected)
    }
  }

  #lcp(code: number, identifier: number, data: Uint8Array): void {
    switch (code) {
      case ControlCode.echoRequest:
        this.#control('lcp', ControlCode.echoReply, identifier, this.#magic)
        return
      case ControlCode.echoReply:
        this.echoReplies++
        return
      case ControlCode.terminateRequest:
        this.#control('lcp', ControlCode.terminateAck, identifier, new Uint8Array(0))
        this.isTerminated = true
        return
      case ControlCode.terminateAck:
        this.isTerminated = true
        return
      case ControlCode.protocolReject:
        this.#options.complain('a Protocol-Reject')
        return
      default:
        this.#negotiate('lcp', code, identifier, data)
    }
  }

  #negotiate(protocol: Protocol, code: number, identifier: number, data: Uint8Array): void {
    const layer = this.#layers[protocol]
    const wasOpen = layer.isOpen
    if (code === ControlCode.configureRequest) {
      this.#judge(protocol, identifier, parseOptions(data), data)
    } else {
      const complain = (what: string) => this.#options.complain(what)
      if (layer.heard(code, identifier, data, complain) === 'again') this.#request(protocol)
    }
    if (!wasOpen && this.#isOpen(protocol)) this.#opened(protocol)
  }

  #opened(protocol: Protocol): void {
    const { options } = this.#layers[protocol]
    switch (protocol) {
      case 'lcp':
        for (const data of this.#options.identifications ?? []) {
          const text = concatBytes(this.#magic, data)
          this.#control('lcp', ControlCode.identification, ++this.#identifier, text)
        }
        this.#options.linkUp?.()
        return
      case 'ccp':
        if (this.#keys !== undefined) this.mppe = StockMppe.open(this.#keys, options)
        if (this.#options.waitsForEncryption === true) this.#requestNetworks()
        return
      case 'ipcp': {
        const address = options.find(({ type }) => type === 3)
        this.address = address === undefined ? 0 : u32OfOption(address)
        return
      }
      case 'ipv6cp':
        return
    }
  }

  /** RFC 1661 §4.3: a request in Opened takes the layer down, and with LCP all above it. */
  #down(protocol: Protocol): void {
    if (protocol === 'ccp' || protocol === 'lcp') this.mppe = undefined
    if (protocol === 'lcp') {
      this.#response = undefined
      for (const network of this.#networks) this.#layers[network] = new StockLayer(network)
    }
    this.#layers[protocol].hasAcked = false
    this.#request(protocol)
  }

  #judge(protocol: Protocol, identifier: number, options: Option[], data: Uint8Array): void {
    const offered = options.find(({ type }) => protocol === 'lcp' && type === 3)
    if (offered !== undefined && authenticationOf(offered) !== 'mschapv2') {
      const nak = encodeOptions([authenticationOptionOf('mschapv2')])
      this.#control(protocol, ControlCode.configureNak, identifier, nak)
      return
    }
    const { encryption } = this.#options
    const wish = protocol === 'ccp' ? encryption?.answer(options) : undefined
    if (wish !== undefined) {
      this.#control(protocol, ControlCode.configureNak, identifier, encodeOptions([wish]))
      return
    }
    if (this.#isOpen(protocol)) this.#down(protocol)
    this.#layers[protocol].hasAcked = true
    this.#control(protocol, ControlCode.configureAck, identifier, data)
  }

  #chap(code: number, identifier: number, data: Uint8Array): void {
    if (code === ChapCode.challenge) this.#respond(identifier, parseChapValue(data).value)
    else if (code === ChapCode.failure) {
      this.#response = undefined
      this.failure = utf8Text(data)
    } else if (code === ChapCode.success) {
      this.#response = undefined
      if (!this.#isServerProved(utf8Text(data))) {
        this.#options.complain('the server did not prove itself')
      }
      if (this.#options.waitsForEncryption !== true) this.#requestNetworks()
      else if (this.#layers.ccp.identifier < 0) this.#request('ccp')
    }
  }

  /** All that were not asked for yet. */
  #requestNetworks(): void {
    for (const protocol of this.#networks) {
      if (this.#layers[protocol].identifier < 0) this.#request(protocol)
    }
  }

  #respond(identifier: number, authenticatorChallenge: Uint8Array): void {
    const { userName, password } = this.#options
    const peerChallenge = randomBytes(this.#random, 16)
    const exchange = { userName, authenticatorChallenge, peerChallenge }
    const ntHash = ntPasswordHash(password)
    const ntResponse = generateNtResponse(exchange, ntHash)
    this.#isServerProved = text => checkAuthenticatorResponse(exchange, ntHash, ntResponse, text)
    const value = encodeMschapv2Value({ peerChallenge, ntResponse })
    const data = encodeChapValue({ value, name: utf8(userName) })
    this.#keys = serverKeysOf(ntHash, ntResponse)
    this.#response = { identifier, data, dueMs: this.#dueMs }
    this.#control('chap', ChapCode.response, identifier, data)
  }

  #request(protocol: Protocol): void {
    const layer = this.#layers[protocol]
    if (layer.identifier < 0) layer.options = this.#wishes(protocol)
    layer.identifier = ++this.#identifier & 0xff
    layer.isAcked = false
    layer.dueMs = this.#dueMs
    const data = encodeOptions(layer.options)
    this.#control(protocol, ControlCode.configureRequest, layer.identifier, data)
  }

  #wishes(protocol: Protocol): Option[] {
    if (protocol === 'ipv6cp') return [{ type: 1, data: this.#interfaceId }]
    if (protocol === 'ccp') return [...(this.#options.encryption?.request ?? [])]
    return this.#options[protocol].map(([type, value]) => ({
      type,
      data: value === 'magic' ? this.#magic : fromHex(value),
    }))
  }

  #control(
    protocol: keyof typeof PppProtocol,
    code: number,
    identifier: number,
    data: Uint8Array,
  ): void {
    const packet = encodeControlPacket({ code, identifier, data })
    this.#options.frame(encodeFrame(PppProtocol[protocol], packet))
  }

  /** RFC 1661 §6.5, §6.6: short headers for all but LCP, where that was acknowledged. */
  #frame(protocol: number, information: Uint8Array): void {
    const { lcp } = this.#layers
    const has = (type: number) => lcp.isAcked && lcp.options.some(one => one.type === type)
    if (this.#options.compressesHeaders !== true || !has(7) || !has(8)) {
      this.#options.frame(encodeFrame(protocol, information))
    } else this.#options.frame(concatBytes(Uint8Array.of(protocol), information))
  }

  get #dueMs(): number {
    return (this.#options.nowMs?.() ?? Number.POSITIVE_INFINITY) + restartMs
  }

  #isOpen(protocol: Protocol): boolean {
    return this.#layers[protocol].isOpen
  }
}

/**
 * The PPP of a stock client over any tunnel: answers what it is asked and otherwise asks for what its
 * data say. It shares codecs with the server, and no state machine.
 */
import {
  concatBytes,
  copyBytes,
  equalBytes,
  fromHex,
  utf8,
  utf8Text,
} from '../../lib/core/bytes.ts'
import { randomBytes, SeededRandom } from '../../lib/core/random.ts'
import {
  checkAuthenticatorResponse,
  generateNtResponse,
  ntPasswordHash,
} from '../../lib/crypto/ms-chap.ts'
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
import {
  encodeOptions,
  isSameOption,
  type Option,
  parseOptions,
  u32OfOption,
} from '../../lib/ppp/wire/option.ts'
import type { OptionText } from './personas.ts'

type Protocol = 'lcp' | 'ipcp' | 'ipv6cp'

export interface StockPppOptions {
  readonly lcp: readonly OptionText[]
  readonly ipcp: readonly OptionText[]
  readonly speaksIpv6: boolean
  /** As it stands in the CHAP Response. */
  readonly userName: string
  readonly password: string
  frame(bytes: Uint8Array): void
  packet(bytes: Uint8Array): void
  complain(what: string): void
}

interface Layer {
  options: Option[]
  identifier: number
  isAcked: boolean
  hasAcked: boolean
}

export class StockPpp {
  address = 0
  /** Text of a CHAP Failure. */
  failure: string | undefined
  isTerminated = false
  echoReplies = 0
  readonly #options: StockPppOptions
  readonly #random = new SeededRandom(78)
  readonly #layers: Record<Protocol, Layer>
  readonly #interfaceId = fromHex('021a4bfffe00c0de')
  readonly #magic = fromHex('5eed1e55')
  #identifier = 0
  #isServerProved: (text: string) => boolean = () => false

  constructor(options: StockPppOptions) {
    this.#options = options
    const layer = (): Layer => ({ options: [], identifier: -1, isAcked: false, hasAcked: false })
    this.#layers = { lcp: layer(), ipcp: layer(), ipv6cp: layer() }
  }

  get isUp(): boolean {
    return this.#isOpen('ipcp') && (!this.#options.speaksIpv6 || this.#isOpen('ipv6cp'))
  }

  start(): void {
    this.#request('lcp')
  }

  send(packet: Uint8Array): void {
    const protocol = (packet[0] ?? 0) >>> 4 === 6 ? PppProtocol.ipv6 : PppProtocol.ipv4
    this.#options.frame(encodeFrame(protocol, packet))
  }

  terminate(): void {
    this.#control('lcp', ControlCode.terminateRequest, ++this.#identifier, utf8('User request'))
  }

  receive(bytes: Uint8Array): void {
    const peeled = peel(bytes, 0, bytes.length)
    const at = peeled >>> 16
    const protocol = peeled & 0xffff
    if (protocol === PppProtocol.ipv4 || protocol === PppProtocol.ipv6) {
      this.#options.packet(copyBytes(bytes, at))
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
    else if (protocol === PppProtocol.ipv6cp && this.#options.speaksIpv6) {
      this.#negotiate('ipv6cp', code, identifier, data)
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
    const options = parseOptions(data)
    const wasOpen = this.#isOpen(protocol)
    if (code === ControlCode.configureRequest) {
      this.#judge(protocol, identifier, options, data)
    } else if (identifier !== layer.identifier) return
    switch (code) {
      case ControlCode.configureRequest:
        break
      case ControlCode.configureAck:
        if (!equalBytes(data, encodeOptions(layer.options))) {
          this.#options.complain(`${protocol}: an Ack that is not our request`)
        }
        layer.isAcked = true
        break
      case ControlCode.configureNak:
        layer.options = layer.options.map(
          option => options.find(({ type }) => type === option.type) ?? option,
        )
        this.#request(protocol)
        return
      case ControlCode.configureReject:
        // With all of them rejected an empty request is left, which must be acknowledged.
        layer.options = layer.options.filter(own => !options.some(one => isSameOption(own, one)))
        this.#request(protocol)
        return
      default:
        this.#options.complain(`${protocol}: code ${code}`)
    }
    if (!wasOpen && this.#isOpen(protocol) && protocol === 'ipcp') {
      const address = layer.options.find(({ type }) => type === 3)
      this.address = address === undefined ? 0 : u32OfOption(address)
    }
  }

  #judge(protocol: Protocol, identifier: number, options: Option[], data: Uint8Array): void {
    const offered = options.find(({ type }) => protocol === 'lcp' && type === 3)
    if (offered !== undefined && authenticationOf(offered) !== 'mschapv2') {
      const nak = encodeOptions([authenticationOptionOf('mschapv2')])
      this.#control(protocol, ControlCode.configureNak, identifier, nak)
      return
    }
    this.#layers[protocol].hasAcked = true
    this.#control(protocol, ControlCode.configureAck, identifier, data)
  }

  #chap(code: number, identifier: number, data: Uint8Array): void {
    if (code === ChapCode.challenge) this.#respond(identifier, parseChapValue(data).value)
    else if (code === ChapCode.failure) this.failure = utf8Text(data)
    else if (code === ChapCode.success) {
      if (!this.#isServerProved(utf8Text(data))) {
        this.#options.complain('the server did not prove itself')
      }
      if (this.#layers.ipcp.identifier >= 0) return
      if (this.#options.speaksIpv6) this.#request('ipv6cp')
      this.#request('ipcp')
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
    this.#control('chap', ChapCode.response, identifier, data)
  }

  #request(protocol: Protocol): void {
    const layer = this.#layers[protocol]
    if (layer.identifier < 0) layer.options = this.#wishes(protocol)
    layer.identifier = ++this.#identifier & 0xff
    layer.isAcked = false
    const data = encodeOptions(layer.options)
    this.#control(protocol, ControlCode.configureRequest, layer.identifier, data)
  }

  #wishes(protocol: Protocol): Option[] {
    if (protocol === 'ipv6cp') return [{ type: 1, data: this.#interfaceId }]
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

  #isOpen(protocol: Protocol): boolean {
    const { isAcked, hasAcked } = this.#layers[protocol]
    return isAcked && hasAcked
  }
}

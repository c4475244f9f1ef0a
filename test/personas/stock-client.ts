/**
 * Plays a persona: a PPP client that answers what it is asked and otherwise does what its data say.
 * It shares the codecs with the server, and no state machine; what a server must never do to it is an
 * entry in `complaints`.
 */
import { createHash } from 'node:crypto'
import { concatBytes, copyBytes, fromHex, toHex, utf8, utf8Text } from '../../lib/core/bytes.ts'
import { formatIpv4, formatIpv6 } from '../../lib/core/ip-address.ts'
import { randomBytes, SeededRandom } from '../../lib/core/random.ts'
import { higherLayerKey, serverKeysOf } from '../../lib/crypto/mppe-keys.ts'
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
import { encodeOptions, type Option, parseOptions, u32OfOption } from '../../lib/ppp/wire/option.ts'
import { encodePapRequest, PapCode } from '../../lib/ppp/wire/pap.ts'
import { callConnectedBytes } from '../../lib/sstp/crypto-binding.ts'
import type { Message, MessageName } from '../../lib/sstp/wire/message.ts'
import { icmp, udp } from '../dataplane/packets.ts'
import { eventually } from '../support/dial-in.ts'
import type { AuthenticationName, OptionText, Persona } from './personas.ts'
import { RawCall } from './raw-call.ts'
import { StockLayer } from './stock-layer.ts'

type Protocol = 'lcp' | 'ipcp' | 'ipv6cp'

export interface StockClientOptions {
  readonly port: number
  readonly userName: string
  readonly password: string
  /** In place of what the persona agrees to. */
  readonly authentication?: readonly AuthenticationName[]
  /** Changes the Call-Connected message before it is sent. */
  readonly forge?: (callConnected: Uint8Array) => void
  /** How often a proof is sent: as if the answer took longer than a restart timer. */
  readonly proofs?: number
  /** Never sends Call-Connected. */
  readonly doesNotBind?: boolean
}

export class StockClient {
  readonly persona: Persona
  readonly call: RawCall
  readonly complaints: string[] = []
  /** IP packets that arrived, without router advertisements. */
  readonly packets: Uint8Array[] = []
  readonly advertisements: Uint8Array[] = []
  readonly messages: (MessageName | undefined)[] = []
  readonly rejectedProtocols: number[] = []
  /** How often both of IPCP, or of IPV6CP, were acknowledged. */
  ipv4Count = 0
  ipv6Count = 0
  address = 0
  dns: number[] = []
  serverAddress = 0
  interfaceId = fromHex('021a4bfffe00c0de')
  serverInterfaceId: Uint8Array = new Uint8Array(0)
  authenticatedCount = 0
  /** Text of the last CHAP Failure or PAP Nak. */
  failure: string | undefined
  isTerminated = false
  echoReplies = 0
  /** LCP Echo-Requests of the server. */
  echoRequests = 0
  isBound = false
  readonly #options: StockClientOptions
  readonly #random = new SeededRandom(77)
  readonly #layers: Record<Protocol, StockLayer>
  readonly #identifiers = new Map<string, number>()
  #nonce: Uint8Array = new Uint8Array(32)
  #agreed: AuthenticationName | undefined
  #magic = fromHex('5eed1e55')
  #higherLayerKey: Uint8Array = new Uint8Array(32)
  #isCompressed = false

  private constructor(persona: Persona, call: RawCall, options: StockClientOptions) {
    this.persona = persona
    this.call = call
    this.#options = options
    this.#layers = {
      lcp: new StockLayer('lcp'),
      ipcp: new StockLayer('ipcp'),
      ipv6cp: new StockLayer('ipv6cp'),
    }
    call.listen({
      control: message => this.#control(message),
      frame: bytes => this.#frame(bytes),
    })
  }

  /** Connects and asks for a call; everything else follows by itself. */
  static async dial(persona: Persona, options: StockClientOptions): Promise<StockClient> {
    const call = await RawCall.open({
      port: options.port,
      maxTlsVersion: persona.tls,
      head: persona.head('vpn.example.net', options.port),
    })
    const client = new StockClient(persona, call, options)
    call.message('call-connect-request', { type: 'encapsulated-protocol-id', protocol: 1 })
    return client
  }

  get isOpen(): boolean {
    return this.#isOpen('lcp')
  }

  /** Everything that the persona wants is up. */
  get isUp(): boolean {
    return this.isBound && this.persona.networks.every(network => this.#isOpen(network))
  }

  async until(holds: (client: StockClient) => boolean): Promise<this> {
    const stands = () => {
      if (this.complaints.length > 0) throw new Error(this.complaints.join('; '))
      return holds(this)
    }
    await eventually(stands, () => `${this.persona.name}, ${this.messages.join()}`)
    return this
  }

  /** Resolves when the call is up; rejects when it ends before. */
  up(): Promise<this> {
    return this.until(() => {
      if (this.call.isClosed) throw new Error(`closed, ${this.failure ?? 'no failure'}`)
      return this.isUp
    })
  }

  /** Negotiates the link anew, as a client does whose link parameters changed. */
  renegotiate(): void {
    this.#restart()
    this.#request('lcp')
  }

  /** Sends an IP packet as this client does. */
  send(packet: Uint8Array): void {
    const protocol = (packet[0] ?? 0) >>> 4 === 6 ? PppProtocol.ipv6 : PppProtocol.ipv4
    if (this.#isCompressed) this.call.frame(concatBytes(Uint8Array.of(protocol), packet))
    else this.call.frame(encodeFrame(protocol, packet))
  }

  /** A PPP control packet of the test's own. */
  control(
    protocol: keyof typeof PppProtocol,
    code: number,
    identifier: number,
    data: Uint8Array,
  ): void {
    const packet = encodeControlPacket({ code, identifier, data })
    this.call.frame(encodeFrame(PppProtocol[protocol], packet))
  }

  /** The machine lost power: nothing is read or answered any more, and the connection stands. */
  vanish(): void {
    this.call.stopReading()
  }

  echo(): void {
    this.control('lcp', ControlCode.echoRequest, this.#next('lcp'), this.#magic)
  }

  /** Leaves in the persona's own way; resolves when the connection is gone. */
  async leave(): Promise<void> {
    const { leaves } = this.persona
    if (leaves.startsWith('terminate')) {
      this.control('lcp', ControlCode.terminateRequest, this.#next('lcp'), utf8('User request'))
      await this.until(client => client.isTerminated)
    }
    if (leaves === 'terminate-then-disconnect' || leaves === 'disconnect') {
      this.call.message('call-disconnect')
      await this.until(({ messages }) => messages.includes('call-disconnect-ack'))
    }
    if (leaves === 'abort') {
      this.call.message('call-abort')
      await this.until(({ messages }) => messages.includes('call-abort'))
    }
    this.call.end()
    await this.until(client => client.call.isClosed)
  }

  // SSTP

  #control({ name, attributes }: Message): void {
    this.messages.push(name)
    if (name === 'echo-request') this.call.message('echo-response')
    if (name === 'call-disconnect') this.call.message('call-disconnect-ack')
    if (name !== 'call-connect-ack') return
    const [request] = attributes
    if (request?.type !== 'crypto-binding-request') {
      this.complaints.push('Call-Connect-Ack without nonce')
      return
    }
    this.#nonce = request.nonce
    this.#request('lcp')
  }

  #bind(): void {
    if (this.isBound || this.#options.doesNotBind === true) return
    this.isBound = true
    const message = callConnectedBytes(
      'sha256',
      this.#nonce,
      this.call.certificate,
      this.#higherLayerKey,
    )
    this.#options.forge?.(message)
    this.call.write(message)
  }

  // PPP

  #frame(bytes: Uint8Array): void {
    const peeled = peel(bytes, 0, bytes.length)
    const at = peeled >>> 16
    const protocol = peeled & 0xffff
    if (protocol === PppProtocol.ipv4 || protocol === PppProtocol.ipv6) {
      const packet = copyBytes(bytes, at)
      if (isAdvertisement(packet)) this.advertisements.push(packet)
      else this.packets.push(packet)
      return
    }
    if (checkControlPacket(bytes, at, bytes.length - at)) {
      this.complaints.push(`malformed: ${toHex(bytes)}`)
      return
    }
    const { code, identifier, data } = parseControlPacket(bytes, at)
    switch (protocol) {
      case PppProtocol.lcp:
        this.#lcp(code, identifier, data)
        return
      case PppProtocol.ipcp:
        this.#negotiate('ipcp', code, identifier, data)
        return
      case PppProtocol.ipv6cp:
        if (this.persona.networks.includes('ipv6cp')) {
          this.#negotiate('ipv6cp', code, identifier, data)
        } else this.#rejectProtocol(protocol, copyBytes(bytes, at))
        return
      case PppProtocol.chap:
        this.#chap(code, identifier, data)
        return
      case PppProtocol.pap:
        this.#papAnswer(code, data)
        return
      default:
        this.#rejectProtocol(protocol, copyBytes(bytes, at))
    }
  }

  #lcp(code: number, identifier: number, data: Uint8Array): void {
    switch (code) {
      case ControlCode.codeReject:
        this.complaints.push(`Code-Reject of ${data[0]}`)
        return
      case ControlCode.protocolReject:
        this.rejectedProtocols.push(((data[0] ?? 0) << 8) | (data[1] ?? 0))
        return
      case ControlCode.echoRequest:
        this.echoRequests++
        this.control('lcp', ControlCode.echoReply, identifier, this.#magic)
        return
      case ControlCode.echoReply:
        this.echoReplies++
        return
      case ControlCode.terminateRequest:
        this.control('lcp', ControlCode.terminateAck, identifier, new Uint8Array(0))
        return
      case ControlCode.terminateAck:
        this.isTerminated = true
        return
      default:
        this.#negotiate('lcp', code, identifier, data)
    }
  }

  /** RFC 1661 §5.1 to §5.4 for any of the three. */
  #negotiate(protocol: Protocol, code: number, identifier: number, data: Uint8Array): void {
    const layer = this.#layers[protocol]
    const wasOpen = layer.isOpen
    if (code === ControlCode.configureRequest) {
      if (wasOpen) {
        if (protocol === 'lcp') this.#restart()
        layer.isAcked = false
        layer.hasAcked = false
        this.#request(protocol)
      }
      this.#judge(protocol, identifier, parseOptions(data), data)
    } else {
      const complain = (what: string) => this.complaints.push(what)
      if (layer.heard(code, identifier, data, complain) === 'again') this.#request(protocol)
    }
    if (!wasOpen && this.#isOpen(protocol)) this.#opened(protocol)
  }

  #judge(protocol: Protocol, identifier: number, options: Option[], data: Uint8Array): void {
    for (const option of options) {
      if (protocol === 'lcp' && option.type === 3) {
        const offered = authenticationOf(option)
        const wishes = this.#options.authentication ?? this.persona.authentication
        if (offered === undefined || !wishes.includes(offered)) {
          const [best = 'mschapv2'] = wishes
          const nak = encodeOptions([authenticationOptionOf(best)])
          this.control('lcp', ControlCode.configureNak, identifier, nak)
          return
        }
        this.#agreed = offered
      }
      if (protocol === 'ipcp') {
        // "Apple rejects ms-dns in server's request": a server asks for its address and nothing else.
        if (option.type === 3) this.serverAddress = u32OfOption(option)
        else this.complaints.push(`ipcp: the server asks for option ${option.type}`)
      }
      if (protocol === 'ipv6cp') this.serverInterfaceId = option.data
    }
    this.#layers[protocol].hasAcked = true
    this.control(protocol, ControlCode.configureAck, identifier, data)
  }

  #opened(protocol: Protocol): void {
    const { options } = this.#layers[protocol]
    if (protocol === 'lcp') {
      const has = (type: number) => options.some(option => option.type === type)
      this.#isCompressed = this.persona.compressesHeaders && has(7) && has(8)
      for (const text of this.persona.identifications) {
        const data = concatBytes(this.#magic, text)
        this.control('lcp', ControlCode.identification, this.#next('lcp'), data)
      }
      if (this.#agreed === 'pap') this.#papRequest()
      return
    }
    if (protocol === 'ipcp') {
      const value = (type: number) => {
        const option = options.find(one => one.type === type)
        return option === undefined ? 0 : u32OfOption(option)
      }
      this.address = value(3)
      this.dns = [value(129), value(131)].filter(address => address !== 0)
      this.ipv4Count++
      if (this.persona.binds === 'at-ip-up') this.#bind()
      if (this.persona.informs) this.send(dhcpInform(this.address))
      return
    }
    this.ipv6Count++
    if (this.persona.solicitsRouter) this.send(routerSolicitation(this.interfaceId))
  }

  // Authentication

  #chap(code: number, identifier: number, data: Uint8Array): void {
    if (code === ChapCode.challenge) {
      const { value } = parseChapValue(data)
      if (this.#agreed === 'mschapv2') this.#respondMschapv2(identifier, value)
      else this.#respondMd5(identifier, value)
    } else if (code === ChapCode.success) {
      const text = utf8Text(data)
      if (this.#agreed === 'mschapv2' && !this.#isServerProved(text)) {
        this.complaints.push(`the server did not prove itself: ${text}`)
        return
      }
      this.#authenticated()
    } else if (code === ChapCode.failure) this.failure = utf8Text(data)
  }

  #isServerProved: (text: string) => boolean = () => false

  #respondMschapv2(identifier: number, authenticatorChallenge: Uint8Array): void {
    const { userName, password, proofs = 1 } = this.#options
    const name = this.persona.userName(userName)
    const peerChallenge = randomBytes(this.#random, 16)
    const exchange = { userName: name, authenticatorChallenge, peerChallenge }
    const ntHash = ntPasswordHash(password)
    const ntResponse = generateNtResponse(exchange, ntHash)
    this.#higherLayerKey = higherLayerKey(serverKeysOf(ntHash, ntResponse))
    // RFC 2759 §5: 42 characters, then nothing or a space and a message.
    this.#isServerProved = text =>
      /^S=[0-9A-F]{40}( M=.*)?$/.test(text) &&
      checkAuthenticatorResponse(exchange, ntHash, ntResponse, text)
    const value = encodeMschapv2Value({ peerChallenge, ntResponse })
    const data = encodeChapValue({ value, name: utf8(name) })
    for (let i = 0; i < proofs; i++) this.control('chap', ChapCode.response, identifier, data)
  }

  #respondMd5(identifier: number, challenge: Uint8Array): void {
    const { userName, password, proofs = 1 } = this.#options
    const value = Uint8Array.from(
      createHash('md5')
        .update(concatBytes(Uint8Array.of(identifier), utf8(password), challenge))
        .digest(),
    )
    const data = encodeChapValue({ value, name: utf8(this.persona.userName(userName)) })
    for (let i = 0; i < proofs; i++) this.control('chap', ChapCode.response, identifier, data)
  }

  #papRequest(): void {
    const { userName, password, proofs = 1 } = this.#options
    const data = encodePapRequest({
      peerId: utf8(this.persona.userName(userName)),
      password: utf8(password),
    })
    const identifier = this.#next('pap')
    for (let i = 0; i < proofs; i++) {
      this.control('pap', PapCode.authenticateRequest, identifier, data)
    }
  }

  #papAnswer(code: number, data: Uint8Array): void {
    if (code === PapCode.authenticateAck) this.#authenticated()
    else this.failure = utf8Text(data)
  }

  #authenticated(): void {
    // An answer may come again for a proof that was sent again.
    if (this.#layers.ipcp.identifier >= 0) return
    this.authenticatedCount++
    const { binds, networks, triesProtocol } = this.persona
    if (binds === 'on-success') this.#bind()
    this.call.together(() => {
      if (binds === 'with-requests') this.#bind()
      if (triesProtocol !== undefined) {
        const request = encodeControlPacket({
          code: 1,
          identifier: 1,
          data: fromHex('1206 00000020'),
        })
        this.call.frame(encodeFrame(triesProtocol, request))
      }
      for (const network of networks) this.#request(network)
    })
  }

  // Requests

  #restart(): void {
    for (const layer of Object.values(this.#layers)) {
      layer.identifier = -1
      layer.isAcked = false
      layer.hasAcked = false
    }
    this.#agreed = undefined
    this.#isCompressed = false
  }

  /** Sends the Configure-Request; the first one asks for all that the persona wants. */
  #request(protocol: Protocol): void {
    const layer = this.#layers[protocol]
    if (layer.identifier < 0) layer.options = this.#wishes(protocol)
    layer.identifier = this.#next(protocol)
    layer.isAcked = false
    this.control(
      protocol,
      ControlCode.configureRequest,
      layer.identifier,
      encodeOptions(layer.options),
    )
  }

  #wishes(protocol: Protocol): Option[] {
    const texts: readonly OptionText[] =
      protocol === 'ipv6cp' ? [[1, 'interface']] : this.persona[protocol]
    return texts.map(([type, value]) => {
      if (value === 'magic') return { type, data: this.#magic }
      return { type, data: value === 'interface' ? this.interfaceId : fromHex(value) }
    })
  }

  #next(protocol: string): number {
    const counter = this.persona.hasOneCounter ? '' : protocol
    const identifier = this.#identifiers.get(counter) ?? this.persona.firstIdentifier
    this.#identifiers.set(counter, (identifier + 1) & 0xff)
    return identifier
  }

  #rejectProtocol(protocol: number, information: Uint8Array): void {
    const data = concatBytes(Uint8Array.of(protocol >>> 8, protocol), information)
    this.control('lcp', ControlCode.protocolReject, this.#next('lcp'), data)
  }

  #isOpen(protocol: Protocol): boolean {
    return this.#layers[protocol].isOpen
  }
}

/** RFC 4861 §4.1: from the link-local address to all routers, hop limit 255. */
export function routerSolicitation(interfaceId: Uint8Array): Uint8Array {
  const linkLocal = concatBytes(fromHex('fe80000000000000'), interfaceId)
  const packet = icmp(formatIpv6(linkLocal), 'ff02::2', 133, new Uint8Array(4))
  packet[7] = 255
  return packet
}

/** RFC 2131 §4.4.3, asking for routes (249, 121), DNS and the domain, as Windows does over PPP. */
export function dhcpInform(address: number): Uint8Array {
  const fixed = new Uint8Array(236)
  fixed.set([1, 8, 6])
  const options = fromHex('63825363 350108 3707 06 0f 2b 2c f9 79 fc ff')
  return udp({
    source: formatIpv4(address),
    destination: '255.255.255.255',
    sourcePort: 68,
    destinationPort: 67,
    payload: concatBytes(fixed, options),
  })
}

/** RFC 4861 §4.2. */
function isAdvertisement(packet: Uint8Array): boolean {
  return packet[0] === 0x60 && packet[6] === 58 && packet[40] === 134
}

/** Plays an L2TP/IPsec persona: IKEv1, ESP, a tunnel with one call in it, and PPP over that. */
import { concatBytes, fromHex, putU16, putU32, toHex, u16, utf8 } from '../../lib/core/bytes.ts'
import { addressBytes } from '../../lib/ikev1/path.ts'
import {
  CONTROL_HEADER_BYTES,
  checkHeader,
  headerBytes,
  isControl,
  nrOf,
  nsOf,
  sessionIdOf,
  tunnelIdOf,
} from '../../lib/l2tp/wire/header.ts'
import { type ControlMessage, parseControl } from '../../lib/l2tp/wire/message.ts'
import { referenceSum } from '../dataplane/packets.ts'
import type { IpsecServer, Waiting } from '../support/ipsec-server.ts'
import type { MachineCertificate } from '../support/machine-certificate.ts'
import type { AvpText, L2tpPersona } from './l2tp-personas.ts'
import { StockIsakmp } from './stock-isakmp.ts'
import { StockPpp } from './stock-ppp.ts'

export interface L2tpClientOptions {
  readonly server: IpsecServer
  readonly userName: string
  readonly password: string
  readonly address?: string
  readonly key?: string
  readonly certificate?: MachineCertificate
  readonly seed?: number
}

interface Unacknowledged {
  readonly ns: number
  readonly bytes: Uint8Array
  readonly resolve: () => void
  tries: number
  dueMs: number
}

const messageTypes = { sccrq: 1, scccn: 3, stopccn: 4, icrq: 10, iccn: 12, cdn: 14 } as const
const tunnelId = 0x0101
const sessionId = 0x0001

export class L2tpClient implements Waiting {
  readonly persona: L2tpPersona
  readonly isakmp: StockIsakmp
  readonly ppp: StockPpp
  /** IP packets that arrived. */
  readonly packets: Uint8Array[] = []
  readonly messages: string[] = []
  readonly #options: L2tpClientOptions
  readonly #unacknowledged: Unacknowledged[] = []
  readonly #awaited = new Map<string, (message: ControlMessage) => void>()
  #ns = 0
  #nr = 0
  #peerTunnelId = 0
  #peerSessionId = 0

  constructor(persona: L2tpPersona, options: L2tpClientOptions) {
    const { server, userName, password, address = '10.0.0.2' } = options
    this.persona = persona
    this.#options = options
    this.isakmp = new StockIsakmp(persona, { ...options, address })
    this.isakmp.onPacket = packet => this.#receive(packet)
    this.ppp = new StockPpp({
      lcp: persona.lcp,
      ipcp: persona.ipcp,
      speaksIpv6: persona.speaksIpv6,
      userName: persona.userName(userName),
      password,
      frame: bytes => this.#data(bytes),
      packet: bytes => this.packets.push(bytes),
      complain: what => this.complaints.push(what),
    })
    server.waiting.add(this)
  }

  get complaints(): string[] {
    return this.isakmp.complaints
  }

  /** ESP, the tunnel, the call; PPP begins. */
  async connect(): Promise<void> {
    await this.isakmp.phase1()
    await this.isakmp.phase2()
    const { sccrq, icrq, iccn } = this.persona
    const sccrp = this.#await('sccrp')
    await this.#send('sccrq', sccrq)
    const accepted = await sccrp
    if (accepted.type === 'sccrp') this.#peerTunnelId = accepted.assignedTunnelId
    await this.#send('scccn', [])
    const icrp = this.#await('icrp')
    await this.#send('icrq', icrq)
    const answered = await icrp
    if (answered.type === 'icrp') this.#peerSessionId = answered.assignedSessionId
    await this.#send('iccn', iccn, this.#peerSessionId)
    this.ppp.start()
  }

  /** Connects, and waits for PPP. Rejects with what PPP says when it does not come up. */
  async up(): Promise<this> {
    const { server } = this.#options
    await server.run(this.connect())
    for (let i = 0; i < 40 && !this.ppp.isUp; i++) await server.elapse(250)
    if (!this.ppp.isUp) throw new Error(`no PPP: ${this.ppp.failure ?? this.messages.join()}`)
    return this
  }

  /** Sends an IP packet in the call. */
  send(packet: Uint8Array): void {
    this.ppp.send(packet)
  }

  /** In the persona's own way. */
  async leave(): Promise<void> {
    const { leaves } = this.persona
    for (const step of leaves) {
      switch (step) {
        case 'terminate':
          this.ppp.terminate()
          break
        case 'cdn':
          await this.#send('cdn', [this.#result(3), [14, true, 'session']], this.#peerSessionId)
          break
        case 'stopccn':
          await this.#send('stopccn', [[9, true, 'tunnel'], this.#result(1)])
          break
        case 'delete-esp':
          for (const spi of this.isakmp.esp.inboundSpis) this.isakmp.deleteEsp(spi)
          break
        case 'delete-isakmp':
          this.isakmp.deleteIsakmp()
          break
      }
    }
    this.vanish()
  }

  vanish(): void {
    this.isakmp.vanish()
    this.#options.server.waiting.delete(this)
  }

  #result(code: number): AvpText {
    const value = new Uint8Array(2)
    putU16(value, 0, this.persona.isResultSwapped ? code << 8 : code)
    return [1, true, toHex(value)]
  }

  // Control

  #await(type: ControlMessage['type']): Promise<ControlMessage> {
    return new Promise(resolve => this.#awaited.set(type, resolve))
  }

  /** Resolves when it is acknowledged. */
  #send(type: keyof typeof messageTypes, avps: readonly AvpText[], peerSession = 0): Promise<void> {
    const code = new Uint8Array(2)
    putU16(code, 0, messageTypes[type])
    const body = concatBytes(
      ...[[0, true, toHex(code)] as const, ...avps].map(one => this.#avp(one)),
    )
    const bytes = new Uint8Array(CONTROL_HEADER_BYTES + body.length)
    putU16(bytes, 0, 0xc802)
    putU16(bytes, 2, bytes.length)
    putU16(bytes, 4, this.#peerTunnelId)
    putU16(bytes, 6, peerSession)
    bytes.set(body, CONTROL_HEADER_BYTES)
    const ns = this.#ns++
    return new Promise(resolve => {
      const dueMs = this.#options.server.nowMs + 1000
      const one = { ns, bytes, resolve, tries: 0, dueMs }
      this.#unacknowledged.push(one)
      this.#transmitControl(one)
    })
  }

  #avp([type, isMandatory, text]: AvpText): Uint8Array {
    const value = this.#avpValue(text)
    const out = new Uint8Array(6 + value.length)
    putU16(out, 0, (isMandatory ? 0x8000 : 0) | out.length)
    putU16(out, 4, type)
    out.set(value, 6)
    return out
  }

  #avpValue(text: string): Uint8Array {
    switch (text) {
      case 'tunnel':
        return Uint8Array.of(tunnelId >>> 8, tunnelId & 0xff)
      case 'session':
        return Uint8Array.of(sessionId >>> 8, sessionId & 0xff)
      case 'serial':
        return Uint8Array.of(0, 0, 0, 0)
      case 'host':
        return utf8('DESKTOP-7F3K2')
      default:
        return fromHex(text)
    }
  }

  #transmitControl({ ns, bytes }: Unacknowledged): void {
    putU16(bytes, 8, ns)
    putU16(bytes, 10, this.#nr)
    this.sendMessage(bytes)
  }

  onTime(nowMs: number): void {
    for (const one of this.#unacknowledged) {
      if (nowMs < one.dueMs || one.tries === 5) continue
      // RFC 2661 §5.8: 1, 2, 4, 8, 8 s.
      one.dueMs = nowMs + Math.min(1000 * 2 ** ++one.tries, 8000)
      this.#transmitControl(one)
    }
  }

  #receive(packet: Uint8Array): void {
    const message = packet.slice(8)
    if (u16(packet, 0) !== 1701 || u16(packet, 2) !== this.persona.l2tpPort) {
      this.complaints.push(`ports ${u16(packet, 0)} and ${u16(packet, 2)}`)
      return
    }
    const isIpv6 = this.isakmp.address.includes(':')
    if (isIpv6 !== (u16(packet, 6) !== 0)) this.complaints.push('UDP checksum: zero or not')
    if (checkHeader(message, 0, message.length)) {
      this.complaints.push('a malformed L2TP message')
      return
    }
    if (tunnelIdOf(message, 0) !== tunnelId) this.complaints.push('a tunnel that is not ours')
    if (isControl(message, 0)) this.#control(message)
    else if (sessionIdOf(message, 0) !== sessionId) this.complaints.push('not our session')
    else {
      if ((message[0] ?? 0) !== 0x40) this.complaints.push('data without the L bit')
      this.ppp.receive(message.slice(headerBytes(message, 0)))
    }
  }

  #control(message: Uint8Array): void {
    const nr = nrOf(message, 0)
    while ((this.#unacknowledged[0]?.ns ?? 0xffff) < nr) this.#unacknowledged.shift()?.resolve()
    const parsed = parseControl(message, 0, message.length)
    if (parsed.type === 'zero-length-body') return
    if (parsed.type !== 'message') {
      this.complaints.push(`a control message: ${parsed.type}`)
      return
    }
    const { message: content } = parsed
    if (content.type === 'hello' && !this.persona.answersHello) {
      this.messages.push('hello')
      return
    }
    if (nsOf(message, 0) === this.#nr) {
      this.#nr++
      this.messages.push(content.type)
      this.#awaited.get(content.type)?.(content)
      this.#awaited.delete(content.type)
    }
    const zeroLengthBody = new Uint8Array(CONTROL_HEADER_BYTES)
    putU16(zeroLengthBody, 0, 0xc802)
    putU16(zeroLengthBody, 2, CONTROL_HEADER_BYTES)
    putU16(zeroLengthBody, 4, this.#peerTunnelId)
    putU16(zeroLengthBody, 8, this.#ns)
    putU16(zeroLengthBody, 10, this.#nr)
    this.sendMessage(zeroLengthBody)
  }

  // Data

  #data(frame: Uint8Array): void {
    const hasLength = this.persona.dataFlags !== 0
    const head = new Uint8Array(hasLength ? 8 : 6)
    putU16(head, 0, this.persona.dataFlags | 2)
    if (hasLength) putU16(head, 2, head.length + frame.length)
    putU16(head, head.length - 4, this.#peerTunnelId)
    putU16(head, head.length - 2, this.#peerSessionId)
    this.sendMessage(concatBytes(head, frame))
  }

  /** Of the tunnel, as the server assigned it. */
  get peerTunnelId(): number {
    return this.#peerTunnelId
  }

  /**
   * An L2TP message in UDP, with a checksum over the addresses that the client knows: a NAT makes it
   * wrong on its way.
   */
  sendMessage(content: Uint8Array): void {
    const packet = new Uint8Array(8 + content.length)
    putU16(packet, 0, this.persona.l2tpPort)
    putU16(packet, 2, 1701)
    putU16(packet, 4, packet.length)
    packet.set(content, 8)
    const pseudo = new Uint8Array(8)
    putU32(pseudo, 0, packet.length)
    pseudo[7] = 17
    const { address, serverAddress } = this.isakmp
    const ends = [addressBytes(address), addressBytes(serverAddress)]
    const sum = 0xffff - referenceSum(...ends, pseudo, packet)
    putU16(packet, 6, sum === 0 ? 0xffff : sum)
    this.isakmp.send(packet)
  }
}

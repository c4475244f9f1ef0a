/** Plays a PPTP persona: a control connection over TCP, one call, GRE with numbers, and PPP in it. */
import { connect, type Socket } from 'node:net'
import { concatBytes, copyBytes } from '../../lib/core/bytes.ts'
import { serialDistance32 } from '../../lib/core/serial.ts'
import {
  type ControlMessage,
  type ControlMessageOf,
  encodeMessage,
  parseMessage,
  wholeMessage,
} from '../../lib/pptp/wire/control-message.ts'
import {
  checkGre,
  greAcknowledgment,
  greCallId,
  greHasAcknowledgment,
  greHeaderBytes,
  grePayloadBytes,
  greSequence,
  putGreAcknowledgment,
  putGreData,
  putGreDataWithAcknowledgment,
} from '../../lib/pptp/wire/gre.ts'
import type { PptpSite, Remote } from '../support/pptp-site.ts'
import type { PptpPersona } from './pptp-personas.ts'
import { StockEncryption } from './stock-mppe.ts'
import { StockPpp, type StockPppOptions } from './stock-ppp.ts'

export interface PptpClientOptions {
  readonly site: PptpSite
  readonly userName: string
  readonly password: string
  /** On loopback. */
  readonly address?: string
  readonly callId?: number
  /** Bytes of the control connection in one write; all when absent. */
  readonly writeBytes?: number
  /** The persona with encryption switched off, and other changes. */
  readonly ppp?: Partial<StockPppOptions>
}

const echoMs = 60_000
const stopReasonNone = 1

export class PptpClient implements Remote {
  readonly persona: PptpPersona
  readonly address: string
  readonly outgoing: Uint8Array[] = []
  readonly ppp: StockPpp
  /** IPv4 packets that arrived. */
  readonly packets: Uint8Array[] = []
  readonly messages: ControlMessage[] = []
  readonly complaints: string[] = []
  isClosed = false
  /** Numbers that came too late, out of order. */
  lateNumbers = 0
  acknowledgedByServer = -1
  readonly #options: PptpClientOptions
  readonly #callId: number
  #socket: Socket | undefined
  #buffer: Uint8Array = new Uint8Array(0)
  #peerCallId = 0
  #nextSequence: number
  #lastReceived = -1
  #isAcknowledgmentDue = false
  #lastControlMs = 0
  #echoIdentifier = 0

  constructor(persona: PptpPersona, options: PptpClientOptions) {
    const { site, userName, password, address = '127.0.0.1', callId = 0x4000 } = options
    this.persona = persona
    this.#options = options
    this.address = address
    this.#callId = callId
    this.#nextSequence = persona.firstSequence
    const { request, wish } = persona.encryption
    this.ppp = new StockPpp({
      lcp: persona.lcp,
      ipcp: persona.ipcp,
      speaksIpv6: persona.networks.includes('ipv6cp'),
      networks: persona.networks,
      waitsForEncryption: persona.waitsForEncryption,
      encryption: new StockEncryption(request, wish),
      compressesHeaders: persona.compressesHeaders,
      identifications: persona.identifications,
      userName: persona.userName(userName),
      password,
      frame: bytes => this.#data(bytes),
      packet: bytes => {
        if ((bytes[0] ?? 0) >>> 4 === 4) this.packets.push(bytes)
      },
      complain: what => this.complaints.push(what),
      nowMs: () => site.nowMs,
      linkUp: () => this.#linkUp(),
      ...options.ppp,
    })
    site.remotes.add(this)
  }

  /** TCP, both requests and their replies; PPP begins. */
  async connect(): Promise<void> {
    const { site } = this.#options
    const socket = connect({ host: '127.0.0.1', port: site.port, localAddress: this.address })
    this.#socket = socket
    socket.setNoDelay(true)
    socket.on('data', chunk => this.#receiveControl(chunk))
    socket.on('error', () => {})
    socket.on('close', () => {
      this.isClosed = true
    })
    socket.on('end', () => socket.end())
    this.#lastControlMs = site.nowMs
    socket.once('connect', () => {
      this.#send({
        type: 'start-control-connection-request',
        protocolVersion: 0x0100,
        ...this.persona.start,
      })
    })
    await site.until(
      () => this.#peerCallId !== 0 || this.isClosed,
      () => 'no call',
    )
    if (this.isClosed) throw new Error('the server closed the control connection')
    this.ppp.start()
  }

  /** Connects, and waits for PPP. Rejects with what PPP says when it does not come up. */
  async up(patienceMs = 60_000): Promise<this> {
    const { site } = this.#options
    await this.connect()
    const isOver = () => this.ppp.isUp || this.isClosed || this.ppp.failure !== undefined
    await site.within(patienceMs, isOver, () => 'no PPP')
    if (!this.ppp.isUp) throw new Error(this.ppp.failure ?? 'the call ended')
    return this
  }

  send(packet: Uint8Array): void {
    this.ppp.send(packet)
  }

  /** In the persona's own way; then TCP is closed. */
  async leave(): Promise<void> {
    const { site } = this.#options
    for (const step of this.persona.leaves) {
      if (step === 'terminate') {
        this.ppp.terminate()
        await site.until(
          () => this.ppp.isTerminated,
          () => 'no Terminate-Ack',
        )
      } else if (step === 'clear') {
        this.#send({ type: 'call-clear-request', callId: this.#callId })
        await site.until(
          () => this.has('call-disconnect-notify'),
          () => 'no Call-Disconnect-Notify',
        )
      } else {
        this.#send({ type: 'stop-control-connection-request', reason: stopReasonNone })
        await site.until(
          () => this.has('stop-control-connection-reply'),
          () => 'no Stop-Reply',
        )
      }
    }
    this.vanish()
  }

  /** Without a word. */
  vanish(): void {
    this.#socket?.destroy()
    this.#options.site.remotes.delete(this)
  }

  /** From now on nothing that arrives is read or answered. */
  goDeaf(): void {
    this.#socket?.pause()
    this.#options.site.remotes.delete(this)
  }

  /** Its next packet has the number of this one. */
  skipTo(packet: Uint8Array): void {
    this.#nextSequence = greSequence(packet, 0)
  }

  has(type: ControlMessage['type']): boolean {
    return this.messages.some(message => message.type === type)
  }

  onTime(nowMs: number): void {
    this.ppp.onTime(nowMs)
    if (this.persona.asksForEcho && nowMs - this.#lastControlMs >= echoMs) {
      this.#send({ type: 'echo-request', identifier: ++this.#echoIdentifier })
    }
    if (this.#isAcknowledgmentDue && this.persona.acknowledges === 'alone') this.#acknowledge()
  }

  // Control

  #send(message: ControlMessage): void {
    const bytes = encodeMessage(message)
    const step = this.#options.writeBytes ?? bytes.length
    this.#lastControlMs = this.#options.site.nowMs
    for (let at = 0; at < bytes.length; at += step) {
      this.#socket?.write(copyBytes(bytes, at, Math.min(bytes.length, at + step)))
    }
  }

  #receiveControl(chunk: Uint8Array): void {
    let bytes = concatBytes(this.#buffer, chunk)
    for (;;) {
      const length = wholeMessage(bytes, 0, bytes.length)
      if (length < 0) this.complaints.push('a control message that is none')
      if (length <= 0) break
      this.#control(parseMessage(bytes, 0))
      bytes = copyBytes(bytes, length)
    }
    this.#buffer = bytes
  }

  #control(message: ControlMessage): void {
    this.messages.push(message)
    this.#lastControlMs = this.#options.site.nowMs
    switch (message.type) {
      case 'start-control-connection-reply':
        if (message.resultCode !== 1 || message.errorCode !== 0) this.complaints.push('refused')
        this.#placeCall()
        return
      case 'outgoing-call-reply':
        this.#answered(message)
        return
      case 'echo-request':
        this.#send({
          type: 'echo-reply',
          identifier: message.identifier,
          ...{ resultCode: 1, errorCode: 0 },
        })
        return
      case 'stop-control-connection-request':
        this.#send({ type: 'stop-control-connection-reply', resultCode: 1, errorCode: 0 })
        return
      default:
    }
  }

  #placeCall(): void {
    this.#send({
      type: 'outgoing-call-request',
      callId: this.#callId,
      callSerialNumber: 1,
      ...this.persona.call,
      ...{ phoneNumberLength: 0, phoneNumber: '', subaddress: '' },
    })
  }

  /** Stock clients take a speed that lies between what they asked for, and none that is 0. */
  #answered(message: ControlMessageOf<'outgoing-call-reply'>): void {
    const { resultCode, errorCode, connectBps, peerCallId, callId } = message
    const { minimumBps, maximumBps } = this.persona.call
    if (resultCode !== 1 || errorCode !== 0) this.complaints.push('the call is refused')
    if (connectBps === 0 || connectBps < minimumBps || connectBps > maximumBps) {
      this.complaints.push(`${connectBps} bit/s`)
    }
    if (peerCallId !== this.#callId) this.complaints.push('the reply is for another call')
    this.#peerCallId = callId
  }

  #linkUp(): void {
    if (!this.persona.setsLinkInfo) return
    this.#send({
      type: 'set-link-info',
      peerCallId: this.#peerCallId,
      ...{ sendAccm: 0xffffffff, receiveAccm: 0xffffffff },
    })
  }

  // GRE

  receive(packet: Uint8Array): void {
    if (checkGre(packet, 0, packet.length)) {
      this.complaints.push('malformed GRE')
      return
    }
    // Before the reply has been read nobody knows of a call.
    if (greCallId(packet, 0) !== this.#callId || this.#peerCallId === 0) return
    if (greHasAcknowledgment(packet, 0)) this.acknowledgedByServer = greAcknowledgment(packet, 0)
    const payloadBytes = grePayloadBytes(packet, 0)
    if (payloadBytes === 0) return
    const sequence = greSequence(packet, 0)
    if (this.#lastReceived < 0 || serialDistance32(this.#lastReceived, sequence) > 0) {
      this.#lastReceived = sequence
    } else this.lateNumbers++
    this.#isAcknowledgmentDue = true
    const at = greHeaderBytes(packet, 0)
    this.ppp.receive(copyBytes(packet, at, at + payloadBytes))
  }

  #data(frame: Uint8Array): void {
    const header = new Uint8Array(16)
    const sequence = this.#nextSequence++
    let length = 0
    if (this.#isAcknowledgmentDue) {
      length = putGreDataWithAcknowledgment(
        header,
        0,
        frame.length,
        this.#peerCallId,
        sequence,
        this.#lastReceived,
      )
    } else length = putGreData(header, 0, frame.length, this.#peerCallId, sequence)
    this.#isAcknowledgmentDue = false
    this.outgoing.push(concatBytes(copyBytes(header, 0, length), frame))
  }

  #acknowledge(): void {
    const packet = new Uint8Array(12)
    putGreAcknowledgment(packet, 0, this.#peerCallId, this.#lastReceived)
    this.#isAcknowledgmentDue = false
    this.outgoing.push(packet)
  }
}

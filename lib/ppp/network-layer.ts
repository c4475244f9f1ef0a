/**
 * The network control protocols of one peer. Another one (CCP, say) is another row here: a protocol
 * number, its options, and what to report when it opens.
 */
import type { RandomSource } from '../core/random.ts'
import type { NetworkEvent } from './event.ts'
import { IpcpClientOptions, IpcpServerOptions } from './ipcp.ts'
import { Ipv6cpOptions } from './ipv6cp.ts'
import { Negotiation, type NegotiationFailure, type OptionSemantics } from './negotiation.ts'
import type { ClientNetwork, ServerNetwork } from './settings.ts'
import { PppProtocol, protocolName } from './wire/frame.ts'

export type NetworkProtocol = 'ipcp' | 'ipv6cp'

export interface NetworkPorts {
  send(protocol: number, packet: Uint8Array): void
  setTimer(name: NetworkProtocol, deadlineMs: number): void
  clearTimer(name: NetworkProtocol): void
  event(event: NetworkEvent): void
  unexpected(counter: string): void
  mtuBytes(): number
  peerMruBytes(): number
  permitsReject(nowMs: number): boolean
  /** A protocol has opened. */
  opened(nowMs: number): void
  /** A protocol left Opened while the link stayed up. */
  flapped(nowMs: number): void
  /** None is open and none will be. */
  finished(detail: string, nowMs: number): void
}

export class NetworkLayer {
  readonly #random: RandomSource
  readonly #ports: NetworkPorts
  readonly #layers = new Map<number, Negotiation>()
  #isConfigured = false
  #isRunning = false
  #ipcpServer: IpcpServerOptions | undefined
  #detail = ''

  constructor(random: RandomSource, ports: NetworkPorts) {
    this.#random = random
    this.#ports = ports
  }

  get isConfigured(): boolean {
    return this.#isConfigured
  }

  /** The link may carry IP: the layers are negotiating or up. */
  get isRunning(): boolean {
    return this.#isRunning
  }

  configureServer({ ipv4, ipv6 }: ServerNetwork): void {
    if (ipv4 !== null) {
      if (this.#ipcpServer !== undefined) this.#ipcpServer.network = ipv4
      else {
        this.#ipcpServer = new IpcpServerOptions(ipv4)
        this.#addIpcp(this.#ipcpServer)
      }
    }
    if (ipv6 !== null) this.#addIpv6cp()
    this.#isConfigured = true
  }

  configureClient({ ipv4, ipv6 }: ClientNetwork): void {
    if (ipv4 !== null) this.#addIpcp(new IpcpClientOptions(ipv4))
    if (ipv6 !== null) this.#addIpv6cp()
    this.#isConfigured = true
  }

  /** The peer is authenticated: every layer begins. */
  start(nowMs: number): void {
    this.#isRunning = true
    if (this.#layers.size === 0) {
      this.#ports.finished('no network protocol is on', nowMs)
      return
    }
    for (const negotiation of this.#layers.values()) {
      negotiation.open(nowMs)
      negotiation.up(nowMs)
    }
  }

  /** The link below is gone. */
  stop(nowMs: number): void {
    this.#isRunning = false
    for (const negotiation of this.#layers.values()) negotiation.down(nowMs)
  }

  has(protocol: number): boolean {
    return this.#layers.has(protocol)
  }

  /** For `protocol`, which `has` confirmed. */
  receive(protocol: number, bytes: Uint8Array, at: number, length: number, nowMs: number): void {
    this.#layers.get(protocol)?.receive(bytes, at, length, nowMs)
  }

  timer(name: NetworkProtocol, nowMs: number): void {
    this.#layers.get(PppProtocol[name])?.restartTimer(nowMs)
  }

  /** Whether the peer's refusal of this protocol concerns a layer of ours. */
  protocolRejected(protocol: number, nowMs: number): boolean {
    const negotiation = this.#layers.get(protocol)
    if (negotiation === undefined || !this.#isRunning) return false
    this.#detail = `the peer does not speak ${protocolName(protocol)}`
    negotiation.protocolRejected(nowMs)
    return true
  }

  #addIpcp(options: IpcpServerOptions | IpcpClientOptions): void {
    const upEvent = (): NetworkEvent | undefined => {
      const { agreement } = options
      if (agreement.localAddress === 0) return undefined
      return { type: 'ipv4-up', ...agreement, mtuBytes: this.#ports.mtuBytes() }
    }
    this.#add('ipcp', options, upEvent, { type: 'ipv4-down' })
  }

  #addIpv6cp(): void {
    if (this.#layers.has(PppProtocol.ipv6cp)) return
    const options = new Ipv6cpOptions(this.#random)
    const upEvent = (): NetworkEvent => ({
      type: 'ipv6-up',
      ...options.agreement,
      mtuBytes: this.#ports.mtuBytes(),
    })
    this.#add('ipv6cp', options, upEvent, { type: 'ipv6-down' })
  }

  /** `upEvent` gives undefined when what was agreed is of no use. */
  #add(
    name: NetworkProtocol,
    options: OptionSemantics,
    upEvent: () => NetworkEvent | undefined,
    downEvent: NetworkEvent,
  ): void {
    const protocol = PppProtocol[name]
    const ports = this.#ports
    let isUp = false
    const negotiation: Negotiation = new Negotiation(options, {
      send: packet => ports.send(protocol, packet),
      setTimer: deadlineMs => ports.setTimer(name, deadlineMs),
      clearTimer: () => ports.clearTimer(name),
      layerUp: nowMs => {
        const event = upEvent()
        if (event === undefined) {
          this.#fail(name, 'the peer gave no address', nowMs)
          return
        }
        isUp = true
        ports.event(event)
        ports.opened(nowMs)
      },
      layerDown: nowMs => {
        if (!isUp) return
        isUp = false
        ports.event(downEvent)
        if (this.#isRunning) ports.flapped(nowMs)
      },
      layerFinished: nowMs => this.#finishedOne(name, nowMs),
      failed: (failure, nowMs) => this.#fail(name, failureDetails[failure], nowMs),
      peerTerminated: () => {
        this.#detail = `the peer closed ${name}`
      },
      extension: () => 'unknown',
      replyEcho: () => undefined,
      codeRejected: () => undefined,
      peerMruBytes: () => ports.peerMruBytes(),
      permitsReject: nowMs => ports.permitsReject(nowMs),
      unexpected: counter => ports.unexpected(`${name}-${counter}`),
    })
    this.#layers.set(protocol, negotiation)
  }

  #fail(name: NetworkProtocol, detail: string, nowMs: number): void {
    this.#detail = `${name}: ${detail}`
    this.#layers.get(PppProtocol[name])?.close(nowMs)
  }

  #finishedOne(name: NetworkProtocol, nowMs: number): void {
    if (!this.#isRunning) return
    const isOver = [...this.#layers.values()].every(
      ({ state }) => state === 'closed' || state === 'stopped',
    )
    const detail = this.#detail === '' ? `the peer does not answer ${name}` : this.#detail
    if (isOver) this.#ports.finished(detail, nowMs)
  }
}

/** For people. */
export const failureDetails: Readonly<Record<NegotiationFailure, string>> = {
  'no-convergence': 'negotiation did not converge',
  'essential-option-rejected': 'the peer rejected an option that the link needs',
  'authentication-refused': 'the peer refused every way of authentication that is allowed',
  'code-rejected': 'the peer does not know a code of RFC 1661',
}

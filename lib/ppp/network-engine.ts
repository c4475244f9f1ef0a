/**
 * What runs above the links of one peer: CCP, then the network control protocols (RFC 1661 §3.7). One
 * link carries it or a bundle of them (RFC 1990 §2); it knows no link, only whether there is one.
 */

import { copyBytes } from '../core/bytes.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { type Machine, Outbox, type Output, type Timeout } from '../core/machine.ts'
import type { RandomSource } from '../core/random.ts'
import { TimerTable } from '../core/timers.ts'
import { CompressionLayer } from './compression-layer.ts'
import { EarlyRequests } from './early-requests.ts'
import type { NetworkEvent, NetworkInput } from './event.ts'
import { NetworkLayer } from './network-layer.ts'
import { RejectAllowance } from './reject-allowance.ts'
import { RenegotiationLimit, tooManyRenegotiations } from './renegotiation-limit.ts'
import { defaultTiming, type NetworkSettings } from './settings.ts'
import { controlHeaderBytes } from './wire/control-packet.ts'
import { encodeFrame, PppProtocol } from './wire/frame.ts'

type TimerName = 'ccp' | 'compression' | 'ipcp' | 'ipv6cp' | 'setup'

export class NetworkEngine implements Machine<NetworkInput, NetworkEvent> {
  readonly #isClient: boolean
  readonly #setupMs: number
  readonly #outbox = new Outbox<NetworkEvent>()
  readonly #timers = new TimerTable<TimerName>()
  readonly #network: NetworkLayer
  /** Absent: CCP is a protocol that we do not speak. */
  readonly #compression: CompressionLayer | undefined
  readonly #early = new EarlyRequests()
  readonly #rejects = new RejectAllowance()
  readonly #renegotiations = new RenegotiationLimit()
  #isUp = false
  #hasAskedForAddress = false
  // Of the link that came first.
  #mruBytes = 0
  #peerMruBytes = 0

  constructor({ network, compression, timing }: NetworkSettings, random: RandomSource) {
    this.#isClient = network !== undefined
    this.#setupMs = timing?.setupMs ?? defaultTiming.setupMs
    this.#network = this.#makeNetwork(random)
    if (compression !== undefined) this.#compression = this.#makeCompression(compression)
    if (network !== undefined) this.#network.configureClient(network)
  }

  /** A link carries, and nothing has failed. */
  get isUp(): boolean {
    return this.#isUp
  }

  handle(input: NetworkInput | Timeout, nowMs: number): void {
    switch (input.type) {
      case 'timeout':
        this.#runTimers(nowMs)
        return
      case 'up':
        this.#up(input, nowMs)
        return
      case 'down':
        this.#down(nowMs)
        return
      case 'packet':
        this.#receive(input.protocol, input.bytes, nowMs)
        return
      case 'network':
        this.#configure(input, nowMs)
        return
      case 'protocol-rejected':
        this.#protocolRejected(input.protocol, nowMs)
        return
      case 'request-reset':
        this.#compression?.requestReset(nowMs)
        return
      case 'renegotiate-compression':
        this.#compression?.renegotiate(nowMs)
        return
    }
  }

  poll(): Output<NetworkEvent> | undefined {
    return this.#outbox.poll()
  }

  nextDeadlineMs(): number {
    return this.#timers.nextDeadlineMs()
  }

  // ---- inputs

  #up(
    { hasKeys, mruBytes, peerMruBytes }: Extract<NetworkInput, { type: 'up' }>,
    nowMs: number,
  ): void {
    if (this.#isUp) {
      this.#unexpected('networks-up-twice')
      return
    }
    this.#isUp = true
    this.#mruBytes = mruBytes
    this.#peerMruBytes = peerMruBytes
    this.#timers.set('setup', nowMs + this.#setupMs)
    if (this.#compression === undefined) this.#begin(nowMs)
    else this.#compression.start(hasKeys, nowMs)
  }

  #down(nowMs: number): void {
    this.#isUp = false
    this.#hasAskedForAddress = false
    this.#early.clear()
    this.#timers.clear('setup')
    this.#network.stop(nowMs)
    this.#compression?.stop(nowMs)
  }

  #receive(protocol: number, bytes: Uint8Array, nowMs: number): void {
    if (!this.#isUp) {
      this.#unexpected('packet-without-link')
    } else if (protocol === PppProtocol.ccp && this.#compression?.isRunning === true) {
      this.#compression.receive(bytes, 0, bytes.length, nowMs)
    } else if (!this.#network.isRunning) {
      this.#receiveEarly(protocol, bytes)
    } else if (this.#network.has(protocol)) {
      this.#network.receive(protocol, bytes, 0, bytes.length, nowMs)
    } else if (this.#isOfLayer(protocol)) {
      // RFC 1661 §3.5: a known protocol whose NCP is not open is dropped in silence.
      this.#unexpected('ip-before-network')
    } else this.#outbox.event({ type: 'reject', protocol, packet: copyBytes(bytes) })
  }

  #isOfLayer(protocol: number): boolean {
    if (protocol === PppProtocol.ipv4) return this.#network.has(PppProtocol.ipcp)
    return protocol === PppProtocol.ipv6 && this.#network.has(PppProtocol.ipv6cp)
  }

  /** Before the networks run: the last request of each NCP is kept, all else dropped (RFC 1661 §3.5). */
  #receiveEarly(protocol: number, bytes: Uint8Array): void {
    const isKept = this.#early.keep(protocol, bytes, 0, bytes.length)
    this.#unexpected(isKept ? 'early-request-kept' : 'early-frame-dropped')
    if (isKept) this.#askForAddress()
  }

  #configure({ network }: Extract<NetworkInput, { type: 'network' }>, nowMs: number): void {
    if (this.#isClient) {
      this.#unexpected('network-given-to-client')
      return
    }
    this.#network.configureServer(network)
    if (this.#isUp && !this.#network.isRunning) this.#start(nowMs)
  }

  #protocolRejected(protocol: number, nowMs: number): void {
    if (protocol === PppProtocol.ccp && this.#compression?.isRunning === true) {
      this.#compression.protocolRejected(nowMs)
    } else if (!this.#network.protocolRejected(protocol, nowMs)) {
      this.#unexpected('protocol-reject-of-other')
    }
  }

  #runTimers(nowMs: number): void {
    for (;;) {
      const name = this.#timers.takeExpired(nowMs)
      if (name === undefined) return
      if (name === 'setup') this.#fail('setup-timeout', 'no network was up in time', nowMs)
      else if (name === 'ipcp' || name === 'ipv6cp') this.#network.timer(name, nowMs)
      else this.#compression?.timer(name, nowMs)
    }
  }

  // ---- phases

  /** Compression is settled: the networks are due. */
  #begin(nowMs: number): void {
    if (this.#network.isConfigured) this.#start(nowMs)
    else this.#askForAddress()
  }

  #askForAddress(): void {
    const address = this.#early.requestedIpv4()
    if (address === undefined || this.#hasAskedForAddress) return
    this.#hasAskedForAddress = true
    this.#outbox.event({ type: 'ipv4-requested', address })
  }

  #start(nowMs: number): void {
    if (this.#compression?.isSettled === false) return
    const early = this.#early.take()
    this.#network.start(nowMs)
    for (const [protocol, packet] of early) this.#receive(protocol, packet, nowMs)
  }

  /** The peer took a protocol down to negotiate it again. */
  #flapped(nowMs: number): void {
    if (this.#renegotiations.exceeds(nowMs)) {
      this.#fail('protocol-error', tooManyRenegotiations, nowMs)
    }
  }

  #fail(cause: DisconnectCause, detail: string, nowMs: number): void {
    if (!this.#isUp) return
    this.#outbox.event({ type: 'failed', cause, detail })
    this.#down(nowMs)
  }

  #unexpected(counter: string): void {
    this.#outbox.event({ type: 'unexpected', counter })
  }

  // ---- parts

  #send(protocol: number, packet: Uint8Array): void {
    this.#outbox.transmit(encodeFrame(protocol, packet))
  }

  get #leastPeerMruBytes(): number {
    return Math.max(controlHeaderBytes, this.#peerMruBytes)
  }

  #permitsReject(nowMs: number): boolean {
    const isPermitted = this.#rejects.take(nowMs)
    if (!isPermitted) this.#unexpected('reject-suppressed')
    return isPermitted
  }

  #makeNetwork(random: RandomSource): NetworkLayer {
    return new NetworkLayer(random, {
      send: (protocol, packet) => this.#send(protocol, packet),
      setTimer: (name, deadlineMs) => this.#timers.set(name, deadlineMs),
      clearTimer: name => this.#timers.clear(name),
      event: event => this.#outbox.event(event),
      unexpected: counter => this.#unexpected(counter),
      mtuBytes: () => this.#mruBytes - (this.#compression?.overheadBytes ?? 0),
      peerMruBytes: () => this.#leastPeerMruBytes,
      permitsReject: nowMs => this.#permitsReject(nowMs),
      opened: () => this.#timers.clear('setup'),
      flapped: nowMs => this.#flapped(nowMs),
      finished: (detail, nowMs) => this.#fail('protocol-error', detail, nowMs),
    })
  }

  #makeCompression(settings: NonNullable<NetworkSettings['compression']>): CompressionLayer {
    return new CompressionLayer(settings, {
      send: packet => this.#send(PppProtocol.ccp, packet),
      setTimer: (name, deadlineMs) => this.#timers.set(name, deadlineMs),
      clearTimer: name => this.#timers.clear(name),
      event: event => this.#outbox.event(event),
      unexpected: counter => this.#unexpected(counter),
      peerMruBytes: () => this.#leastPeerMruBytes,
      permitsReject: nowMs => this.#permitsReject(nowMs),
      settled: nowMs => this.#begin(nowMs),
      flapped: nowMs => this.#flapped(nowMs),
      failed: (detail, nowMs) => this.#fail('protocol-error', detail, nowMs),
    })
  }
}

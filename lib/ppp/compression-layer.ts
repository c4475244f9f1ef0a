/**
 * CCP with one peer (RFC 1962): whether and how data is encrypted and compressed. It comes before the
 * network protocols, which wait until it is settled: open, or known not to come where it need not.
 *
 * Once encryption was agreed on, a link without it is over: no packet leaves in clear because CCP was
 * taken down (RFC 3078 §3 leaves that open).
 */
import { CcpOptions } from './ccp.ts'
import type { NetworkEvent } from './event.ts'
import { Negotiation } from './negotiation.ts'
import { failureDetails } from './network-layer.ts'
import type { CompressionSettings } from './settings.ts'
import { CcpCode } from './wire/ccp-options.ts'
import type { ControlPacket } from './wire/control-packet.ts'

// Implementation constants.

/** How long a peer may take before the networks begin without CCP, where they may. */
const optionalWaitMs = 6_000
/** RFC 1962 §3: a Reset-Request is repeated, but not for each packet of a broken stream. */
const resetIntervalMs = 200
/** New keys are made no more often: whoever forges packets interrupts a call, and does not end it. */
const renegotiationIntervalMs = 6_000
/** What MPPE and MPPC put in front: two bytes of their own, and the protocol field that is inside. */
const overheadBytes = 4

export interface CompressionPorts {
  send(packet: Uint8Array): void
  setTimer(name: 'ccp' | 'compression', deadlineMs: number): void
  clearTimer(name: 'ccp' | 'compression'): void
  event(event: NetworkEvent): void
  unexpected(counter: string): void
  peerMruBytes(): number
  permitsReject(nowMs: number): boolean
  /** The networks may begin. */
  settled(nowMs: number): void
  /** The peer took CCP down to negotiate it again. */
  flapped(nowMs: number): void
  /** The link is of no use without what was not agreed on. */
  failed(detail: string, nowMs: number): void
}

export class CompressionLayer {
  readonly #settings: CompressionSettings
  readonly #ports: CompressionPorts
  readonly #options: CcpOptions
  readonly #negotiation: Negotiation
  #isRunning = false
  #isSettled = false
  #isUp = false
  /** Data was encrypted once: this call will not go on in clear, whatever is renegotiated. */
  #wasEncrypted = false
  #detail = ''
  #lastResetMs = Number.NEGATIVE_INFINITY
  #lastRenegotiationMs = Number.NEGATIVE_INFINITY

  constructor(settings: CompressionSettings, ports: CompressionPorts) {
    this.#settings = settings
    this.#ports = ports
    this.#options = new CcpOptions(settings)
    this.#negotiation = this.#makeNegotiation()
  }

  get isRunning(): boolean {
    return this.#isRunning
  }

  get isSettled(): boolean {
    return this.#isSettled
  }

  /** Bytes by which packets on this link are shorter than its MRU. */
  get overheadBytes(): number {
    return this.#isUp ? overheadBytes : 0
  }

  /** The peer is authenticated, by a method that made keys or not. */
  start(hasKeys: boolean, nowMs: number): void {
    const { encryption, hasMppc } = this.#settings
    if (!hasKeys && this.#isDemanded) {
      this.#ports.failed('the way of authentication makes no keys for encryption', nowMs)
      return
    }
    if ((!hasKeys && encryption !== 'none') || (encryption === 'none' && !hasMppc)) {
      this.#settle(nowMs)
      return
    }
    this.#isRunning = true
    this.#negotiation.open(nowMs)
    this.#negotiation.up(nowMs)
    if (!this.#isDemanded) this.#ports.setTimer('compression', nowMs + optionalWaitMs)
  }

  /** The link below is gone. */
  stop(nowMs: number): void {
    this.#isRunning = false
    this.#isSettled = false
    this.#ports.clearTimer('compression')
    this.#negotiation.down(nowMs)
  }

  receive(bytes: Uint8Array, at: number, length: number, nowMs: number): void {
    this.#negotiation.receive(bytes, at, length, nowMs)
  }

  timer(name: 'ccp' | 'compression', nowMs: number): void {
    if (name === 'ccp') this.#negotiation.restartTimer(nowMs)
    else if (!this.#isSettled) {
      this.#ports.unexpected('ccp-not-answered')
      this.#negotiation.close(nowMs)
      this.#settle(nowMs)
    }
  }

  /** The peer does not know CCP. */
  protocolRejected(nowMs: number): void {
    this.#detail = 'the peer does not speak ccp'
    this.#negotiation.protocolRejected(nowMs)
  }

  /** What the peer sends cannot be read any more: it shall begin anew. */
  requestReset(nowMs: number): void {
    if (!this.#isUp || nowMs - this.#lastResetMs < resetIntervalMs) return
    this.#lastResetMs = nowMs
    this.#negotiation.sendExtension(CcpCode.resetRequest, new Uint8Array(0))
  }

  /** Begins negotiation anew, and with it the keys. */
  renegotiate(nowMs: number): void {
    if (!this.#isUp) return
    if (nowMs - this.#lastRenegotiationMs < renegotiationIntervalMs) {
      this.#ports.unexpected('ccp-renegotiation-too-soon')
      return
    }
    this.#lastRenegotiationMs = nowMs
    this.#negotiation.down(nowMs)
    this.#negotiation.up(nowMs)
  }

  get #isDemanded(): boolean {
    return this.#settings.encryption === 'required' || this.#wasEncrypted
  }

  #settle(nowMs: number): void {
    if (this.#isSettled) return
    this.#isSettled = true
    this.#ports.clearTimer('compression')
    this.#ports.settled(nowMs)
  }

  #layerUp(nowMs: number): void {
    const { agreement } = this.#options
    if (!this.#options.isAcceptable || (this.#wasEncrypted && agreement.send.keyBits === 0)) {
      this.#detail = 'only one direction would be encrypted'
      this.#negotiation.close(nowMs)
      return
    }
    this.#isUp = true
    this.#wasEncrypted ||= agreement.send.keyBits !== 0
    this.#ports.event({ type: 'compression-up', agreement })
    this.#settle(nowMs)
  }

  #layerDown(nowMs: number): void {
    if (!this.#isUp) return
    this.#isUp = false
    this.#ports.event({ type: 'compression-down', isEncryptionDue: this.#wasEncrypted })
    if (this.#isRunning) this.#ports.flapped(nowMs)
  }

  /** CCP is over: fatal, or the link goes on without. */
  #finished(nowMs: number): void {
    if (!this.#isRunning) return
    const detail = this.#detail === '' ? 'the peer does not answer ccp' : this.#detail
    if (this.#isDemanded) {
      this.#ports.failed(`no encryption: ${detail}`, nowMs)
    } else this.#settle(nowMs)
  }

  #extension({ code }: ControlPacket): 'taken' | 'unknown' {
    if (code === CcpCode.resetRequest) {
      if (this.#isUp) this.#ports.event({ type: 'reset-requested' })
      else this.#ports.unexpected('ccp-reset-not-opened')
      return 'taken'
    }
    // RFC 3078 §8.2: MPPE and MPPC say it in the packets themselves.
    if (code === CcpCode.resetAck) {
      this.#ports.unexpected('ccp-reset-ack')
      return 'taken'
    }
    return 'unknown'
  }

  #makeNegotiation(): Negotiation {
    const ports = this.#ports
    return new Negotiation(this.#options, {
      send: packet => ports.send(packet),
      setTimer: deadlineMs => ports.setTimer('ccp', deadlineMs),
      clearTimer: () => ports.clearTimer('ccp'),
      layerUp: nowMs => this.#layerUp(nowMs),
      layerDown: nowMs => this.#layerDown(nowMs),
      layerFinished: nowMs => this.#finished(nowMs),
      failed: (failure, nowMs) => {
        this.#detail = failureDetails[failure]
        this.#negotiation.close(nowMs)
        // Closing asks the peer first; a link that must not go on need not wait for it.
        if (this.#isDemanded) this.#finished(nowMs)
      },
      peerTerminated: () => {
        this.#detail = 'the peer closed ccp'
      },
      extension: packet => this.#extension(packet),
      replyEcho: () => undefined,
      codeRejected: () => undefined,
      peerMruBytes: () => ports.peerMruBytes(),
      permitsReject: nowMs => ports.permitsReject(nowMs),
      unexpected: counter => ports.unexpected(`ccp-${counter}`),
    })
  }
}

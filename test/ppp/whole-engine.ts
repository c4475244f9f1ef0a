/** A link and the networks above it as one machine: what the server makes of them, without a tunnel. */
import type { Machine, Output, Timeout } from '../../lib/core/machine.ts'
import { timeout } from '../../lib/core/machine.ts'
import type { RandomSource } from '../../lib/core/random.ts'
import type { LinkEvent, LinkInput, NetworkEvent, NetworkInput } from '../../lib/ppp/event.ts'
import { LinkEngine } from '../../lib/ppp/link-engine.ts'
import { NetworkEngine } from '../../lib/ppp/network-engine.ts'
import type {
  NetworkSettings,
  PppClientSettings,
  PppServerSettings,
} from '../../lib/ppp/settings.ts'

export type WholeServerSettings = PppServerSettings & Omit<NetworkSettings, 'network' | 'timing'>
export type WholeClientSettings = PppClientSettings & Omit<NetworkSettings, 'timing'>

type OfLink =
  | 'open'
  | 'frame'
  | 'alive'
  | 'verdict'
  | 'wake'
  | 'renegotiate'
  | 'close'
  | 'carrier-lost'
type OfNetworks = 'network' | 'request-reset' | 'renegotiate-compression'
export type WholeInput =
  | Extract<LinkInput, { type: OfLink }>
  | Extract<NetworkInput, { type: OfNetworks }>
  /** Where LCP has agreed on multilink; the networks of who follows are elsewhere. */
  | { readonly type: 'bundled'; readonly isFollower: boolean }

export type WholeEvent =
  | Exclude<LinkEvent, { type: 'packet' | 'protocol-rejected' }>
  | Exclude<NetworkEvent, { type: 'reject' | 'failed' }>

export class WholeEngine implements Machine<WholeInput, WholeEvent> {
  readonly #mruBytes: number
  readonly #link: LinkEngine
  readonly #networks: NetworkEngine
  #peerMruBytes = 0
  #isMultilink = false
  #hasKeys = false
  #nowMs = 0

  constructor(settings: WholeServerSettings | WholeClientSettings, random: RandomSource) {
    this.#mruBytes = settings.mruBytes
    this.#link = new LinkEngine(settings, random)
    this.#networks = new NetworkEngine(settings, random)
  }

  get phase() {
    return this.#link.phase
  }

  nextDeadlineMs(): number {
    return Math.min(this.#link.nextDeadlineMs(), this.#networks.nextDeadlineMs())
  }

  handle(input: WholeInput | Timeout, nowMs: number): void {
    this.#nowMs = nowMs
    switch (input.type) {
      case 'timeout':
        this.#link.handle(timeout, nowMs)
        this.#networks.handle(timeout, nowMs)
        return
      case 'network':
      case 'request-reset':
      case 'renegotiate-compression':
        this.#networks.handle(input, nowMs)
        return
      case 'bundled':
        this.#place(!input.isFollower)
        return
      default:
        this.#link.handle(input, nowMs)
    }
  }

  poll(): Output<WholeEvent> | undefined {
    for (;;) {
      const ofLink = this.#link.poll()
      if (ofLink !== undefined) {
        if (ofLink.type === 'transmit') return ofLink
        const { event } = ofLink
        this.#onLink(event)
        if (event.type !== 'packet' && event.type !== 'protocol-rejected') {
          return { type: 'event', event }
        }
        continue
      }
      const ofNetworks = this.#networks.poll()
      if (ofNetworks?.type !== 'event') return ofNetworks
      const { event } = ofNetworks
      if (event.type === 'reject') this.#link.handle(event, this.#nowMs)
      else if (event.type === 'failed') {
        const { cause, detail } = event
        this.#link.handle({ type: 'close', cause, detail }, this.#nowMs)
      } else return { type: 'event', event }
    }
  }

  #onLink(event: LinkEvent): void {
    if (event.type === 'link-up') {
      this.#peerMruBytes = event.peerMruBytes
      this.#isMultilink = event.multilink !== undefined
    } else if (event.type === 'authenticated') {
      this.#hasKeys = event.keys !== undefined
      if (!this.#isMultilink) this.#place(true)
    } else if (event.type === 'link-down') this.#networks.handle({ type: 'down' }, this.#nowMs)
    else if (event.type === 'packet' || event.type === 'protocol-rejected') {
      this.#networks.handle(event, this.#nowMs)
    }
  }

  #place(isFirst: boolean): void {
    if (isFirst) {
      const mruBytes = Math.min(this.#mruBytes, this.#peerMruBytes)
      const peerMruBytes = this.#peerMruBytes
      const up = { type: 'up', hasKeys: this.#hasKeys, mruBytes, peerMruBytes } as const
      this.#networks.handle(up, this.#nowMs)
    }
    this.#link.handle({ type: 'placed' }, this.#nowMs)
  }
}

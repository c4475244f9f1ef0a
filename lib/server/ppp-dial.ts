/** One PPP call that we dial: the client's side of what `PppCall` answers. */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { ConnectError } from '../core/errors.ts'
import type { Secret } from '../core/secret.ts'
import type { Port } from '../dataplane/dataplane.ts'
import type { Carrier, Link, LinkFactory } from '../ppp/carrier.ts'
import type { Ipv4Up, Ipv6Up, LinkEvent } from '../ppp/event.ts'
import type { AuthenticationProtocol, CompressionSettings } from '../ppp/settings.ts'
import { PppLink, type PppLinkOwner } from './ppp-link.ts'
import { type NetworkServices, PppNetwork, type PppNetworkOwner } from './ppp-network.ts'

export interface DialSettings {
  readonly userName: string
  readonly password: Secret
  /** How we are willing to prove ourselves, strongest first. */
  readonly authentication: readonly AuthenticationProtocol[]
  /** Largest packet that we want to receive, bytes. */
  readonly mruBytes: number
  readonly wantsIpv6: boolean
  /** What to agree on where the tunnel leaves encryption to PPP. */
  readonly compression?: CompressionSettings
  /** Dials once more for the same bundle, when BAP says so; resolves when that call has joined. */
  addLink?(): Promise<void>
}

export interface DialEnd {
  readonly cause: DisconnectCause
  readonly detail: string
}

/** Give it to a dialler as its link factory; it dials once. */
export class PppDial implements LinkFactory, PppLinkOwner, PppNetworkOwner {
  readonly label = 'dial'
  readonly isUplink = true
  readonly session = undefined
  /** IPv4 flows, over this call and what joins it. Rejects with ConnectError when the call ends before. */
  readonly up: Promise<Ipv4Up>
  readonly addLink?: () => Promise<void>
  /** The link carries for the bundle of an earlier one, which has the addresses. */
  readonly joined: Promise<void>
  readonly closed: Promise<DialEnd>
  readonly #settings: DialSettings
  readonly #services: NetworkServices
  #link: PppLink | undefined
  #onUp: (up: Ipv4Up) => void = () => {}
  #onJoined: () => void = () => {}
  #onFailed: (error: ConnectError) => void = () => {}
  #onClosed: (end: DialEnd) => void = () => {}

  constructor(settings: DialSettings, services: NetworkServices) {
    this.#settings = settings
    this.#services = services
    const { addLink } = settings
    if (addLink !== undefined) this.addLink = () => addLink()
    this.up = new Promise((resolve, reject) => {
      this.#onUp = resolve
      this.#onFailed = reject
    })
    this.joined = new Promise(resolve => {
      this.#onJoined = resolve
    })
    this.closed = new Promise(resolve => {
      this.#onClosed = resolve
    })
    // Who asks for `closed` alone must not be hit by an unhandled rejection.
    this.up.catch(() => undefined)
  }

  open(carrier: Carrier): Link | undefined {
    if (this.#link !== undefined) return undefined
    const { userName, password, authentication, mruBytes } = this.#settings
    this.#link = new PppLink(
      carrier,
      {
        role: 'client',
        userName,
        password,
        authentication,
        mruBytes: Math.min(mruBytes, carrier.mruBytes),
      },
      this.#services,
      this,
    )
    this.#link.handle({ type: 'open' })
    return this.#link
  }

  /** Negotiates the link anew; traffic pauses meanwhile. */
  renegotiate(): void {
    this.#link?.handle({ type: 'renegotiate' })
  }

  hangUp(): void {
    this.#link?.handle({ type: 'close', cause: 'user-request' })
  }

  event(event: LinkEvent): void {
    if (event.type === 'authenticated' && this.#link !== undefined) this.#join(this.#link)
    if (event.type !== 'closed') return
    const { cause, detail } = event
    this.#onFailed(new ConnectError(`the call ended: ${detail} (${cause})`))
    this.#onClosed({ cause, detail })
  }

  /** An earlier call of ours has networks already, if the server is the same; else we begin some. */
  #join(link: PppLink): void {
    const { userName, compression, wantsIpv6 } = this.#settings
    const usesCompression = compression !== undefined && link.leavesProtection
    const network =
      link.networkOf(userName) ??
      new PppNetwork(
        {
          network: { ipv4: { wantsDns: true, wantsWins: false }, ipv6: wantsIpv6 ? {} : null },
          ...(usesCompression && { compression }),
        },
        this.#services,
        this,
      )
    const needsEncryption = usesCompression && compression.encryption === 'required'
    const refusal = link.join(network, { userKey: userName, needsEncryption, limits: {} })
    if (refusal !== undefined) {
      link.handle({ type: 'close', cause: 'session-limit', detail: refusal })
    } else if (network.owner !== this) this.#onJoined()
  }

  networkEvent(): void {}

  ended(): void {}

  /** Behind the server is everything. */
  openIpv4(port: Port, up: Ipv4Up): void {
    port.addIpv4Network(0, 0)
    this.#onUp(up)
  }

  openIpv6(port: Port, _up: Ipv6Up): void {
    port.addIpv6(new Uint8Array(16), 0)
  }

  /** Router advertisements and the like; the kernel of a dialling host is configured by hand. */
  linkPacket(): void {}
}

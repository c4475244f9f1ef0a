/**
 * One answered PPP call, from the tunnel's first frame to its one disconnect cause: who it is, what
 * they are given, and that everything is taken back when it ends.
 */
import type { Authenticator, Authorization, CallContext, Verdict } from '../aaa/authenticator.ts'
import type { ProofFacts } from '../aaa/policy/access-policies.ts'
import type { Session } from '../aaa/session.ts'
import { isRefusal, type SessionRegistry } from '../aaa/session-registry.ts'
import { userKey } from '../aaa/users/user-store.ts'
import type { InformRelay } from '../address/dhcp/inform-relay.ts'
import { type DhcpLink, DhcpResponder, type DhcpSettings } from '../address/dhcp-responder.ts'
import { serverDuid } from '../address/dhcpv6-responder.ts'
import type { Ipv4Lease } from '../address/ipv4-pool.ts'
import type { Ipv4Leases } from '../address/ipv4-pools.ts'
import type { Ipv6Pool } from '../address/ipv6-pool.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { InvariantError, messageOf } from '../core/errors.ts'
import type { Ipv6Network } from '../core/ip-address.ts'
import type { WheelEntry } from '../core/timers.ts'
import type { Port } from '../dataplane/dataplane.ts'
import type { EapConversationMaker } from '../eap/conversation.ts'
import type { EapServerMethodMaker } from '../eap/method.ts'
import type { Carrier, Link, LinkFactory } from '../ppp/carrier.ts'
import type { Ipv4Up, Ipv6Up, PppEvent } from '../ppp/event.ts'
import type { AuthenticationProtocol, CompressionSettings, ServerNetwork } from '../ppp/settings.ts'
import { CallCompression } from './call-compression.ts'
import { Ipv6Link } from './ipv6-link.ts'
import { type LinkServices, PppLink, type PppLinkOwner } from './ppp-link.ts'

/** What every call needs of the server. */
export interface CallServices extends LinkServices {
  readonly sessions: SessionRegistry
  readonly authenticator: Authenticator
  /** Begins EAP conversations: ours or relayed. Absent: no EAP over PPP. */
  readonly eap?: EapConversationMaker
  /** Who holds EAP conversations instead of us, for IKEv2. */
  readonly relayedEap?: EapConversationMaker
  /** What our own EAP conversations may run, for IKEv2. */
  readonly eapMethods?: readonly EapServerMethodMaker[]
  readonly ipv4Pool: Ipv4Leases
  readonly ipv6Pool: Ipv6Pool | undefined
  /** What is delegated to clients that ask for a prefix. */
  readonly delegationPool?: Ipv6Pool | undefined
  /** Who answers DHCPINFORM instead of us. */
  readonly informRelay?: InformRelay
  readonly settings: CallSettings
}

export interface CallSettings {
  readonly serverName: string
  /** Strongest first. */
  readonly authentication: readonly AuthenticationProtocol[]
  /** Largest IP packet that the TUN device carries, bytes. */
  readonly mtuBytes: number
  /** What PPP may agree on where the tunnel leaves encryption to it. */
  readonly compression?: CompressionSettings
  /** Our address in the tunnels, host order. */
  readonly serverIpv4: number
  readonly dnsIpv4: readonly number[]
  readonly dnsIpv6: readonly Uint8Array[]
  readonly winsIpv4: readonly number[]
  /** Whether a client may ask for an IPv4 address of its own choice. */
  readonly isRequestable: boolean
  /** What clients are told that ask by DHCPINFORM; absent: nothing. */
  readonly dhcp?: DhcpSettings
}

/** What policies call each kind of proof. */
const policyMethods = {
  pap: 'pap',
  'chap-md5': 'chap',
  mschapv2: 'mschapv2',
  'mschapv2-change-password': 'mschapv2',
} as const

/** How long a client may take to name the address that it wants before it gets any, ms. */
const requestWaitMs = 2000

/** Answers calls of all tunnels that carry PPP. */
export class PppCalls implements LinkFactory {
  readonly #services: CallServices

  constructor(services: CallServices) {
    this.#services = services
  }

  open(carrier: Carrier): Link | undefined {
    const call = new PppCall(carrier, this.#services)
    return call.begin()
  }
}

class PppCall implements PppLinkOwner, WheelEntry {
  readonly isUplink = false
  readonly #carrier: Carrier
  readonly #services: CallServices
  readonly #link: PppLink
  #session: Session | undefined
  #isOver = false
  /** Why we end a call whose proof was good. */
  #refusal: DisconnectCause | undefined
  #usesEap = false
  #ipv4: number | undefined
  #ipv6: Ipv6Network | undefined
  /** Ours to give back; a prefix of the authorization is not. */
  #isIpv6Leased = false
  /** Leased for a client that is a router. */
  #delegated: Ipv6Network | undefined
  #hasNetwork = false
  #ipv6Link: Ipv6Link | undefined
  #dhcp: DhcpLink | undefined

  constructor(carrier: Carrier, services: CallServices) {
    this.#carrier = carrier
    this.#services = services
    const { settings, eap } = services
    this.#link = new PppLink(
      carrier,
      {
        role: 'server',
        serverName: settings.serverName,
        authentication: settings.authentication,
        ...(eap !== undefined && {
          eap: lowerLayer => eap({ ...lowerLayer, call: this.#callContext() }),
        }),
        mruBytes: Math.min(carrier.mruBytes, settings.mtuBytes),
        ...(settings.compression !== undefined && {
          compression: new CallCompression(
            settings.compression,
            () => this.#session?.authorization,
          ),
        }),
      },
      services,
      this,
    )
  }

  get label(): string {
    return `${this.#carrier.protocol}/${this.#session?.number ?? 0}`
  }

  /** Undefined when there are too many calls. */
  begin(): Link | undefined {
    const carrier = this.#carrier
    const admitted = this.#services.sessions.admit({
      protocol: carrier.protocol,
      peerAddress: carrier.peerAddress,
      peerLabel: carrier.peerLabel,
      close: cause => this.#link.handle({ type: 'close', cause }),
    })
    if (isRefusal(admitted)) return undefined
    this.#session = admitted
    this.#link.handle({ type: 'open' })
    return this.#link
  }

  // PppLinkOwner

  get session(): Session | undefined {
    return this.#session
  }

  event(event: PppEvent): void {
    switch (event.type) {
      case 'authenticate':
        this.#judge(event)
        break
      case 'authorize': {
        const { attempt, authorization } = event
        const verdict = this.#authorize({ type: 'accept', authorization }, { method: 'eap' })
        this.#link.handle({ type: 'verdict', attempt, verdict })
        break
      }
      case 'pending':
        this.#wake(event)
        break
      case 'authenticated':
        this.#onAuthenticated()
        break
      case 'ipv4-requested':
        this.#give(event.address)
        break
      case 'identification':
        this.#session?.log.debug({ event: 'identification', text: event.text }, 'client identified')
        break
      case 'link-up':
        this.#usesEap = event.authentication === 'eap'
        this.#session?.log.debug({ ...event, event: event.type }, event.type)
        break
      case 'renegotiating':
        this.#session?.log.debug({ ...event, event: event.type }, event.type)
        break
      case 'compression-up':
      case 'compression-down':
        this.#session?.log.debug({ ...event, event: event.type }, event.type)
        break
      case 'refused':
        this.#session?.log.debug({ ...event, event: 'refused' }, 'proof refused')
        break
      case 'closed':
        this.#onClosed(event.cause, event.detail)
        break
      case 'ipv4-up':
      case 'ipv4-down':
      case 'ipv6-up':
      case 'reset-requested':
      case 'unexpected':
      case 'protocol-rejected':
        break
      case 'ipv6-down':
        this.#ipv6Link?.close()
        this.#ipv6Link = undefined
        break
    }
  }

  openIpv4(port: Port, up: Ipv4Up): void {
    port.addIpv4(up.peerAddress)
    this.#session?.bind(port)
    this.#dhcp?.close?.()
    this.#dhcp = this.#dhcpLink(up.peerAddress)
    this.#up({ ipv4: up.peerAddress })
  }

  openIpv6(port: Port, up: Ipv6Up): void {
    const prefix = this.#ipv6
    if (prefix === undefined) throw new InvariantError('IPv6 opened without a prefix')
    addNetwork(port, prefix)
    this.#session?.bind(port)
    if (this.#delegated !== undefined) addNetwork(port, this.#delegated)
    this.#up({ ipv6: prefix })
    const { settings } = this.#services
    const domain = settings.dhcp?.domain
    this.#ipv6Link?.close()
    this.#ipv6Link = new Ipv6Link(
      {
        interfaceId: up.localIdentifier,
        prefix,
        mtuBytes: up.mtuBytes,
        dnsServers: this.#given.dnsIpv6 ?? settings.dnsIpv6,
        ...(domain !== undefined && { domain }),
        serverId: serverDuid(settings.serverName),
        delegate: () => this.#delegate(port),
      },
      this.#services,
      packet => this.#link.transmit(packet),
    )
  }

  /** That of the authorization is routed with the session. */
  #delegate(port: Port): Ipv6Network | undefined {
    const { delegatedIpv6Prefix, userName } = this.#given
    if (delegatedIpv6Prefix !== undefined) return delegatedIpv6Prefix
    if (this.#delegated === undefined) {
      this.#delegated = this.#services.delegationPool?.lease(userName)
      if (this.#delegated !== undefined) addNetwork(port, this.#delegated)
    }
    return this.#delegated
  }

  #dhcpLink(client: number): DhcpLink | undefined {
    const { settings, informRelay } = this.#services
    const { dhcp } = settings
    if (informRelay !== undefined) {
      return informRelay.link(client, packet => this.#link.transmit(packet))
    }
    return dhcp && new DhcpResponder(dhcp, client, this.#link.counters)
  }

  linkPacket(bytes: Uint8Array): void {
    const answer = this.#dhcp?.answer(bytes)
    if (answer !== undefined) this.#link.transmit(answer)
    else this.#ipv6Link?.receive(bytes)
  }

  /** The client has not said which address it wants: it gets any. */
  onDeadline(): void {
    this.#give(0)
  }

  // Who it is

  #callContext(): CallContext {
    const { protocol, peerAddress } = this.#carrier
    return { protocol, peerAddress, sessionId: this.#session?.id ?? '' }
  }

  #judge(event: Extract<PppEvent, { type: 'authenticate' }>): void {
    const { attempt, userName, proof } = event
    this.#services.authenticator
      .authenticate({ userName, proof, call: this.#callContext() })
      .then(verdict => {
        // The call may have ended while its user was looked up.
        if (!this.#isOver) {
          const method = this.#usesEap ? 'eap' : policyMethods[proof.method]
          const decided = this.#authorize(verdict, { loginName: userName, method })
          this.#link.handle({ type: 'verdict', attempt, verdict: decided })
        }
      })
      .catch((error: unknown) => this.#onFault(error))
  }

  #onFault(error: unknown): void {
    this.#session?.log.error({ event: 'call-fault', reason: messageOf(error) }, 'call fault')
    if (!this.#isOver) this.#link.handle({ type: 'close', cause: 'nas-error' })
  }

  /** EAP has computed or asked what it needs; the call may have ended meanwhile. */
  #wake({ ticket, settled }: Extract<PppEvent, { type: 'pending' }>): void {
    settled.then(() => {
      if (!this.#isOver) this.#link.handle({ type: 'wake', ticket })
    })
  }

  /** A good proof may still not come in. */
  #authorize(verdict: Verdict, facts: ProofFacts): Verdict {
    const session = this.#session
    if (verdict.type === 'reject' || session === undefined) return verdict
    const { authorization } = verdict
    if (session.userName !== undefined) {
      // A renegotiated link belongs to whom it belonged before.
      if (session.userName === authorization.userName) return verdict
      this.#refusal = 'not-authorized'
      return { type: 'reject', reason: 'no-dial-in', canRetry: false }
    }
    const leader = this.#link.leaderOf(userKey(authorization.userName))?.session
    const refusal = session.authorize(authorization, facts, leader)
    if (refusal !== undefined) {
      session.log.info({ event: 'call-refused', reason: refusal.reason }, 'call refused')
      this.#refusal = refusal.cause
      return { type: 'reject', reason: refusal.reject ?? 'no-dial-in', canRetry: false }
    }
    return verdict
  }

  // What they are given

  #onAuthenticated(): void {
    const session = this.#session
    const refusal = this.#link.bundle(userKey(session?.userName ?? ''), session?.authorization)
    if (refusal !== undefined) {
      this.#link.handle({ type: 'close', cause: 'session-limit', detail: refusal })
      return
    }
    const { isFollower } = this.#link
    if (isFollower !== (session?.hasLeader === true) || (isFollower && session?.join() !== true)) {
      // The bundle that it was let in for ended, or began, meanwhile.
      this.#link.handle({ type: 'close', cause: 'lost-carrier', detail: 'bundle is over' })
      return
    }
    if (isFollower) return
    if (this.#link.isLeader) session?.lead()
    if (this.#hasNetwork) return
    const { settings, wheel, clock } = this.#services
    if (settings.isRequestable && this.#session?.authorization?.ipv4Address === undefined) {
      wheel.schedule(this, clock.nowMs() + requestWaitMs)
    } else {
      this.#give(0)
    }
  }

  #give(requestedAddress: number): void {
    if (this.#hasNetwork || this.#isOver) return
    this.#hasNetwork = true
    const { ipv4Pool, wheel } = this.#services
    wheel.cancel(this)
    const { userName, ipv4Address, ipv4Pool: poolName } = this.#given
    const lease = ipv4Pool.lease({
      userName,
      requestedAddress,
      ...(poolName !== undefined && { poolName }),
      ...(ipv4Address !== undefined && { fixedAddress: ipv4Address }),
    })
    if (!(lease instanceof Promise)) {
      this.#onLease(lease)
      return
    }
    lease
      .then(later => {
        if (!this.#isOver) this.#onLease(later)
        else if (later.type === 'leased') ipv4Pool.release(later.address)
      })
      .catch((error: unknown) => this.#onFault(error))
  }

  get #given(): Authorization {
    return this.#session?.authorization ?? { userName: '' }
  }

  #onLease(lease: Ipv4Lease): void {
    const { settings, ipv6Pool } = this.#services
    const { userName, ipv6Prefix, dnsIpv4, winsIpv4 } = this.#given
    if (lease.type === 'leased') this.#ipv4 = lease.address
    this.#isIpv6Leased = ipv6Prefix === undefined
    this.#ipv6 = ipv6Prefix ?? ipv6Pool?.lease(userName)
    if (this.#ipv4 === undefined && this.#ipv6 === undefined) {
      const detail = lease.type === 'refused' ? `IPv4 address: ${lease.reason}` : ''
      this.#link.handle({ type: 'close', cause: 'no-address', detail })
      return
    }
    const network: ServerNetwork = {
      ipv4:
        this.#ipv4 === undefined
          ? null
          : {
              localAddress: settings.serverIpv4,
              peerAddress: this.#ipv4,
              dns: dnsIpv4 ?? settings.dnsIpv4,
              wins: winsIpv4 ?? settings.winsIpv4,
            },
      ipv6: this.#ipv6 === undefined ? null : {},
    }
    this.#link.handle({ type: 'network', network })
  }

  #up(addresses: { ipv4?: number; ipv6?: Ipv6Network }): void {
    const session = this.#session
    if (session?.state === 'setup') session.up(addresses, () => this.#link.usage())
    else session?.addAddresses(addresses)
  }

  // The end

  #onClosed(cause: DisconnectCause, detail: string): void {
    if (this.#isOver) return
    this.#isOver = true
    const { ipv4Pool, ipv6Pool, wheel } = this.#services
    wheel.cancel(this)
    this.#ipv6Link?.close()
    this.#dhcp?.close?.()
    if (this.#ipv4 !== undefined) ipv4Pool.release(this.#ipv4)
    if (this.#ipv6 !== undefined && this.#isIpv6Leased) ipv6Pool?.release(this.#ipv6)
    if (this.#delegated !== undefined) this.#services.delegationPool?.release(this.#delegated)
    const dropped = { ...this.#link.counters.toJSON(), ...this.#link.dataPathCounters }
    this.#session?.log.debug(
      { event: 'ppp-closed', detail, dropped, droppedIpPackets: this.#link.droppedIpPackets },
      'ppp closed',
    )
    this.#session?.end(this.#refusal ?? cause)
  }
}

function addNetwork(port: Port, { address, prefixLength }: Ipv6Network): void {
  port.addIpv6(address, prefixLength)
}

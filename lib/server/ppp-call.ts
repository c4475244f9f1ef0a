/**
 * One answered PPP call, from the tunnel's first frame to its one disconnect cause: who it is, and what
 * it carries for, a session of its own or the one whose bundle it joins.
 */
import type { Authenticator, CallContext, Verdict } from '../aaa/authenticator.ts'
import type { ProofFacts } from '../aaa/policy/access-policies.ts'
import type { Session } from '../aaa/session.ts'
import { isRefusal, type SessionRegistry } from '../aaa/session-registry.ts'
import { userKey } from '../aaa/users/user-store.ts'
import type { InformRelay } from '../address/dhcp/inform-relay.ts'
import type { DhcpSettings } from '../address/dhcp-responder.ts'
import type { Ipv4Leases } from '../address/ipv4-pools.ts'
import type { Ipv6Pool } from '../address/ipv6-pool.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { messageOf } from '../core/errors.ts'
import type { EapConversationMaker } from '../eap/conversation.ts'
import type { EapServerMethodMaker } from '../eap/method.ts'
import type { Carrier, Link, LinkFactory } from '../ppp/carrier.ts'
import type { LinkEvent } from '../ppp/event.ts'
import type { AuthenticationProtocol, CompressionSettings } from '../ppp/settings.ts'
import { CallCompression } from './call-compression.ts'
import { PppLink, type PppLinkOwner } from './ppp-link.ts'
import type { NetworkServices, PppNetwork } from './ppp-network.ts'
import { PppSession } from './ppp-session.ts'

/** What every call needs of the server. */
export interface CallServices extends NetworkServices {
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

type Ending = readonly [cause: DisconnectCause, detail: string]

const bundleIsOver: Ending = ['lost-carrier', 'bundle is over']

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

class PppCall implements PppLinkOwner {
  readonly #carrier: Carrier
  readonly #services: CallServices
  readonly #link: PppLink
  /** Absent: the tunnel protects what it carries. */
  readonly #compression: CompressionSettings | undefined
  /** As it was admitted: a session, or a link of one. */
  #session: Session | undefined
  /** Of a call that began a session. */
  #own: PppSession | undefined
  /** What it carries for. */
  #network: PppNetwork | undefined
  #isOver = false
  /** Why we end a call whose proof was good. */
  #refusal: DisconnectCause | undefined
  #usesEap = false

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
      },
      services,
      this,
    )
    if (settings.compression !== undefined && this.#link.leavesProtection) {
      const authorization = () => this.#session?.authorization
      this.#compression = new CallCompression(settings.compression, authorization)
    }
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

  event(event: LinkEvent): void {
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
      case 'refused':
        this.#session?.log.debug({ ...event, event: 'refused' }, 'proof refused')
        break
      case 'closed':
        this.#onClosed(event.cause, event.detail)
        break
      case 'link-down':
      case 'packet':
      case 'unexpected':
      case 'protocol-rejected':
        break
    }
  }

  // Who it is

  #callContext(): CallContext {
    const { protocol, peerAddress } = this.#carrier
    return { protocol, peerAddress, sessionId: this.#session?.id ?? '' }
  }

  #judge(event: Extract<LinkEvent, { type: 'authenticate' }>): void {
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
  #wake({ ticket, settled }: Extract<LinkEvent, { type: 'pending' }>): void {
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
    const leader = this.#link.networkOf(userKey(authorization.userName))?.owner.session
    const refusal = session.authorize(authorization, facts, leader)
    if (refusal !== undefined) {
      session.log.info({ event: 'call-refused', reason: refusal.reason }, 'call refused')
      this.#refusal = refusal.cause
      return { type: 'reject', reason: refusal.reject ?? 'no-dial-in', canRetry: false }
    }
    return verdict
  }

  // What it carries for

  #onAuthenticated(): void {
    const session = this.#session
    const ending = session === undefined ? bundleIsOver : this.#join(session)
    if (ending === undefined) return
    const [cause, detail] = ending
    this.#link.handle({ type: 'close', cause, detail })
  }

  #join(session: Session): Ending | undefined {
    const key = userKey(session.userName ?? '')
    const present = this.#link.networkOf(key)
    // The bundle that it was let in for may have ended meanwhile, or one have begun.
    const isAsJudged = present?.owner.session === (session.leader ?? this.#own?.session)
    if (!isAsJudged) return bundleIsOver
    if (present === undefined) {
      this.#own = new PppSession(session, this.#compression, this.#services)
    }
    const network = present ?? this.#own?.network
    if (network === undefined) return bundleIsOver
    const refusal = this.#link.join(network, {
      userKey: key,
      needsEncryption: this.#compression?.encryption === 'required',
      limits: session.authorization ?? {},
    })
    if (refusal !== undefined) return ['session-limit', refusal]
    this.#network = network
    if (this.#link.bundle !== undefined) network.owner.session?.lead()
    if (session.leader !== undefined && !session.join()) return bundleIsOver
    this.#own?.begin()
    return undefined
  }

  // The end

  #onClosed(cause: DisconnectCause, detail: string): void {
    if (this.#isOver) return
    this.#isOver = true
    // What the networks have dropped is said once, with the last call.
    const network = this.#network?.isOver === true ? this.#network : undefined
    const dropped = {
      ...this.#link.counters.toJSON(),
      ...network?.counters.toJSON(),
      ...network?.dataPathCounters,
    }
    const droppedIpPackets = this.#link.droppedIpPackets + (network?.droppedIpPackets ?? 0)
    this.#session?.log.debug(
      { event: 'ppp-closed', detail, dropped, droppedIpPackets },
      'ppp closed',
    )
    this.#session?.end(this.#refusal ?? cause)
  }
}

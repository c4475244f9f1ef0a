/**
 * One answered IKEv2 call, from its proof of identity to its one disconnect cause: who it is, what they
 * are given, and that everything is taken back when it ends. It carries IP, so there is no PPP in it.
 */
import { X509Certificate } from 'node:crypto'
import type { Authenticator, Authorization } from '../aaa/authenticator.ts'
import type { ProofFacts } from '../aaa/policy/access-policies.ts'
import type { CallDescription, Session, SessionUsage } from '../aaa/session.ts'
import { isRefusal, type SessionRegistry } from '../aaa/session-registry.ts'
import type { UserStore } from '../aaa/users/user-store.ts'
import type { InformRelay } from '../address/dhcp/inform-relay.ts'
import { type DhcpLink, DhcpResponder } from '../address/dhcp-responder.ts'
import type { Ipv4Lease } from '../address/ipv4-pool.ts'
import type { Ipv4Leases } from '../address/ipv4-pools.ts'
import type { Ipv6Pool } from '../address/ipv6-pool.ts'
import type { ClientAuthorities } from '../certificates/client-authorities.ts'
import type { Config, SiteConfig } from '../config.ts'
import type { WallClock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { messageOf } from '../core/errors.ts'
import type { Ipv6Network } from '../core/ip-address.ts'
import type { Dataplane, Port } from '../dataplane/dataplane.ts'
import type { IkeSaEvent } from '../ikev2/event.ts'
import { identityOf, isSameIdentity } from '../ikev2/identity.ts'
import type { IkeConnection, IkeSettings, TunnelLimits } from '../ikev2/ike-connection.ts'
import type { Grant, GrantVerdict } from '../ikev2/input.ts'
import type { AcceptedCall, IkeCallFactory } from '../ikev2/listener.ts'
import { describeEndpoint, type Endpoint, type Path } from '../ikev2/path.ts'
import { everything } from '../ikev2/traffic-selectors.ts'
import type { TrafficSelector } from '../ikev2/wire/traffic-selector.ts'
import { dhcpSettings, selectorOf } from './client-networks.ts'
import { judgeCertificate } from './ikev2-certificates.ts'
import { judgeResumption, type ResumptionVerdict, resumeMemo } from './ikev2-resumption.ts'
import type { ResponderSettings } from './ikev2-settings.ts'

/** What every call needs of the server; the parts that a reload changes are looked up each time. */
export interface Ikev2CallServices {
  readonly dataplane: Dataplane
  readonly sessions: SessionRegistry
  readonly authenticator: Authenticator
  readonly authorities: ClientAuthorities
  /** Absent: a certificate that is good lets in whomever it names. */
  readonly users?: () => UserStore
  readonly ipv4Pool: Ipv4Leases
  readonly ipv6Pool: Ipv6Pool | undefined
  /** Who answers DHCPINFORM instead of us. */
  readonly informRelay?: InformRelay
  readonly wallClock: WallClock
  readonly config: Config
  readonly settings: ResponderSettings
  readonly limits: TunnelLimits
  /** What clients may reach, by family: one list for all. */
  readonly reachable: {
    readonly ipv4: readonly TrafficSelector[]
    readonly ipv6: readonly TrafficSelector[]
  }
}

type EventOf<Type extends IkeSaEvent['type']> = Extract<IkeSaEvent, { type: Type }>

type ProvedCall =
  | (Omit<Extract<ResumptionVerdict, { type: 'accept' }>, 'oldSessionId'> & {
      /** Of a ticket. */
      readonly oldSessionId?: string
    })
  | Extract<ResumptionVerdict, { type: 'reject' }>

const noUsage: SessionUsage = {
  receivedPackets: 0,
  receivedBytes: 0,
  sentPackets: 0,
  sentBytes: 0,
  lastActiveMs: 0,
}

const noChain: readonly Uint8Array[] = []

/** Answers IKEv2 calls. */
export class Ikev2Calls implements IkeCallFactory {
  readonly #services: () => Ikev2CallServices

  constructor(services: () => Ikev2CallServices) {
    this.#services = services
  }

  accept(path: Path): AcceptedCall | undefined {
    return new Ikev2Call(path.peer, this.#services())
  }
}

class Ikev2Call implements AcceptedCall, CallDescription {
  readonly protocol = 'ikev2'
  /** Where the call came from; it may have moved since. */
  readonly #caller: Endpoint
  readonly #services: Ikev2CallServices
  #connection: IkeConnection | undefined
  #session: Session | undefined
  #port: Port | undefined
  #dhcp: DhcpLink | undefined
  #ipv4: number | undefined
  #ipv6: Ipv6Network | undefined
  /** Ours to give back; a prefix of the authorization is not. */
  #isIpv6Leased = false
  /** Names of the peer's own, once it was found good. */
  #certificate: ProofFacts['certificate']
  #chain = noChain
  /** What goes into its tickets. */
  #resumeMemo: Uint8Array | undefined
  #site: SiteConfig | undefined
  #isOver = false

  constructor(caller: Endpoint, services: Ikev2CallServices) {
    this.#caller = caller
    this.#services = services
  }

  get settings(): IkeSettings {
    return this.#services.settings
  }

  get limits(): TunnelLimits {
    return this.#services.limits
  }

  get peerAddress(): string {
    return this.#caller.address
  }

  get peerLabel(): string {
    return describeEndpoint(this.#caller)
  }

  connect(connection: IkeConnection): void {
    this.#connection = connection
  }

  event(event: IkeSaEvent): void {
    switch (event.type) {
      case 'authenticate':
        this.#judge(event)
        break
      case 'eap-pending':
        this.#wakeEap(event)
        break
      case 'verify-certificate':
        this.#judgeCertificate(event)
        break
      case 'need-grant':
        this.#grant(event)
        break
      case 'established':
        this.#up(event)
        break
      case 'closed':
        this.#onClosed(event.cause, event.detail)
        break
      case 'moved':
        this.#session?.log.info(
          { event: 'moved', to: describeEndpoint(event.path.peer) },
          'peer moved',
        )
        break
      case 'child-up':
        this.#session?.log.debug(
          {
            event: 'child-up',
            inboundSpi: event.child.inboundSpi,
            replaces: event.replaces,
            isUdpEncapsulated: event.child.isUdpEncapsulated,
          },
          'child sa up',
        )
        break
      case 'child-down':
      case 'ike-rekeyed':
      case 'unexpected':
      case 'malformed':
        this.#session?.log.debug({ ...event, event: event.type }, event.type)
        break
      case 'child-active':
      case 'datagram':
      case 'key-log':
      case 'redirected':
      case 'ticket':
      case 'spi-added':
      case 'spi-removed':
        break
    }
  }

  /** A caller that proves something is a session, whatever comes of it. */
  #admitted(): Session | undefined {
    if (this.#session !== undefined) return this.#session
    const admitted = this.#services.sessions.admit(this)
    if (isRefusal(admitted)) {
      this.#close(admitted.cause, 'not-admitted')
      return undefined
    }
    this.#session = admitted
    return admitted
  }

  /** The session asks for the end. */
  close(cause: DisconnectCause): void {
    this.#close(cause, 'closed-by-server')
  }

  /** Who comes anew knows nothing any more of the call that is replaced. */
  #close(cause: DisconnectCause, detail: string): void {
    const isSilent = cause === 'replaced'
    this.#connection?.handle({ type: 'close', cause, detail, isSilent })
  }

  // Who it is

  #judge({ ticket, request }: EventOf<'authenticate'>): void {
    const session = this.#admitted()
    if (session === undefined) return
    const call = { ...request.call, sessionId: session.id }
    this.#services.authenticator
      .authenticate({ ...request, call })
      .then(verdict => {
        if (!this.#isOver) this.#connection?.handle({ type: 'verdict', ticket, verdict })
      })
      .catch((error: unknown) => {
        session.log.error({ event: 'call-fault', reason: messageOf(error) }, 'call fault')
        this.#close('nas-error', 'authenticator')
      })
  }

  /** The call may have ended meanwhile. */
  #wakeEap({ ticket, settled }: EventOf<'eap-pending'>): void {
    settled.then(() => {
      if (!this.#isOver) this.#connection?.handle({ type: 'eap-wake', ticket })
    })
  }

  #judgeCertificate({ ticket, certificates, identity }: EventOf<'verify-certificate'>): void {
    const session = this.#admitted()
    if (session === undefined) return
    const verdict = judgeCertificate(this.#services, certificates, identity)
    if (verdict.type === 'reject') {
      const { detail } = verdict
      session.log.info({ event: 'certificate-refused', detail }, 'certificate refused')
    } else {
      this.#chain = certificates
      this.#certificate = certificateNames(certificates[0])
    }
    this.#connection?.handle({ type: 'certificate-verdict', ticket, verdict })
  }

  // What they are given

  #grant(event: EventOf<'need-grant'>): void {
    const session = this.#admitted()
    if (session === undefined) return
    const verdict = this.#decide(event, session)
    if (!(verdict instanceof Promise)) {
      this.#answerGrant(event, session, verdict)
      return
    }
    verdict
      .then(later => {
        if (!this.#isOver) this.#answerGrant(event, session, later)
      })
      .catch((error: unknown) => {
        session.log.error({ event: 'call-fault', reason: messageOf(error) }, 'call fault')
        this.#close('nas-error', 'address')
      })
  }

  #answerGrant(event: EventOf<'need-grant'>, session: Session, verdict: GrantVerdict): void {
    if (verdict.type === 'refuse') {
      session.log.info({ event: 'call-refused', cause: verdict.cause }, 'call refused')
    }
    const memo = this.#resumeMemo
    const answer: GrantVerdict =
      verdict.type === 'grant' && memo !== undefined
        ? { type: 'grant', grant: { ...verdict.grant, resumeMemo: memo } }
        : verdict
    // The connection keeps what it needs of them, and a call may last.
    this.#chain = noChain
    this.#resumeMemo = undefined
    this.#connection?.handle({ type: 'grant-verdict', ticket: event.ticket, verdict: answer })
  }

  #decide(event: EventOf<'need-grant'>, session: Session): GrantVerdict | Promise<GrantVerdict> {
    const { config } = this.#services
    const proved = this.#proved(event)
    if (proved.type === 'reject') {
      session.log.info({ event: 'not-resumed', reason: proved.detail }, 'not resumed')
      return { type: 'refuse', cause: 'authentication-failed' }
    }
    const { idleTimeoutSeconds } = config.ikev2
    const authorization: Authorization = {
      ...(idleTimeoutSeconds !== undefined && { idleTimeoutSeconds }),
      ...proved.authorization,
    }
    this.#replaceOld(event, session, authorization.userName, proved.oldSessionId)
    const { proof, loginName } = proved
    const refusal = session.authorize(authorization, {
      loginName,
      method: proof.by,
      ...(this.#certificate !== undefined && { certificate: this.#certificate }),
    })
    if (refusal !== undefined) {
      session.log.info({ event: 'not-authorized', reason: refusal.reason }, 'not authorized')
      return { type: 'refuse', cause: refusal.cause }
    }
    if (config.ikev2.resumptionMs > 0) {
      this.#resumeMemo = resumeMemo(this.#services, proof, {
        ...{ sessionId: session.id, loginName, identity: event.identity },
        userName: authorization.userName,
      })
    }
    if (proof.by === 'psk') {
      this.#site = config.ikev2.sites.find(site =>
        isSameIdentity(identityOf(site.identity), event.identity),
      )
    }
    const site = this.#site
    if (site !== undefined) return { type: 'grant', grant: siteGrant(site) }
    const { configuration } = event
    if (configuration === undefined) return { type: 'refuse', cause: 'not-authorized' }
    return this.#lease(configuration, session.authorization ?? authorization)
  }

  /** Who it is and how it has shown that: now, or in the call that its ticket is of. */
  #proved(event: EventOf<'need-grant'>): ProvedCall {
    const { authenticatedBy: by, userName, resumed } = event
    if (by === 'resumption') {
      if (resumed === undefined) return { type: 'reject', detail: 'no-memo' }
      const verdict = judgeResumption(this.#services, resumed, event.identity)
      if (verdict.type === 'accept' && verdict.proof.by === 'certificate') {
        this.#certificate = certificateNames(verdict.proof.chain[0])
      }
      return verdict
    }
    return {
      type: 'accept',
      proof: by === 'certificate' ? { by, chain: this.#chain } : { by },
      loginName: userName,
      authorization: event.authorization ?? { userName },
    }
  }

  /** RFC 7296 §2.4, RFC 5723 §5: what the peer had before is gone on its side. */
  #replaceOld(
    { isInitialContact }: EventOf<'need-grant'>,
    session: Session,
    userName: string,
    oldSessionId: string | undefined,
  ): void {
    for (const old of this.#services.sessions.find(userName)) {
      const isOfThisHost = isInitialContact && old.peerAddress === session.peerAddress
      const isGone = isOfThisHost || old.id === oldSessionId
      if (isGone && old.protocol === 'ikev2') old.disconnect('replaced')
    }
  }

  #lease(
    wanted: NonNullable<EventOf<'need-grant'>['configuration']>,
    given: Authorization,
  ): GrantVerdict | Promise<GrantVerdict> {
    if (!wanted.wantsIpv4) return this.#offer(wanted.wantsIpv6, given)
    const { config, ipv4Pool } = this.#services
    const { userName, ipv4Address, ipv4Pool: poolName } = given
    const lease = ipv4Pool.lease({
      userName,
      requestedAddress: config.addresses.isRequestable ? (wanted.ipv4Address ?? 0) : 0,
      ...(poolName !== undefined && { poolName }),
      ...(ipv4Address !== undefined && { fixedAddress: ipv4Address }),
    })
    const take = (one: Ipv4Lease): GrantVerdict => {
      if (one.type === 'leased') {
        if (this.#isOver) ipv4Pool.release(one.address)
        else this.#ipv4 = one.address
      }
      return this.#isOver
        ? { type: 'refuse', cause: 'no-address' }
        : this.#offer(wanted.wantsIpv6, given)
    }
    return lease instanceof Promise ? lease.then(take) : take(lease)
  }

  #offer(wantsIpv6: boolean, given: Authorization): GrantVerdict {
    const { addresses } = this.#services.config
    if (wantsIpv6) {
      this.#isIpv6Leased = given.ipv6Prefix === undefined
      this.#ipv6 = given.ipv6Prefix ?? this.#services.ipv6Pool?.lease(given.userName)
    }
    if (this.#ipv4 === undefined && this.#ipv6 === undefined) {
      return { type: 'refuse', cause: 'no-address' }
    }
    const grant: Grant = {
      ...(this.#ipv4 !== undefined && {
        ipv4Address: this.#ipv4,
        ipv4Dns: given.dnsIpv4 ?? addresses.dnsIpv4,
        ipv4Nbns: given.winsIpv4 ?? addresses.winsIpv4,
      }),
      ...(this.#ipv6 !== undefined && {
        ipv6Address: hostOf(this.#ipv6),
        ipv6Dns: given.dnsIpv6 ?? addresses.dnsIpv6,
      }),
      ...(addresses.domain !== undefined && { dnsDomains: [addresses.domain] }),
      localSelectors: this.#reachable(),
    }
    return { type: 'grant', grant }
  }

  /** Families without an address are left out, or routes of Apple's clients go wrong. */
  #reachable(): readonly TrafficSelector[] {
    const { ipv4, ipv6 } = this.#services.reachable
    if (this.#ipv6 === undefined) return ipv4
    return this.#ipv4 === undefined ? ipv6 : [...ipv4, ...ipv6]
  }

  #up(event: EventOf<'established'>): void {
    const session = this.#session
    const connection = this.#connection
    if (session === undefined || connection === undefined) return
    const port = this.#services.dataplane.attach({
      label: `ikev2/${session.number}`,
      sink: connection.tunnel,
      // The tunnel has no link layer: there are no neighbours to talk to, but there is DHCP.
      onLinkPacket: bytes => {
        if (this.#ipv4 !== undefined) this.#dhcp ??= this.#dhcpLink(this.#ipv4, port, connection)
        const answer = this.#dhcp?.answer(bytes)
        if (answer === undefined) connection.counters.count('link-packet')
        else port.transmit(answer)
      },
    })
    this.#port = port
    if (this.#ipv4 !== undefined) port.addIpv4(this.#ipv4)
    if (this.#ipv6 !== undefined) port.addIpv6(this.#ipv6.address, this.#ipv6.prefixLength)
    for (const network of this.#site?.remoteNetworks ?? []) {
      if (network.family === 4) port.addIpv4Network(network.address, network.prefixLength)
      else port.addIpv6(network.address, network.prefixLength)
    }
    session.bind(port)
    connection.tunnel.connect(port)
    session.log.debug(
      {
        event: 'ike-established',
        suite: event.suite,
        by: event.authenticatedBy,
        isPeerBehindNat: event.isPeerBehindNat,
        usesMobike: event.usesMobike,
        isWindows: event.isWindows,
      },
      'ike sa established',
    )
    session.up(
      {
        ...(this.#ipv4 !== undefined && { ipv4: this.#ipv4 }),
        ...(this.#ipv6 !== undefined && { ipv6: this.#ipv6 }),
      },
      () => this.#port?.counters ?? noUsage,
    )
  }

  #dhcpLink(client: number, port: Port, { counters }: IkeConnection): DhcpLink {
    const { config, informRelay } = this.#services
    return (
      informRelay?.link(client, packet => port.transmit(packet)) ??
      new DhcpResponder(dhcpSettings(config), client, counters)
    )
  }

  // The end

  #onClosed(cause: DisconnectCause, detail: string): void {
    if (this.#isOver) return
    this.#isOver = true
    const { ipv4Pool, ipv6Pool } = this.#services
    const dropped = this.#connection?.tunnel.drops
    this.#session?.log.debug({ event: 'ike-closed', detail, dropped }, 'ike sa closed')
    // Its counters are read for the line down.
    this.#session?.end(cause)
    this.#dhcp?.close?.()
    this.#port?.detach()
    if (this.#ipv4 !== undefined) ipv4Pool.release(this.#ipv4)
    if (this.#ipv6 !== undefined && this.#isIpv6Leased) ipv6Pool?.release(this.#ipv6)
  }
}

function siteGrant(site: SiteConfig): Grant {
  return {
    localSelectors:
      site.localNetworks.length === 0 ? everything : site.localNetworks.map(selectorOf),
    remoteSelectors: site.remoteNetworks.map(selectorOf),
  }
}

/** The client's own address in its /64: its second; the first would be ours if it were a link. */
function hostOf({ address, prefixLength }: Ipv6Network) {
  const host = Uint8Array.from(address)
  host[15] = 2
  return { address: host, prefixLength }
}

/** Undefined when it cannot be read: no condition of a policy holds for it then. */
function certificateNames(der: Uint8Array | undefined): ProofFacts['certificate'] {
  try {
    if (der === undefined) return undefined
    const { subject, issuer } = new X509Certificate(der)
    return { subject, issuer }
  } catch {
    return undefined
  }
}

/**
 * One session: its life from admission to its one end. It begins as one call. Others may join it as
 * links of a bundle; then it lives as long as any of its calls, whichever came first.
 */
import type { Clock, WallClock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { formatIpv4, formatIpv6Network, type Ipv6Network } from '../core/ip-address.ts'
import type { Logger } from '../core/log.ts'
import type { TimerWheel, WheelEntry } from '../core/timers.ts'
import type { Port } from '../dataplane/index.ts'
import type { Authorization, RejectReason } from './authenticator.ts'
import type { FilterCatalogue } from './filter-catalogue.ts'
import type { AccessPolicies, ProofFacts } from './policy/access-policies.ts'
import { type BundleStatus, type SessionLink, SessionLinks } from './session-links.ts'
import { SessionTraffic } from './session-traffic.ts'

/** How long a tunnel may take to close in its own orderly way, ms. */
const closeTimeoutMs = 10_000

export interface Refusal {
  readonly cause: DisconnectCause
  /** For the log and for people. */
  readonly reason: string
  /** What the peer is told, where its protocol has words for it. */
  readonly reject?: RejectReason
}

/** What can change while a session is up (RFC 5176 §3.2); absent stays, undefined is taken away. */
export type SessionChange = {
  readonly [K in
    | 'filterName'
    | 'filterRules'
    | 'receiveBitsPerSecond'
    | 'sendBitsPerSecond'
    | 'receiveBurstBytes'
    | 'sendBurstBytes'
    | 'sessionTimeoutSeconds'
    | 'idleTimeoutSeconds'
    | 'interimIntervalSeconds'
    | 'ipv4Routes'
    | 'ipv6Routes'
    | 'quarantine'
    | 'accountingClass']?: Authorization[K] | undefined
}

/** What is known of a call when it comes in. */
export interface CallDescription {
  readonly protocol: string
  /** Without port. */
  readonly peerAddress: string
  /** With port, for people. */
  readonly peerLabel: string
  /** Closes the tunnel in its own orderly way; its owner then calls `Session.end`. */
  close(cause: DisconnectCause): void
}

/** From the server's point of view: `received` came from the client. Cumulative. */
export interface SessionUsage {
  readonly receivedPackets: number
  readonly receivedBytes: number
  readonly sentPackets: number
  readonly sentBytes: number
  /** Monotonic ms of the last packet that counts as use. */
  readonly lastActiveMs: number
}

export interface SessionAddresses {
  /** Host order. */
  readonly ipv4?: number
  readonly ipv6?: Ipv6Network
}

/**
 * `setup` until addresses are given; `closing` once somebody asked for the end. `joined` is a link of
 * another session: it has no addresses, limits and records of its own.
 */
export type SessionState = 'setup' | 'up' | 'joined' | 'closing' | 'ended'

/** What status, events and accounting show. */
export interface SessionStatus {
  readonly id: string
  readonly number: number
  readonly state: SessionState
  readonly protocol: string
  readonly peer: string
  readonly userName?: string
  readonly ipv4?: string
  readonly ipv6?: string
  /** The access policy that let it in. */
  readonly policy?: string
  readonly filter?: string
  readonly isQuarantined?: boolean
  /** Present when it is that of a bundle. */
  readonly bundle?: BundleStatus
  /** When the call came in. */
  readonly since: Date
  /** Since it is up; 0 before. */
  readonly durationSeconds: number
  readonly idleSeconds: number
  readonly receivedPackets: number
  readonly receivedBytes: number
  readonly sentPackets: number
  readonly sentBytes: number
}

/** What sessions need of their registry: one for all. */
export interface SessionHost {
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly wallClock: WallClock
  readonly log: Logger
  admitUser(authorization: Authorization): Refusal | undefined
  policies(): AccessPolicies
  filters(): FilterCatalogue
  timeouts(): { readonly idleTimeoutMs: number; readonly sessionTimeoutMs: number }
  changed(session: Session): void
  up(session: Session, status: SessionStatus): void
  /** The call that it came in with is over; the session may go on with others. */
  callOver(session: Session): void
  down(session: Session, status: SessionStatus, cause: DisconnectCause, wasUp: boolean): void
}

const unused: SessionUsage = {
  receivedPackets: 0,
  receivedBytes: 0,
  sentPackets: 0,
  sentBytes: 0,
  lastActiveMs: 0,
}

export class Session implements WheelEntry {
  /** Unguessable text. */
  readonly id: string
  /** Small, for people. */
  readonly number: number
  readonly #call: CallDescription
  readonly #host: SessionHost
  readonly #sinceMs: number
  #state: SessionState = 'setup'
  #authorization: Authorization | undefined
  #addresses: SessionAddresses = {}
  #usage: () => SessionUsage = () => unused
  /** The first one counts. */
  #cause: DisconnectCause | undefined
  #upMs = Number.NaN
  #idleTimeoutMs = Number.POSITIVE_INFINITY
  #sessionDeadlineMs = Number.POSITIVE_INFINITY
  /** Infinity once released, and where there is no such limit. */
  #quarantineDeadlineMs = Number.POSITIVE_INFINITY
  #isQuarantined = false
  #policy: string | undefined
  readonly #traffic = new SessionTraffic()
  #isCallOver = false
  /** This call among the links of its session. */
  #asLink: SessionLink | undefined
  /** Present when other calls may join. */
  #links: SessionLinks | undefined
  /** The session whose link this call is to be, or is. */
  #leader: Session | undefined
  #isLink = false

  constructor(number: number, id: string, call: CallDescription, host: SessionHost) {
    this.number = number
    this.id = id
    this.#call = call
    this.#host = host
    this.#sinceMs = host.wallClock.now().getTime()
  }

  /** Made when there is something to say: sessions last, and say little. */
  get log(): Logger {
    const { protocol: proto, peerLabel: peer } = this
    return this.#host.log.child({ sessionId: this.id, proto, peer })
  }

  get state(): SessionState {
    return this.#state
  }

  get userName(): string | undefined {
    return this.#authorization?.userName
  }

  get protocol(): string {
    return this.#call.protocol
  }

  /** With port, for people. */
  get peerLabel(): string {
    return this.#call.peerLabel
  }

  /** When the call came in. */
  get since(): Date {
    return new Date(this.#sinceMs)
  }

  get peerAddress(): string {
    return this.#call.peerAddress
  }

  /** What the user is given, policies and changes included. */
  get authorization(): Authorization | undefined {
    return this.#authorization
  }

  get isQuarantined(): boolean {
    return this.#isQuarantined
  }

  /** The call is a link of another session. */
  get isLink(): boolean {
    return this.#isLink
  }

  /** Whose link it is, or was let in to become: the user has no session more. */
  get leader(): Session | undefined {
    return this.#leader
  }

  /**
   * The peer has proved to be this user: may it come in, and with what? `authorization` is from then
   * on what the policies have made of it. A call that will `join` a leader is no session more. A
   * refusal ends the call; its owner does that.
   */
  authorize(
    authorization: Authorization,
    facts: ProofFacts = {},
    leader?: Session,
  ): Refusal | undefined {
    if (this.#state !== 'setup' || this.#authorization !== undefined) return undefined
    const { wallClock } = this.#host
    const decision = this.#host.policies().decide(
      {
        ...facts,
        protocol: this.protocol,
        peerAddress: this.peerAddress,
        now: wallClock.now(),
      },
      authorization,
    )
    if (decision.type === 'deny') {
      const { policy, reason } = decision
      const why = policy === undefined ? 'no policy permits it' : `policy ${policy}`
      return { cause: 'not-authorized', reason: why, reject: reason }
    }
    const decided = decision.authorization
    const isQuarantined = decided.quarantine !== undefined
    const unknown = this.#traffic.set(decided, isQuarantined, this.#host.filters())
    if (unknown !== undefined) return { cause: 'not-authorized', reason: unknown }
    const refusal = leader === undefined ? this.#host.admitUser(decided) : undefined
    if (refusal !== undefined) return refusal
    this.#leader = leader
    this.#authorization = decided
    this.#policy = decision.policy
    this.#isQuarantined = isQuarantined
    return undefined
  }

  /** Other calls of the user may join: this one is a link of a bundle. */
  lead(): void {
    if (this.#links !== undefined) return
    this.#links = new SessionLinks(this.number)
    this.#enter(this.#links, cause => {
      this.#call.close(cause)
      return true
    })
  }

  /** The call carries for the session that it was authorized with; false when that is over. */
  join(): boolean {
    const leader = this.#leader
    if (this.#isLink) return true
    if (this.#state !== 'setup' || leader === undefined) return false
    if (leader.state !== 'up' && leader.state !== 'setup') return false
    this.#state = 'joined'
    this.#isLink = true
    leader.lead()
    if (leader.#links !== undefined) this.#enter(leader.#links, cause => this.disconnect(cause))
    this.log.info(
      { event: 'link-joined', user: this.userName, bundle: leader.id },
      'link joined a bundle',
    )
    if (leader.state === 'up') this.#host.changed(leader)
    return true
  }

  /** The session's packets pass this port from now on: filter, rates and routes hold there. */
  bind(port: Port): void {
    this.#traffic.bind(port)
  }

  /**
   * Changes what holds for a session that is authorized. A session timeout counts from now. The
   * reason when the change names something that there is not; then nothing changes.
   */
  change(change: SessionChange): string | undefined {
    const before = this.#authorization
    if (before === undefined || this.#state === 'ended') return 'the session is not authorized'
    const changed = definedOnly({ ...before, ...change }, before.userName)
    const isQuarantined =
      'quarantine' in change ? changed.quarantine !== undefined : this.#isQuarantined
    const unknown = this.#traffic.set(changed, isQuarantined, this.#host.filters())
    if (unknown !== undefined) return unknown
    this.#authorization = changed
    this.#isQuarantined = isQuarantined
    if (this.#state === 'up') {
      const nowMs = this.#host.clock.nowMs()
      if ('idleTimeoutSeconds' in change) this.#idleTimeoutMs = this.#idleLimitMs()
      if ('sessionTimeoutSeconds' in change) {
        this.#sessionDeadlineMs = nowMs + this.#sessionLimitMs()
      }
      if ('quarantine' in change) this.#quarantineDeadlineMs = nowMs + this.#quarantineLimitMs()
      this.#host.wheel.schedule(this, this.#nextDeadlineMs())
    }
    this.log.info({ event: 'session-changed', changed: Object.keys(change) }, 'session changed')
    this.#host.changed(this)
    return undefined
  }

  /** Ends the quarantine; false when there is none. */
  release(): boolean {
    if (!this.#isQuarantined || this.#authorization === undefined) return false
    return this.change({ quarantine: undefined }) === undefined
  }

  /** Addresses are given and packets flow; from now on `usage` is asked. Logs the line up. */
  up(addresses: SessionAddresses, usage: () => SessionUsage): void {
    if (this.#state !== 'setup') return
    const { clock, wheel } = this.#host
    const nowMs = clock.nowMs()
    this.#state = 'up'
    this.#addresses = addresses
    this.#usage = usage
    this.#upMs = nowMs
    this.#idleTimeoutMs = this.#idleLimitMs()
    this.#sessionDeadlineMs = nowMs + this.#sessionLimitMs()
    this.#quarantineDeadlineMs = nowMs + this.#quarantineLimitMs()
    wheel.schedule(this, this.#nextDeadlineMs())
    const status = this.status()
    this.log.info(
      { event: 'session-up', user: status.userName, ipv4: status.ipv4, ipv6: status.ipv6 },
      'session up',
    )
    this.#host.up(this, status)
  }

  /** Addresses that came after `up`: the second network protocol. */
  addAddresses(addresses: SessionAddresses): void {
    this.#addresses = { ...this.#addresses, ...addresses }
    if (this.#state === 'up') this.#host.changed(this)
  }

  /** Asks the owners of its calls to close them; false when they are closing already. */
  disconnect(cause: DisconnectCause): boolean {
    if (this.#state === 'closing' || this.#state === 'ended') return false
    this.#state = 'closing'
    this.#cause = cause
    this.#host.wheel.schedule(this, this.#host.clock.nowMs() + closeTimeoutMs)
    if (this.#links === undefined) this.#call.close(cause)
    else this.#links.disconnect(cause)
    return true
  }

  /** The link with this number in the session, from 1. */
  link(number: number): SessionLink | undefined {
    return this.#links?.get(number)
  }

  /**
   * The call that it came in with is over; so is the session, unless links carry it on. Only the first
   * cause given here or to `disconnect` counts.
   */
  end(cause: DisconnectCause): void {
    if (this.#isCallOver) return
    this.#isCallOver = true
    const session = (this.#isLink ? this.#leader : undefined) ?? this
    const isLast = session.#loses(this, cause)
    this.#host.callOver(this)
    if (this.#isLink) this.#over(cause)
    if (isLast) session.#over(cause)
  }

  /** Nothing carries it any more; logs the line down. */
  #over(cause: DisconnectCause): void {
    if (this.#state === 'ended') return
    const effective = this.#cause ?? cause
    const wasUp = !Number.isNaN(this.#upMs)
    const status: SessionStatus = { ...this.status(), state: 'ended' }
    this.#state = 'ended'
    this.#cause = effective
    this.#usage = () => unused
    this.#host.wheel.cancel(this)
    if (wasUp) this.#logDown(status, effective)
    else if (!this.#isLink) {
      this.log.info({ event: 'call-failed', user: this.userName, cause: effective }, 'call failed')
    }
    this.#host.down(this, status, effective, wasUp)
  }

  onDeadline(nowMs: number): void {
    if (this.#state === 'closing') {
      this.end('nas-error')
    } else if (this.#state === 'up') {
      const endsMs = Math.min(this.#sessionDeadlineMs, this.#quarantineDeadlineMs)
      if (nowMs >= endsMs) this.disconnect('session-timeout')
      else if (nowMs >= this.#idleDeadlineMs()) this.disconnect('idle-timeout')
      else this.#host.wheel.schedule(this, this.#nextDeadlineMs())
    }
  }

  status(): SessionStatus {
    const { ipv4, ipv6 } = this.#addresses
    const nowMs = this.#host.clock.nowMs()
    const isCounted = !Number.isNaN(this.#upMs)
    const { receivedPackets, receivedBytes, sentPackets, sentBytes } = this.#usage()
    return {
      id: this.id,
      number: this.number,
      state: this.#state,
      protocol: this.protocol,
      peer: this.peerLabel,
      ...(this.userName !== undefined && { userName: this.userName }),
      ...(ipv4 !== undefined && { ipv4: formatIpv4(ipv4) }),
      ...(ipv6 !== undefined && { ipv6: formatIpv6Network(ipv6) }),
      ...(this.#policy !== undefined && { policy: this.#policy }),
      ...(this.#authorization?.filterName !== undefined && {
        filter: this.#authorization.filterName,
      }),
      ...(this.#isQuarantined && { isQuarantined: true }),
      ...(this.#links !== undefined && { bundle: this.#links.status() }),
      since: this.since,
      durationSeconds: isCounted ? Math.floor((nowMs - this.#upMs) / 1000) : 0,
      idleSeconds: isCounted ? Math.max(0, Math.floor((nowMs - this.#activeMs()) / 1000)) : 0,
      receivedPackets,
      receivedBytes,
      sentPackets,
      sentBytes,
    }
  }

  #enter(links: SessionLinks, disconnect: SessionLink['disconnect']): void {
    this.#asLink = { number: this.number, call: this.#call, since: this.since, disconnect }
    links.add(this.#asLink)
  }

  /** True when that was its last call. */
  #loses(call: Session, cause: DisconnectCause): boolean {
    const links = this.#links
    if (links === undefined) return true
    if (call.#asLink !== undefined) links.remove(call.#asLink)
    if (links.isEmpty) return true
    const left = { event: 'link-left', user: this.userName, cause: call.#cause ?? cause }
    call.log.info(left, 'link left its bundle')
    if (this.#state === 'up') this.#host.changed(this)
    return false
  }

  #activeMs(): number {
    return Math.max(this.#usage().lastActiveMs, this.#upMs)
  }

  #idleLimitMs(): number {
    return msOf(this.#authorization?.idleTimeoutSeconds) ?? this.#host.timeouts().idleTimeoutMs
  }

  #sessionLimitMs(): number {
    return (
      msOf(this.#authorization?.sessionTimeoutSeconds) ?? this.#host.timeouts().sessionTimeoutMs
    )
  }

  #quarantineLimitMs(): number {
    const seconds = this.#authorization?.quarantine?.timeoutSeconds
    return msOf(this.#isQuarantined ? seconds : undefined) ?? Number.POSITIVE_INFINITY
  }

  #idleDeadlineMs(): number {
    return this.#activeMs() + this.#idleTimeoutMs
  }

  /** Packets do not move the deadline; when it comes, `lastActiveMs` says whether it counts. */
  #nextDeadlineMs(): number {
    return Math.min(this.#idleDeadlineMs(), this.#sessionDeadlineMs, this.#quarantineDeadlineMs)
  }

  #logDown(status: SessionStatus, cause: DisconnectCause): void {
    const { userName, ipv4, ipv6, durationSeconds } = status
    const { receivedPackets, receivedBytes, sentPackets, sentBytes } = status
    this.log.info(
      {
        event: 'session-down',
        user: userName,
        ipv4,
        ipv6,
        durationSeconds,
        receivedBytes,
        receivedPackets,
        sentBytes,
        sentPackets,
        cause,
      },
      'session down',
    )
  }
}

/** 0 is no limit, as in RADIUS dictionaries of most servers. */
function msOf(seconds: number | undefined): number | undefined {
  if (seconds === undefined) return undefined
  return seconds === 0 ? Number.POSITIVE_INFINITY : seconds * 1000
}

/** Without what was taken away. */
function definedOnly(merged: object, userName: string): Authorization {
  const kept = Object.entries(merged).filter(([, value]) => value !== undefined)
  return { ...Object.fromEntries(kept), userName }
}

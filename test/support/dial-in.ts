/**
 * The server between its listener and its dataplane, made of the server's own classes: SSTP on a free
 * port of loopback, PPP calls, users, pools, sessions, and a dataplane whose host is two arrays. Time
 * stands still until the test moves it.
 */
import type { Authenticator } from '../../lib/aaa/authenticator.ts'
import { LocalAuthenticator } from '../../lib/aaa/local-authenticator.ts'
import { Lockout } from '../../lib/aaa/lockout.ts'
import { type SessionLimits, SessionRegistry } from '../../lib/aaa/session-registry.ts'
import { ConfigUserStore } from '../../lib/aaa/users/config-user-store.ts'
import { Ipv4Pool } from '../../lib/address/ipv4-pool.ts'
import { Ipv6Pool } from '../../lib/address/ipv6-pool.ts'
import type { AuthMethodName, UserConfig } from '../../lib/config.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { parseIpv4, parseIpv6 } from '../../lib/core/ip-address.ts'
import { createLogger } from '../../lib/core/log.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { createMemoryDataplane } from '../../lib/dataplane/index.ts'
import { type CallServices, PppCalls } from '../../lib/server/ppp-call.ts'
import { SstpListener, type SstpListenerOptions } from '../../lib/sstp/index.ts'
import { eventually, turn } from './eventually.ts'
import { ecdsaCertificate, type TestCertificate } from './sstp-certificates.ts'

export { eventually, turn } from './eventually.ts'

/** One line of the log, as a program reads it. */
export interface LogLine {
  readonly level: string
  readonly event: string
  readonly user?: string
  readonly ipv4?: string
  readonly cause?: string
  readonly reason?: string
  readonly text?: string
  readonly detail?: string
  readonly dropped?: Readonly<Record<string, number>>
  readonly droppedIpPackets?: number
  readonly receivedBytes?: number
  readonly receivedPackets?: number
  readonly sentBytes?: number
  readonly sentPackets?: number
}

export interface DialInOptions {
  readonly users?: readonly UserConfig[]
  readonly methods?: readonly AuthMethodName[]
  readonly limits?: Partial<SessionLimits>
  readonly isRequestable?: boolean
  /** `FROM-TO` of the IPv4 pool; `''` for none. */
  readonly ipv4?: string
  readonly hasIpv6?: boolean
  readonly mtuBytes?: number
  readonly authenticator?: Authenticator
  readonly attemptsPerUser?: number
  readonly sstp?: Partial<SstpListenerOptions>
}

export const serverIpv4 = '10.87.0.1'
export const dnsServers = ['10.87.0.53', '10.87.0.54'] as const
export const dnsIpv6 = 'fd87::53'
export const secretWord = 'Canary-p4ssword.dial'

export function userConfig(name: string, more: Partial<UserConfig> = {}): UserConfig {
  return {
    name,
    password: Secret.fromText(secretWord),
    dialIn: 'permit',
    groups: [],
    isDisabled: false,
    ...more,
  }
}

export function ipv4(text: string): number {
  const address = parseIpv4(text)
  if (address === undefined) throw new TypeError(text)
  return address
}

function ipv6(text: string): Uint8Array {
  const address = parseIpv6(text)
  if (address === undefined) throw new TypeError(text)
  return address
}

const protocols = { mschapv2: 'mschapv2', chap: 'chap-md5', pap: 'pap' } as const

const noLimits: SessionLimits = {
  sessions: Number.POSITIVE_INFINITY,
  sessionsPerUser: Number.POSITIVE_INFINITY,
  sessionsPerSource: Number.POSITIVE_INFINITY,
  sessionsPerProtocol: new Map(),
  idleTimeoutMs: Number.POSITIVE_INFINITY,
  sessionTimeoutMs: Number.POSITIVE_INFINITY,
}

/** One for all tests of a file: making keys takes longer than a call. */
export const firstCertificate: TestCertificate = ecdsaCertificate()

export class DialIn {
  readonly clock = new ManualClock(1_000_000)
  readonly wheel = new TimerWheel(this.clock.nowMs())
  readonly lines: LogLine[] = []
  /** The log as it was written. */
  readonly rawLines: string[] = []
  readonly log = createLogger('trace', {
    write: text => {
      this.rawLines.push(text)
      this.lines.push(JSON.parse(text))
    },
  })
  readonly dataplane
  /** The host behind the server. */
  readonly host
  readonly sessions: SessionRegistry
  readonly ipv4Pool: Ipv4Pool
  readonly ipv6Pool: Ipv6Pool | undefined
  readonly delegationPool = new Ipv6Pool({ address: ipv6('fd88::'), prefixLength: 40 }, 56)
  readonly users: ConfigUserStore
  /** That of the local users, whatever the calls ask. */
  readonly authenticator: Authenticator
  /** What calls of any protocol are made of. */
  readonly services: CallServices
  readonly calls: PppCalls
  readonly listener: SstpListener

  constructor(options: DialInOptions = {}) {
    const { clock, wheel, log } = this
    const { hasIpv6 = true, mtuBytes = 1400, methods = ['mschapv2'] } = options
    const { dataplane, memoryDevice } = createMemoryDataplane({
      mtuBytes,
      clock,
      ipv4Address: ipv4(serverIpv4),
      ipv6Address: ipv6('fd87::1'),
    })
    this.dataplane = dataplane
    this.host = memoryDevice
    dataplane.start()
    this.sessions = new SessionRegistry({
      limits: { ...noLimits, ...options.limits },
      clock,
      wheel,
      log,
    })
    this.users = new ConfigUserStore(options.users ?? [userConfig('alice'), userConfig('bob')])
    const [first = '', last = first] = (options.ipv4 ?? '10.87.0.10-10.87.0.40').split('-')
    this.ipv4Pool = new Ipv4Pool({
      ranges: first === '' ? [] : [{ first: ipv4(first), last: ipv4(last) }],
      serverAddress: ipv4(serverIpv4),
      reserved: () => this.users.fixedAddresses(),
      isRequestable: options.isRequestable ?? false,
    })
    this.ipv6Pool = hasIpv6
      ? new Ipv6Pool({ address: ipv6('fd87::'), prefixLength: 48 })
      : undefined
    const lockout = new Lockout(
      {
        attemptsPerUser: options.attemptsPerUser ?? 100,
        attemptsPerAddress: 1000,
        windowMs: 60_000,
        durationMs: 60_000,
      },
      clock,
    )
    this.authenticator = new LocalAuthenticator({ users: this.users, methods, lockout, log })
    this.services = {
      dataplane,
      clock,
      wheel,
      random: new SeededRandom(2026),
      sessions: this.sessions,
      authenticator: options.authenticator ?? this.authenticator,
      ipv4Pool: this.ipv4Pool,
      ipv6Pool: this.ipv6Pool,
      delegationPool: this.delegationPool,
      settings: {
        serverName: 'openras',
        authentication: methods.map(method => protocols[method]),
        mtuBytes,
        serverIpv4: ipv4(serverIpv4),
        dnsIpv4: dnsServers.map(ipv4),
        dnsIpv6: [ipv6(dnsIpv6)],
        winsIpv4: [],
        isRequestable: options.isRequestable ?? false,
      },
    }
    this.calls = new PppCalls(this.services)
    this.listener = new SstpListener({
      addresses: [{ host: '127.0.0.1', port: 0 }],
      certificates: [firstCertificate],
      hashes: ['sha256'],
      links: this.calls,
      dataplane,
      clock,
      wheel,
      random: new SeededRandom(87),
      log: log.child({ proto: 'sstp' }),
      ...options.sstp,
    })
  }

  get port(): number {
    return this.listener.status().addresses[0]?.port ?? 0
  }

  of(event: string): LogLine[] {
    return this.lines.filter(line => line.event === event)
  }

  /** Causes of the sessions that were up, in the order of their ends. */
  causes(): (string | undefined)[] {
    return this.of('session-down').map(line => line.cause)
  }

  count(name: string): number {
    return this.listener.status().counters[name] ?? 0
  }

  /** Lets time pass; timers fire in steps, and sockets get a turn of the event loop between them. */
  async elapse(durationMs: number, stepMs = 500): Promise<void> {
    for (let gone = 0; gone < durationMs; gone += stepMs) {
      this.clock.advance(Math.min(stepMs, durationMs - gone))
      this.wheel.advance(this.clock.nowMs())
      await turn()
    }
  }

  /** Resolves when `holds`; rejects when it does not come to that. */
  async until(holds: () => boolean): Promise<void> {
    await eventually(holds, () => JSON.stringify(this.lines.slice(-3)))
  }

  /** What a session took and has not given back; empty when all is well. */
  leaks(): string[] {
    const { freeCount, totalCount } = this.dataplane.streamSlots
    const leaks: string[] = []
    if (this.sessions.size > 0) leaks.push(`${this.sessions.size} sessions`)
    if (this.ipv4Pool.leasedCount > 0) leaks.push(`${this.ipv4Pool.leasedCount} IPv4 addresses`)
    if (this.ipv6Pool !== undefined && this.ipv6Pool.leasedCount > 0) {
      leaks.push(`${this.ipv6Pool.leasedCount} IPv6 prefixes`)
    }
    if (this.delegationPool.leasedCount > 0) leaks.push('delegated prefixes')
    if (freeCount < totalCount) leaks.push(`${totalCount - freeCount} slots`)
    if (this.listener.status().connections > 0) leaks.push('connections')
    if (this.wheel.size > 0) leaks.push(`${this.wheel.size} timers`)
    return leaks
  }

  async stop(): Promise<void> {
    this.sessions.drain()
    this.sessions.disconnectAll('nas-reboot')
    const stopped = this.listener.stop()
    for (let i = 0; i < 40 && this.listener.status().connections > 0; i++) await this.elapse(1000)
    await stopped
    this.dataplane.stop()
  }
}

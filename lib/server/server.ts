/** The composition root: the one place that knows everybody. Start, status, reload, stop. */
import type { Authenticator } from '../aaa/authenticator.ts'
import { FilterCatalogue } from '../aaa/filter-catalogue.ts'
import { LocalAuthenticator } from '../aaa/local-authenticator.ts'
import { Lockout } from '../aaa/lockout.ts'
import { AccessPolicies } from '../aaa/policy/access-policies.ts'
import type { SessionStatus } from '../aaa/session.ts'
import { SessionRegistry } from '../aaa/session-registry.ts'
import { TotpVerifier } from '../aaa/totp.ts'
import { ConfigUserStore } from '../aaa/users/config-user-store.ts'
import { SqliteUserStore } from '../aaa/users/sqlite-user-store.ts'
import type { UserStore } from '../aaa/users/user-store.ts'
import { networksOf } from '../address/ipv4-pool.ts'
import { ensureStateDirectory } from '../config/state-directory.ts'
import type { AuthMethodName, Config, Ipv4Range } from '../config.ts'
import { systemClock } from '../core/clock.ts'
import { messageOf } from '../core/errors.ts'
import { formatIpv4 } from '../core/ip-address.ts'
import type { Logger } from '../core/log.ts'
import { systemRandom } from '../core/random.ts'
import { TimerWheel } from '../core/timers.ts'
import type { DataplaneStatus } from '../dataplane/dataplane.ts'
import { createMemoryDataplane, type Dataplane, openDataplane } from '../dataplane/index.ts'
import { EapAuthenticator } from '../eap/authenticator.ts'
import type { EapServerMethodMaker } from '../eap/method.ts'
import type { Ikev2Status } from '../ikev2/listener.ts'
import type { AuthenticationProtocol } from '../ppp/settings.ts'
import type { PptpListener, PptpStatus } from '../pptp/index.ts'
import { Forwarding, type ForwardingStatus, TunInterface } from '../routing/index.ts'
import { SstpListener, type SstpStatus } from '../sstp/index.ts'
import { AddressService, type DhcpStatus } from './address-service.ts'
import { makeBundles } from './bundles.ts'
import { dhcpSettings } from './client-networks.ts'
import { type DirectoryParts, makeDirectory } from './directory-service.ts'
import { makeEapMethods, proofMethods } from './eap-methods.ts'
import { Ikev2Service, loadIkeParts } from './ikev2-service.ts'
import { insecureChoices } from './insecure-choices.ts'
import { IpsecService } from './ipsec-service.ts'
import { L2tpService, type L2tpServiceStatus } from './l2tp-service.ts'
import { type CallServices, type CallSettings, PppCalls } from './ppp-call.ts'
import { compressionSettings, makePptpListener } from './pptp-settings.ts'
import { RadiusService, type RadiusStatus } from './radius-service.ts'
import { serverAddresses, serverIpv6 } from './server-addresses.ts'
import { loadServerCertificates } from './server-certificates.ts'
import { productVersion } from './version.ts'

export interface ServerStatus {
  readonly name: string
  readonly version: string
  readonly pid: number
  readonly uptimeSeconds: number
  /** What is on although it is not safe, in words. */
  readonly warnings: readonly string[]
  readonly sstp?: SstpStatus
  readonly l2tp?: L2tpServiceStatus
  readonly pptp?: PptpStatus
  readonly ikev2?: Ikev2Status
  readonly radius?: RadiusStatus
  readonly dhcp?: DhcpStatus
  /** Of addresses that hosts beside us were asked for, by name. */
  readonly addressConflicts?: Record<string, number>
  readonly sessions: readonly SessionStatus[]
  readonly dataplane: DataplaneStatus
  readonly forwarding?: ForwardingStatus
}

export interface ReloadResult {
  readonly applied: readonly string[]
  readonly needsRestart: readonly string[]
}

/** Parts of the configuration that hold from `reload` on; all others wait for a restart. */
const reloadable: readonly (keyof Config)[] = [
  'auth',
  'eap',
  'ldap',
  'users',
  'policies',
  'filters',
  'limits',
  'log',
  'nat',
]

const protocolOf: Record<AuthMethodName, AuthenticationProtocol> = {
  mschapv2: 'mschapv2',
  chap: 'chap-md5',
  pap: 'pap',
}

export class Server {
  readonly #log: Logger
  readonly #clock = systemClock
  readonly #startedMs = systemClock.nowMs()
  readonly #wheel = new TimerWheel(systemClock.nowMs())
  readonly #sessions: SessionRegistry
  readonly #dataplane: Dataplane
  readonly #tun: TunInterface | undefined
  readonly #forwarding: Forwarding | undefined
  readonly #services: Mutable<CallServices>
  readonly #addresses: AddressService
  #directory: ReturnType<typeof makeDirectory>
  readonly #radius: RadiusService
  readonly #onDeviceLost: (reason: string) => void
  #config: Config
  #users: UserStore
  #lockout: Lockout
  readonly #totp = new TotpVerifier()
  #sstp: SstpListener | undefined
  #l2tp: L2tpService | undefined
  #ipsec: IpsecService | undefined
  #pptp: PptpListener | undefined
  #ikev2: Ikev2Service | undefined
  #forwardingStatus: ForwardingStatus | undefined
  /** Changes of routes, one after the other. */
  #routing: Promise<void> = Promise.resolve()
  #routedText = comparable({ ipv4: [], ipv6: [] })
  #isStopped = false

  /** Opens the TUN device; throws ConfigError, StoreError or TunError. */
  constructor(config: Config, log: Logger, onDeviceLost: (reason: string) => void) {
    this.#config = config
    this.#log = log
    this.#onDeviceLost = onDeviceLost
    ensureStateDirectory(config.state.directory)
    this.#users = openUsers(config)
    this.#lockout = new Lockout(config.auth.lockout, this.#clock)
    const { limits, tun } = config
    this.#sessions = new SessionRegistry({
      limits,
      policies: new AccessPolicies(config.policies),
      filters: new FilterCatalogue(config.filters),
      clock: this.#clock,
      wheel: this.#wheel,
      log,
    })
    this.#dataplane = openPackets(config, reason => this.#loseDevice(reason))
    const isKernel = tun.backend !== 'memory'
    this.#tun = isKernel ? new TunInterface(this.#dataplane.status().tunName) : undefined
    this.#forwarding = isKernel ? new Forwarding() : undefined
    const radiusServices = {
      sessions: this.#sessions,
      clock: this.#clock,
      wheel: this.#wheel,
      random: systemRandom,
    }
    this.#radius = new RadiusService(config, radiusServices, log.child({ proto: 'radius' }))
    const parts = {
      dataplane: this.#dataplane,
      clock: this.#clock,
      wheel: this.#wheel,
      random: systemRandom,
    }
    const bundles = makeBundles(config, parts)
    const addressServices = {
      ...parts,
      fixedAddresses: () => this.#users.fixedAddresses(),
      onLost: (address: number) => this.#loseAddress(address),
    }
    this.#addresses = new AddressService(config, addressServices, log)
    this.#directory = makeDirectory(config, this.#directoryParts)
    this.#services = {
      ...parts,
      ...(bundles !== undefined && { bundles }),
      sessions: this.#sessions,
      authenticator: this.#makeAuthenticator(),
      ipv4Pool: this.#addresses,
      ipv6Pool: this.#addresses.ipv6Pool,
      delegationPool: this.#addresses.delegationPool,
      settings: callSettings(config),
    }
    this.#sessions.observe(() => {
      this.#addresses.noteChange()
      this.#routeSessions()
    })
    this.#sessions.observeChanges(() => this.#routeSessions())
  }

  /** Addresses, routes, forwarding, listeners. What was done is undone when a step fails. */
  async start(): Promise<void> {
    try {
      this.#wheel.start(this.#clock)
      await this.#openNetwork()
      this.#dataplane.start()
      await this.#radius.start()
      await this.#startAddresses()
      await this.#listen()
    } catch (error) {
      await this.stop()
      throw error
    }
    for (const warning of insecureChoices(this.#config)) {
      this.#log.warn({ event: 'insecure-choice', warning }, 'insecure choice')
    }
    this.#log.info({ event: 'started', version: productVersion }, 'server started')
  }

  status(): ServerStatus {
    const radius = this.#radius.status()
    const dhcp = this.#addresses.status()
    const addressConflicts = this.#addresses.conflicts()
    return {
      name: this.#config.server.name,
      version: productVersion,
      pid: process.pid,
      uptimeSeconds: Math.floor((this.#clock.nowMs() - this.#startedMs) / 1000),
      warnings: insecureChoices(this.#config),
      ...(this.#sstp !== undefined && { sstp: this.#sstp.status() }),
      ...(this.#l2tp !== undefined && { l2tp: this.#l2tp.status() }),
      ...(this.#pptp !== undefined && { pptp: this.#pptp.status() }),
      ...(this.#ikev2 !== undefined && { ikev2: this.#ikev2.status() }),
      ...(radius !== undefined && { radius }),
      ...(dhcp !== undefined && { dhcp }),
      ...(addressConflicts !== undefined && { addressConflicts }),
      sessions: this.#sessions.list(),
      dataplane: this.#dataplane.status(),
      ...(this.#forwardingStatus !== undefined && { forwarding: this.#forwardingStatus }),
    }
  }

  /** Ends sessions by id, number or user name; how many. */
  disconnect(session: string): number {
    return this.#sessions.disconnect(session)
  }

  /** Ends quarantines by session id, number or user name; how many. */
  release(session: string): number {
    return this.#sessions.release(session)
  }

  /** Lifts the lock of a user name or an address after failed log-ins; false when there is none. */
  unlock(nameOrAddress: string): boolean {
    return this.#lockout.unlock(nameOrAddress)
  }

  /**
   * Records the packets between tunnels and host, without tunnel headers, to a new file. Resolves
   * when the time is over or the server stops. Throws SystemError when the file cannot be made.
   */
  async capture(path: string, durationMs: number, maxBytes: number): Promise<void> {
    const capture = this.#dataplane.capture({ path, maxBytes })
    this.#log.info({ event: 'capture', path, durationMs }, 'packets are being recorded')
    await new Promise<void>(resolve => {
      this.#wheel.schedule({ onDeadline: () => resolve() }, this.#clock.nowMs() + durationMs)
    })
    capture.stop()
  }

  /** Takes over what can change under live sessions. Throws and changes nothing on a bad certificate. */
  async reload(config: Config): Promise<ReloadResult> {
    const certificates =
      this.#sstp === undefined ? undefined : loadServerCertificates(config, this.#log)
    const ike = this.#ikev2 === undefined ? undefined : loadIkeParts(config)
    const applyL2tp = this.#l2tp?.prepare(config)
    const eapMethods = this.#makeEapMethods(config)
    const directory = makeDirectory(config, this.#directoryParts)
    const before = this.#config
    const changed = changedParts(before, config)
    const applied: string[] = changed.filter(key => reloadable.includes(key))
    if (certificates !== undefined) {
      this.#sstp?.reloadCertificates(certificates)
      applied.push('certificates')
    }
    const held = { ...before }
    for (const key of reloadable) {
      if (config[key] === undefined) Reflect.deleteProperty(held, key)
      else Object.assign(held, { [key]: config[key] })
    }
    this.#config = {
      ...held,
      sstp: { ...held.sstp, certificates: config.sstp.certificates },
      ikev2: {
        ...config.ikev2,
        isEnabled: before.ikev2.isEnabled,
        takesPlainEsp: before.ikev2.takesPlainEsp,
        tcpPort: before.ikev2.tcpPort,
      },
      l2tp: {
        ...config.l2tp,
        isEnabled: before.l2tp.isEnabled,
        isAllowedWithoutIpsec: before.l2tp.isAllowedWithoutIpsec,
      },
    }
    this.#sessions.setLimits(config.limits)
    this.#sessions.setPolicies(
      new AccessPolicies(config.policies),
      new FilterCatalogue(config.filters),
    )
    this.#log.level = config.log.level
    if (changed.includes('users')) this.#users = openUsers(this.#config)
    if (!isSame(before.auth.lockout, config.auth.lockout)) {
      this.#lockout = new Lockout(config.auth.lockout, this.#clock)
    }
    this.#directory = directory
    this.#services.authenticator = this.#makeAuthenticator()
    this.#services.settings = callSettings(this.#config)
    this.#setEap(eapMethods)
    if (ike !== undefined) this.#ikev2?.reload(this.#config, ike, this.#services)
    if (changed.includes('ikev2')) {
      applied.push('ikev2')
      await this.#configureTun()
    }
    applyL2tp?.()
    if (changed.includes('l2tp')) applied.push('l2tp')
    if (changed.includes('nat')) await this.#forward()
    this.#log.info({ event: 'reloaded', applied }, 'configuration reloaded')
    const sstpChanged =
      changed.includes('sstp') &&
      !isSame(
        { ...before.sstp, certificates: undefined },
        { ...config.sstp, certificates: undefined },
      )
    const ikev2Changed =
      before.ikev2.isEnabled !== config.ikev2.isEnabled ||
      before.ikev2.takesPlainEsp !== config.ikev2.takesPlainEsp ||
      before.ikev2.tcpPort !== config.ikev2.tcpPort
    const l2tpChanged =
      before.l2tp.isEnabled !== config.l2tp.isEnabled ||
      before.l2tp.isAllowedWithoutIpsec !== config.l2tp.isAllowedWithoutIpsec
    return {
      applied,
      needsRestart: changed.filter(
        key =>
          !reloadable.includes(key) &&
          (key !== 'sstp' || sstpChanged) &&
          (key !== 'ikev2' || ikev2Changed) &&
          (key !== 'l2tp' || l2tpChanged),
      ),
    }
  }

  /** Ends all sessions in an orderly way and puts everything back. May be called twice. */
  async stop(): Promise<void> {
    if (this.#isStopped) return
    this.#isStopped = true
    this.#sessions.drain()
    this.#sessions.disconnectAll('nas-reboot')
    await Promise.all([
      this.#attempt('sstp', () => this.#sstp?.stop()),
      this.#attempt('pptp', () => this.#pptp?.stop()),
      this.#attempt('l2tp', () => this.#l2tp?.stop()),
      this.#attempt('ikev2', () => this.#ikev2?.stop()),
    ])
    await this.#attempt('ipsec', () => this.#ipsec?.close())
    await this.#attempt('radius', () => this.#radius.stop())
    await this.#attempt('addresses', () => this.#addresses.stop())
    this.#dataplane.flush()
    await this.#routing
    await this.#attempt('forwarding', () => this.#forwarding?.revert())
    await this.#attempt('tun', () => this.#tun?.teardown())
    this.#dataplane.stop()
    this.#wheel.stop()
    this.#log.info({ event: 'stopped' }, 'server stopped')
  }

  async #startAddresses(): Promise<void> {
    await this.#addresses.start()
    const { informRelay } = this.#addresses
    if (informRelay !== undefined) this.#services.informRelay = informRelay
  }

  /** Its DHCP server gives it to somebody else. */
  #loseAddress(address: number): void {
    const text = formatIpv4(address)
    const [lost] = this.#sessions.list().filter(({ ipv4 }) => ipv4 === text)
    if (lost !== undefined) this.#sessions.disconnect(lost.id, 'no-address')
  }

  async #openNetwork(): Promise<void> {
    await this.#configureTun()
    await this.#forward()
  }

  /** Networks behind clients are routed to the TUN device while their sessions are up. */
  #routeSessions(): void {
    const networks = this.#sessions.networks()
    const text = comparable(networks)
    if (text === this.#routedText || this.#isStopped) return
    this.#routedText = text
    this.#routing = this.#routing
      .then(() => (this.#isStopped ? undefined : this.#configureTun()))
      .catch((error: unknown) => {
        this.#log.warn({ event: 'route-failed', reason: messageOf(error) }, 'not routed')
      })
  }

  async #configureTun(): Promise<void> {
    const { addresses, ikev2, tun } = this.#config
    const framed = this.#sessions.networks()
    const sites = ikev2.isEnabled ? ikev2.sites.flatMap(site => site.remoteNetworks) : []
    await this.#tun?.configure({
      mtuBytes: tun.mtuBytes,
      serverIpv4: addresses.server,
      serverIpv6: serverIpv6(this.#config),
      ipv4Networks: [
        ...clientRanges(this.#config).flatMap(networksOf),
        ...sites.filter(network => network.family === 4),
        ...framed.ipv4,
      ],
      ipv6Networks: [
        ...(addresses.ipv6 === undefined ? [] : [addresses.ipv6]),
        ...(addresses.delegated === undefined ? [] : [addresses.delegated.prefix]),
        ...sites.filter(network => network.family === 6),
        ...framed.ipv6,
      ],
    })
  }

  async #forward(): Promise<void> {
    const { addresses, access, nat } = this.#config
    this.#forwardingStatus = await this.#forwarding?.apply({
      tunName: this.#dataplane.status().tunName,
      access,
      ipv4Networks: clientRanges(this.#config).flatMap(networksOf),
      hasIpv6: addresses.ipv6 !== undefined,
      natInterface: nat.isEnabled ? (nat.interface ?? 'auto') : undefined,
    })
  }

  /** Throws CertificateError. */
  #makeEapMethods(config: Config): readonly EapServerMethodMaker[] {
    const users = () => this.#users
    return makeEapMethods({ config, users, random: systemRandom, log: this.#log })
  }

  #setEap(methods: readonly EapServerMethodMaker[]): void {
    const relayed = this.#radius.conversations(this.#lockout)
    this.#services.eapMethods = methods
    this.#services.eap = relayed ?? (lowerLayer => new EapAuthenticator({ ...lowerLayer, methods }))
    if (relayed !== undefined) this.#services.relayedEap = relayed
  }

  async #listen(): Promise<void> {
    this.#setEap(this.#makeEapMethods(this.#config))
    await this.#listenSstp()
    await this.#listenPptp()
    await this.#listenIpsec()
  }

  async #listenIpsec(): Promise<void> {
    const { ikev2, l2tp, tun } = this.#config
    if (!ikev2.isEnabled && !l2tp.isEnabled) return
    if (tun.backend === 'memory') {
      this.#log.info({ event: 'ipsec-off' }, 'no ipsec: the memory backend has no datagram sockets')
      return
    }
    const ipsec = new IpsecService(this.#config, this.#services, this.#log)
    this.#ipsec = ipsec
    if (ikev2.isEnabled) {
      const parts = loadIkeParts(this.#config)
      this.#ikev2 = new Ikev2Service(this.#config, parts, this.#services, ipsec, () => this.#users)
    }
    if (l2tp.isEnabled) {
      const log = this.#log.child({ proto: 'l2tp' })
      this.#l2tp = new L2tpService(this.#config, this.#services, ipsec, log)
    }
    ipsec.open()
    await ipsec.openStreams()
  }

  async #listenSstp(): Promise<void> {
    const { sstp } = this.#config
    if (!sstp.isEnabled) return
    const listener = new SstpListener({
      addresses: serverAddresses(this.#config).map(host => ({ host, port: sstp.port })),
      certificates: loadServerCertificates(this.#config, this.#log),
      hashes: sstp.hashes,
      links: new PppCalls(this.#services),
      dataplane: this.#dataplane,
      clock: this.#clock,
      wheel: this.#wheel,
      random: systemRandom,
      log: this.#log.child({ proto: 'sstp' }),
      proxyNetworks: sstp.proxyProtocolFrom,
    })
    await listener.start()
    this.#sstp = listener
  }

  async #listenPptp(): Promise<void> {
    if (!this.#config.pptp.isEnabled) return
    const listener = makePptpListener(this.#config, this.#services, this.#log)
    await listener.start()
    this.#pptp = listener
  }

  #makeAuthenticator(): Authenticator {
    const { auth, eap } = this.#config
    const parts = {
      users: this.#users,
      methods: proofMethods(auth, eap),
      lockout: this.#lockout,
    }
    const local = new LocalAuthenticator({ ...parts, totp: this.#totp, log: this.#log })
    const beside = this.#directory?.({ ...parts, local }) ?? local
    return this.#radius.authenticator(auth.methods, beside, this.#lockout)
  }

  get #directoryParts(): DirectoryParts {
    return { clock: this.#clock, wheel: this.#wheel, log: this.#log }
  }

  #loseDevice(reason: string): void {
    this.#log.error({ event: 'tun-lost', reason }, 'the tun device is gone')
    this.#onDeviceLost(reason)
  }

  /** On the way down one failure must not keep the next step from happening. */
  async #attempt(what: string, step: () => Promise<void> | undefined): Promise<void> {
    try {
      await step()
    } catch (error) {
      this.#log.error({ event: 'stop-fault', what, reason: messageOf(error) }, 'could not undo')
    }
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** All that clients may be given. */
function clientRanges({ addresses }: Config): readonly Ipv4Range[] {
  return [...addresses.ipv4, ...[...addresses.pools.values()].flatMap(({ ranges }) => ranges)]
}

function openUsers(config: Config): UserStore {
  return config.users === undefined
    ? SqliteUserStore.open(config.state.directory)
    : new ConfigUserStore(config.users)
}

function openPackets(config: Config, onDeviceLost: (reason: string) => void): Dataplane {
  const { tun, addresses, access } = config
  const ipv6Address = serverIpv6(config)
  const options = {
    mtuBytes: tun.mtuBytes,
    ipv4Address: addresses.server,
    ...(ipv6Address !== undefined && { ipv6Address }),
    clientToClient: access === 'all',
    onDeviceLost,
  }
  if (tun.backend === 'memory') return createMemoryDataplane(options).dataplane
  return openDataplane({
    ...options,
    backend: tun.backend === 'auto' ? 'best' : tun.backend,
    tunName: tun.name,
  })
}

function callSettings(config: Config): CallSettings {
  const { addresses, auth, eap, radius, server, tun } = config
  const hasEap = eap.methods.length > 0 || radius.authentication.relaysEap
  const compression = compressionSettings(config)
  return {
    serverName: server.name,
    authentication: [
      ...(hasEap ? (['eap'] as const) : []),
      ...auth.methods.map(method => protocolOf[method]),
    ],
    mtuBytes: tun.mtuBytes,
    serverIpv4: addresses.server,
    dnsIpv4: addresses.dnsIpv4,
    dnsIpv6: addresses.dnsIpv6,
    winsIpv4: addresses.winsIpv4,
    isRequestable: addresses.isRequestable,
    dhcp: dhcpSettings(config),
    ...(compression !== undefined && { compression }),
  }
}

/** Users in the configuration always count as changed: their secrets cannot be compared as JSON. */
function changedParts(before: Config, after: Config): (keyof Config)[] {
  return (Object.keys({ ...before, ...after }) as (keyof Config)[]).filter(key =>
    key === 'users'
      ? before.users !== undefined || after.users !== undefined
      : !isSame(before[key], after[key]),
  )
}

function isSame(a: unknown, b: unknown): boolean {
  return comparable(a) === comparable(b)
}

function comparable(value: unknown): string {
  return JSON.stringify(value ?? null, (_, part: unknown) => {
    if (part instanceof Map) return [...part]
    return part === Number.POSITIVE_INFINITY ? 'Infinity' : part
  })
}

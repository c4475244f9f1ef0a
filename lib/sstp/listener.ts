/** The SSTP server: sockets, limits and certificates around the calls ([MS-SSTP] §3.3). */
import { createServer, type Server, type Socket } from 'node:net'
import type { Clock, WallClock } from '../core/clock.ts'
import { systemWallClock } from '../core/clock.ts'
import { BindError, messageOf } from '../core/errors.ts'
import {
  type Ipv4Network,
  type Ipv6Network,
  isInIpv4Network,
  isInIpv6Network,
  parseIpv4,
  parseIpv6,
} from '../core/ip-address.ts'
import type { Logger } from '../core/log.ts'
import type { RandomSource } from '../core/random.ts'
import type { TimerWheel } from '../core/timers.ts'
import type { Dataplane } from '../dataplane/dataplane.ts'
import type { LinkFactory } from '../ppp/carrier.ts'
import type { CallCounters } from './call.ts'
import { HandshakeRate } from './handshake-rate.ts'
import { LandingPlaces } from './landing-places.ts'
import { Refusals } from './refusals.ts'
import { type ConnectionContext, ServerConnection } from './server-connection.ts'
import { type CertificatePair, TlsAcceptor } from './tls-acceptor.ts'
import type { HashName } from './wire/attribute.ts'

export interface SstpAddress {
  /** `::` is IPv6 and IPv4, and IPv4 alone on a machine without IPv6. */
  readonly host: string
  /** 0 takes any free port: `status` says which. */
  readonly port: number
}

export type ProxyNetwork =
  | ({ readonly family: 4 } & Ipv4Network)
  | ({ readonly family: 6 } & Ipv6Network)

export interface SstpLimits {
  /** Connections in any stage. */
  readonly connections: number
  /** Connections of one client address in any stage; many users may share one behind a NAT. */
  readonly connectionsPerAddress: number
  /** Connections whose binding is not verified yet. */
  readonly unfinished: number
  /**
   * An unfinished connection is left alone for this long; when there are too many, older ones make
   * room for a new one. So slow strangers cannot keep quick clients out.
   */
  readonly unfinishedGraceMs: number
  /** Handshakes that one client address may start in a second. */
  readonly handshakesPerSecond: number
  /** For PROXY header and TLS handshake together. */
  readonly handshakeMs: number
  readonly httpHeadMs: number
}

export const defaultLimits: SstpLimits = {
  connections: 20_000,
  connectionsPerAddress: 4_096,
  unfinished: 2_048,
  unfinishedGraceMs: 1_000,
  handshakesPerSecond: 250,
  handshakeMs: 10_000,
  httpHeadMs: 10_000,
}

export interface SstpListenerOptions {
  readonly addresses: readonly SstpAddress[]
  /** One per kind of key: RSA and ECDSA may stand side by side. */
  readonly certificates: readonly CertificatePair[]
  /** Offered for the crypto binding. */
  readonly hashes: readonly HashName[]
  readonly links: LinkFactory
  readonly dataplane: Dataplane
  readonly clock: Clock
  readonly wallClock?: WallClock
  readonly wheel: TimerWheel
  readonly random: RandomSource
  readonly log: Logger
  readonly limits?: Partial<SstpLimits>
  /** Peers from here must speak the PROXY protocol; all others must not. */
  readonly proxyNetworks?: readonly ProxyNetwork[]
}

export interface SstpStatus {
  readonly addresses: readonly SstpAddress[]
  readonly connections: number
  /** Of these, not verified yet. */
  readonly unfinished: number
  /** Verified calls. */
  readonly established: number
  readonly counters: Readonly<Record<string, number>>
}

export class SstpListener {
  readonly #options: SstpListenerOptions
  readonly #limits: SstpLimits
  readonly #context: ConnectionContext
  readonly #acceptor: TlsAcceptor
  readonly #refusals: Refusals
  readonly #rate: HandshakeRate
  readonly #servers: Server[] = []
  readonly #connections = new Set<ServerConnection>()
  /** In the order of arrival: the first is the oldest. */
  readonly #unfinished = new Set<ServerConnection>()
  readonly #perAddress = new Map<string, number>()
  readonly #admitted = new Map<ServerConnection, string>()
  /** Counters of calls that have ended. */
  readonly #ended = new Map<string, number>()
  #accepted = 0
  #established = 0
  #stopped: Promise<void> | undefined
  #onEmpty: (() => void) | undefined

  /** Throws CertificateError. */
  constructor(options: SstpListenerOptions) {
    this.#options = options
    this.#limits = { ...defaultLimits, ...options.limits }
    this.#acceptor = new TlsAcceptor(options.certificates)
    this.#refusals = new Refusals(options.clock, options.log)
    this.#rate = new HandshakeRate(options.clock, this.#limits.handshakesPerSecond)
    const { dataplane, links, clock, wheel, random, hashes } = options
    this.#context = {
      dataplane,
      places: new LandingPlaces(dataplane),
      links,
      clock,
      wallClock: options.wallClock ?? systemWallClock,
      wheel,
      random,
      hashes,
      acceptor: this.#acceptor,
      refusals: this.#refusals,
      log: options.log,
      handshakeMs: this.#limits.handshakeMs,
      httpHeadMs: this.#limits.httpHeadMs,
      admit: connection => this.#admit(connection),
      established: connection => {
        this.#established++
        this.#unfinished.delete(connection)
      },
      closed: connection => this.#forget(connection),
    }
  }

  /** Opens all addresses or none; throws BindError. */
  async start(): Promise<void> {
    try {
      for (const address of this.#options.addresses) this.#servers.push(await this.#listen(address))
    } catch (error) {
      for (const server of this.#servers.splice(0)) server.close()
      throw error
    }
  }

  /** For handshakes from now on; calls keep the certificate that they were bound to. Throws CertificateError. */
  reloadCertificates(certificates: readonly CertificatePair[]): void {
    this.#acceptor.reload(certificates)
    this.#options.log.info({ event: 'sstp-certificates' }, 'sstp certificates reloaded')
  }

  /** Takes no more connections, ends the calls in an orderly way and waits for them. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  async #stop(): Promise<void> {
    for (const server of this.#servers.splice(0)) server.close()
    for (const connection of [...this.#connections]) connection.shutDown('nas-reboot')
    if (this.#connections.size === 0) return
    await new Promise<void>(resolve => {
      this.#onEmpty = resolve
    })
  }

  status(): SstpStatus {
    const counters = new Map(this.#ended)
    let established = 0
    for (const connection of this.#connections) {
      if (connection.call !== undefined) addCounters(counters, connection.call.counters)
      if (connection.stage === 'call' && !this.#unfinished.has(connection)) established++
    }
    return {
      addresses: this.#servers.map(boundAddress),
      connections: this.#connections.size,
      unfinished: this.#unfinished.size,
      established,
      counters: {
        accepted: this.#accepted,
        established: this.#established,
        ...this.#refusals.counters.toJSON(),
        ...Object.fromEntries(counters),
      },
    }
  }

  async #listen(address: SstpAddress): Promise<Server> {
    try {
      return await this.#open(address)
    } catch (error) {
      const isWithoutIpv6 =
        error instanceof Error && 'code' in error && error.code === 'EAFNOSUPPORT'
      if (address.host === '::' && isWithoutIpv6) {
        return this.#listen({ host: '0.0.0.0', port: address.port })
      }
      const message = `cannot listen for SSTP on ${address.host} port ${address.port}: ${messageOf(error)}`
      throw new BindError(message, { cause: error })
    }
  }

  #open({ host, port }: SstpAddress): Promise<Server> {
    const server = createServer({ noDelay: true }, socket => this.#accept(socket))
    return new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen({ host, port, backlog: 1024 }, () => {
        server.off('error', reject)
        // Out of file descriptors, mostly: the connection is lost, the listener is not.
        server.on('error', (error: NodeJS.ErrnoException) => {
          this.#refusals.note('accept-failed', host, error.code)
        })
        resolve(server)
      })
    })
  }

  #accept(socket: Socket): void {
    this.#accepted++
    if (this.#stopped !== undefined || this.#connections.size >= this.#limits.connections) {
      const reason = this.#stopped !== undefined ? 'refused-stopping' : 'refused-connections'
      this.#refusals.note(reason, socket.remoteAddress ?? '')
      socket.destroy()
      return
    }
    if (!this.#makeRoom()) {
      this.#refusals.note('refused-unfinished', socket.remoteAddress ?? '')
      socket.destroy()
      return
    }
    const connection = new ServerConnection(socket, this.#context)
    this.#connections.add(connection)
    this.#unfinished.add(connection)
    connection.start(this.#isProxy(connection.address))
  }

  /** Whether one more unfinished connection may come; the oldest may have to go for it. */
  #makeRoom(): boolean {
    if (this.#unfinished.size < this.#limits.unfinished) return true
    const [oldest] = this.#unfinished
    if (oldest === undefined) return false
    const ageMs = this.#options.clock.nowMs() - oldest.acceptedMs
    if (ageMs < this.#limits.unfinishedGraceMs) return false
    this.#refusals.note('evicted-unfinished', oldest.address, oldest.stage)
    this.#unfinished.delete(oldest)
    oldest.destroy()
    return true
  }

  #admit(connection: ServerConnection): boolean {
    const { address } = connection
    const count = this.#perAddress.get(address) ?? 0
    if (count >= this.#limits.connectionsPerAddress) {
      this.#refusals.note('refused-address', address)
      return false
    }
    if (!this.#rate.take(address)) {
      this.#refusals.note('refused-rate', address)
      return false
    }
    this.#perAddress.set(address, count + 1)
    this.#admitted.set(connection, address)
    return true
  }

  #forget(connection: ServerConnection): void {
    this.#connections.delete(connection)
    this.#unfinished.delete(connection)
    const address = this.#admitted.get(connection)
    if (address !== undefined) {
      this.#admitted.delete(connection)
      const left = (this.#perAddress.get(address) ?? 1) - 1
      if (left === 0) this.#perAddress.delete(address)
      else this.#perAddress.set(address, left)
    }
    if (connection.call !== undefined) addCounters(this.#ended, connection.call.counters)
    if (this.#connections.size === 0) this.#onEmpty?.()
  }

  #isProxy(address: string): boolean {
    const ipv4 = parseIpv4(address)
    const ipv6 = parseIpv6(address)
    return (this.#options.proxyNetworks ?? []).some(network =>
      network.family === 4
        ? ipv4 !== undefined && isInIpv4Network(network, ipv4)
        : ipv6 !== undefined && isInIpv6Network(network, ipv6),
    )
  }
}

function addCounters(sum: Map<string, number>, counters: CallCounters): void {
  for (const [name, count] of Object.entries(counters)) {
    sum.set(name, (sum.get(name) ?? 0) + count)
  }
}

function boundAddress(server: Server): SstpAddress {
  const bound = server.address()
  return typeof bound === 'object' && bound !== null
    ? { host: bound.address, port: bound.port }
    : { host: '', port: 0 }
}

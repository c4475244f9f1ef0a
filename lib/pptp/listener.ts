/** The PPTP server: TCP port 1723, one raw GRE socket, and limits around the control connections. */
import { createServer, type Server, type Socket } from 'node:net'
import type { Clock } from '../core/clock.ts'
import { BindError, messageOf } from '../core/errors.ts'
import { Counters } from '../core/faults.ts'
import { parseIpv4, unmapped } from '../core/ip-address.ts'
import type { Logger } from '../core/log.ts'
import type { RandomSource } from '../core/random.ts'
import type { TimerWheel, WheelEntry } from '../core/timers.ts'
import type { Dataplane, PacketSocket } from '../dataplane/index.ts'
import type { LinkFactory } from '../ppp/carrier.ts'
import { ControlConnection } from './control-connection.ts'
import { GreHub } from './gre-hub.ts'
import { Remarks } from './remarks.ts'

/** Specification constant, RFC 2637 §1.3. */
export const PPTP_PORT = 1723

/** The last bytes of a connection may take this long. */
const GOODBYE_MS = 2_000

export interface PptpAddress {
  /** IPv4: enhanced GRE is not spoken over IPv6 by anybody. */
  readonly host: string
  /** 0 takes any free port. */
  readonly port: number
}

export interface PptpLimits {
  readonly connections: number
  readonly connectionsPerAddress: number
  /** Connections without a call. */
  readonly unfinished: number
  /** An unfinished connection is left alone for this long; then older ones make room for new ones. */
  readonly unfinishedGraceMs: number
  readonly callsPerConnection: number
}

export const defaultLimits: PptpLimits = {
  connections: 10_000,
  connectionsPerAddress: 1_024,
  unfinished: 512,
  unfinishedGraceMs: 1_000,
  callsPerConnection: 16,
}

export interface PptpListenerOptions {
  readonly addresses: readonly PptpAddress[]
  readonly hostName: string
  readonly links: LinkFactory
  readonly dataplane: Dataplane
  /** For IP protocol 47; closed by `stop`. */
  readonly socket: PacketSocket
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
  readonly log: Logger
  readonly limits?: Partial<PptpLimits>
  /** Whether packets wait while a client's window is full; not by default. */
  readonly obeysWindow?: boolean
}

export interface PptpStatus {
  readonly addresses: readonly PptpAddress[]
  readonly connections: number
  /** Of these, without a call. */
  readonly unfinished: number
  readonly calls: number
  readonly counters: Readonly<Record<string, number>>
}

interface Accepted {
  readonly connection: ControlConnection
  readonly socket: Socket
  readonly address: string
  readonly acceptedMs: number
}

export class PptpListener {
  readonly #options: PptpListenerOptions
  readonly #limits: PptpLimits
  readonly #hub: GreHub
  readonly #remarks: Remarks
  readonly #servers: Server[] = []
  readonly #accepted = new Set<Accepted>()
  /** In the order of arrival: the first is the oldest. */
  readonly #unfinished = new Set<Accepted>()
  readonly #perAddress = new Map<string, number>()
  /** Counters of connections that have ended. */
  readonly #ended = new Counters()
  #acceptedCount = 0
  #stopped: Promise<void> | undefined
  #onEmpty: (() => void) | undefined

  constructor(options: PptpListenerOptions) {
    this.#options = options
    this.#limits = { ...defaultLimits, ...options.limits }
    this.#remarks = new Remarks(options.clock, options.log)
    this.#hub = new GreHub(options.socket, options.dataplane, reason => {
      options.log.error({ event: 'pptp-gre-lost', reason }, 'the raw gre socket is gone')
    })
  }

  /** Opens all addresses or none; throws BindError. */
  async start(): Promise<void> {
    try {
      for (const address of this.#options.addresses) this.#servers.push(await this.#listen(address))
    } catch (error) {
      for (const server of this.#servers.splice(0)) server.close()
      this.#hub.close()
      throw error
    }
    this.#hub.start()
  }

  /** Takes no more connections, ends the calls in an orderly way and waits for them. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  status(): PptpStatus {
    const counters = new Counters()
    const add = (counts: Record<string, number>) => {
      for (const [name, count] of Object.entries(counts)) counters.count(name, count)
    }
    add(this.#ended.toJSON())
    let calls = 0
    for (const { connection } of this.#accepted) {
      calls += connection.callCount
      add(connection.counters)
    }
    return {
      addresses: this.#servers.map(boundAddress),
      connections: this.#accepted.size,
      unfinished: this.#unfinished.size,
      calls,
      counters: {
        accepted: this.#acceptedCount,
        ...this.#remarks.counters.toJSON(),
        ...counters.toJSON(),
        ...prefixed('gre-', this.#hub.counters),
      },
    }
  }

  async #stop(): Promise<void> {
    for (const server of this.#servers.splice(0)) server.close()
    for (const { connection } of [...this.#accepted]) connection.stop('nas-reboot')
    if (this.#accepted.size > 0) {
      await new Promise<void>(resolve => {
        this.#onEmpty = resolve
      })
    }
    this.#hub.close()
  }

  #listen({ host, port }: PptpAddress): Promise<Server> {
    const server = createServer({ noDelay: true }, socket => this.#accept(socket))
    return new Promise((resolve, reject) => {
      server.once('error', error => {
        const message = `cannot listen for PPTP on ${host} port ${port}: ${messageOf(error)}`
        reject(new BindError(message, { cause: error }))
      })
      server.listen({ host, port, backlog: 256 }, () => {
        server.removeAllListeners('error')
        // Out of file descriptors, mostly: the connection is lost, the listener is not.
        server.on('error', () => this.#remarks.note('accept-failed', host))
        resolve(server)
      })
    })
  }

  #accept(socket: Socket): void {
    this.#acceptedCount++
    socket.on('error', () => this.#remarks.note('socket-error', address))
    const address = unmapped(socket.remoteAddress ?? '')
    const peerAddress = parseIpv4(address)
    const localAddress = parseIpv4(unmapped(socket.localAddress ?? ''))
    const refusal = this.#refusalOf(address)
    if (refusal !== undefined || peerAddress === undefined || localAddress === undefined) {
      this.#remarks.note(refusal ?? 'refused-not-ipv4', address)
      socket.destroy()
      return
    }
    const accepted: Accepted = {
      connection: this.#connect(socket, address, { peerAddress, localAddress }, () => accepted),
      socket,
      address,
      acceptedMs: this.#options.clock.nowMs(),
    }
    this.#accepted.add(accepted)
    this.#unfinished.add(accepted)
    this.#perAddress.set(address, (this.#perAddress.get(address) ?? 0) + 1)
    socket.on('data', chunk => accepted.connection.receive(chunk))
    socket.once('end', () => accepted.connection.transportClosed())
    socket.once('close', () => this.#forget(accepted))
    accepted.connection.start()
  }

  #refusalOf(address: string): string | undefined {
    if (this.#stopped !== undefined) return 'refused-stopping'
    if (this.#accepted.size >= this.#limits.connections) return 'refused-connections'
    if ((this.#perAddress.get(address) ?? 0) >= this.#limits.connectionsPerAddress) {
      return 'refused-address'
    }
    return this.#makeRoom() ? undefined : 'refused-unfinished'
  }

  /** Whether one more unfinished connection may come; the oldest may have to go for it. */
  #makeRoom(): boolean {
    if (this.#unfinished.size < this.#limits.unfinished) return true
    const [oldest] = this.#unfinished
    if (oldest === undefined) return false
    const ageMs = this.#options.clock.nowMs() - oldest.acceptedMs
    if (ageMs < this.#limits.unfinishedGraceMs) return false
    this.#remarks.note('evicted-unfinished', oldest.address)
    this.#unfinished.delete(oldest)
    oldest.socket.destroy()
    return true
  }

  #connect(
    socket: Socket,
    address: string,
    addresses: { readonly peerAddress: number; readonly localAddress: number },
    self: () => Accepted,
  ): ControlConnection {
    const { links, dataplane, clock, wheel, random, hostName, log } = this.#options
    const { obeysWindow = false } = this.#options
    // A peer that keeps its side open keeps nothing of ours.
    const goodbye: WheelEntry = { onDeadline: () => socket.destroy() }
    return new ControlConnection(
      { address, port: socket.remotePort ?? 0 },
      {
        role: 'server',
        hostName,
        maxCalls: this.#limits.callsPerConnection,
        takeCallId: () => this.#hub.takeCallId(random),
      },
      {
        dataplane,
        hub: this.#hub,
        links,
        clock,
        wheel,
        stream: socket,
        ...addresses,
        obeysWindow,
        remark: counter => this.#remarks.note(counter, address),
        established: (peerName, vendorName) =>
          log.debug({ event: 'pptp-established', peer: address, peerName, vendorName }, 'pptp up'),
        callUp: () => this.#unfinished.delete(self()),
        callDown: cause => {
          this.#remarks.counters.count(`call-down-${cause}`)
          if (self().connection.callCount === 0) this.#unfinished.add(self())
        },
        ended: reason => {
          this.#remarks.counters.count(`closed-${reason}`)
          socket.end()
          wheel.schedule(goodbye, clock.nowMs() + GOODBYE_MS)
          socket.once('close', () => wheel.cancel(goodbye))
        },
      },
    )
  }

  #forget(accepted: Accepted): void {
    const { connection, address } = accepted
    connection.transportClosed()
    this.#accepted.delete(accepted)
    this.#unfinished.delete(accepted)
    const left = (this.#perAddress.get(address) ?? 1) - 1
    if (left === 0) this.#perAddress.delete(address)
    else this.#perAddress.set(address, left)
    for (const [name, count] of Object.entries(connection.counters)) {
      this.#ended.count(name, count)
    }
    if (this.#accepted.size === 0) this.#onEmpty?.()
  }
}

function prefixed(prefix: string, counts: Readonly<Record<string, number>>) {
  return Object.fromEntries(Object.entries(counts).map(([name, n]) => [prefix + name, n]))
}

function boundAddress(server: Server): PptpAddress {
  const bound = server.address()
  return typeof bound === 'object' && bound !== null
    ? { host: bound.address, port: bound.port }
    : { host: '', port: 0 }
}

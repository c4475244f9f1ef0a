/** A group of RADIUS servers on real sockets: the machine, its UDP ports and its TLS connections. */
import { createSocket, type Socket } from 'node:dgram'
import { isIPv6 } from 'node:net'
import type { Clock } from '../../core/clock.ts'
import { Driver } from '../../core/driver.ts'
import { assertNever } from '../../core/errors.ts'
import { Counters } from '../../core/faults.ts'
import { unmapped } from '../../core/ip-address.ts'
import type { Logger } from '../../core/log.ts'
import type { RandomSource } from '../../core/random.ts'
import type { TimerWheel } from '../../core/timers.ts'
import {
  type ClientEvent,
  type ClientInput,
  type RadiusAnswer,
  RadiusClientMachine,
  type RadiusRequest,
} from './client-machine.ts'
import { RadsecConnection, type RadsecIdentity } from './radsec-connection.ts'
import type { RadiusServerSettings } from './server-state.ts'
import type { RadiusAttribute } from './wire/packet.ts'

export interface RadiusServerEndpoint extends Omit<RadiusServerSettings, 'isReliable' | 'label'> {
  /** An IPv4 or IPv6 address. */
  readonly address: string
  readonly port: number
  /** Present: RADIUS over TLS. */
  readonly radsec?: RadsecIdentity
}

export interface RadiusClientOptions {
  readonly servers: readonly RadiusServerEndpoint[]
  readonly purpose: 'access' | 'accounting'
  /** From a request to its answer, or to the news that there is none, over all servers, ms. */
  readonly totalMs: number
  readonly identity: readonly RadiusAttribute[]
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
  readonly log: Logger
}

/** What accounting and authentication need of a group of servers. */
export interface RadiusExchange {
  /** Undefined when nobody answered in time. Never rejects. */
  request(request: RadiusRequest): Promise<RadiusAnswer | undefined>
}

/** What a turn of the event loop takes at most, ms. */
const longestTurnMs = 20

interface Transport {
  send(bytes: Uint8Array): void
  close(): void
}

export class RadiusClient implements RadiusExchange {
  readonly #options: RadiusClientOptions
  readonly #machine: RadiusClientMachine
  readonly #driver: Driver<ClientInput, ClientEvent>
  readonly #transports = new Map<string, Transport>()
  readonly #waiting = new Map<number, (answer: RadiusAnswer | undefined) => void>()
  /** What was dropped or failed, by name. */
  readonly counters = new Counters()
  #lastTicket = 0
  #isClosed = false

  constructor(options: RadiusClientOptions) {
    this.#options = options
    const { clock, wheel, random, totalMs, purpose, identity } = options
    this.#machine = new RadiusClientMachine({
      servers: options.servers.map(server => ({
        ...server,
        label: labelOf(server),
        isReliable: server.radsec !== undefined,
      })),
      random,
      totalMs: decisionMs(totalMs, wheel),
      purpose,
      identity,
    })
    this.#driver = new Driver(this.#machine, clock, wheel, {
      transmit: () => undefined,
      event: event => this.#onEvent(event),
    })
  }

  request(request: RadiusRequest): Promise<RadiusAnswer | undefined> {
    if (this.#isClosed) return Promise.resolve(undefined)
    const ticket = ++this.#lastTicket
    return new Promise(resolve => {
      this.#waiting.set(ticket, resolve)
      this.#driver.handle({ type: 'request', ticket, request })
    })
  }

  status(): ReturnType<RadiusClientMachine['status']> {
    return this.#machine.status(this.#options.clock.nowMs())
  }

  /** What waits is told that there is no answer. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#driver.close()
    for (const transport of this.#transports.values()) transport.close()
    this.#transports.clear()
    for (const resolve of this.#waiting.values()) resolve(undefined)
    this.#waiting.clear()
  }

  #onEvent(event: ClientEvent): void {
    const { log } = this.#options
    switch (event.type) {
      case 'send':
        this.#transport(event.server, event.socket)?.send(event.bytes)
        return
      case 'answer':
        this.#settle(event.ticket, event.answer)
        return
      case 'failed':
        this.counters.count(event.reason)
        this.#settle(event.ticket, undefined)
        return
      case 'dropped':
        this.counters.count(event.counter)
        log.debug({ event: 'radius-dropped', ...event, type: undefined }, 'radius packet dropped')
        return
      case 'server-dead':
        this.counters.count('server-dead')
        log.warn({ event: 'radius-server-dead', server: event.server }, 'radius server is silent')
        return
      case 'server-alive':
        log.info({ event: 'radius-server-alive', server: event.server }, 'radius server answers')
        return
      default:
        assertNever(event)
    }
  }

  #settle(ticket: number, answer: RadiusAnswer | undefined): void {
    const resolve = this.#waiting.get(ticket)
    this.#waiting.delete(ticket)
    resolve?.(answer)
  }

  #transport(server: number, socket: number): Transport | undefined {
    const key = `${server}/${socket}`
    const known = this.#transports.get(key)
    if (known !== undefined) return known
    const endpoint = this.#options.servers[server]
    if (endpoint === undefined) return undefined
    const made =
      endpoint.radsec === undefined
        ? this.#udp(endpoint, server, socket)
        : this.#radsec(endpoint, endpoint.radsec, server, socket)
    this.#transports.set(key, made)
    return made
  }

  /** A source port of its own. Packets of anybody but the server are counted and dropped. */
  #udp(endpoint: RadiusServerEndpoint, server: number, socket: number): Transport {
    const { address, port } = endpoint
    const udp: Socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4')
    let isOpen = true
    udp.on('message', (bytes, from) => {
      if (from.port !== port || unmapped(from.address) !== unmapped(address)) {
        this.counters.count('other-source')
        return
      }
      this.#driver.handle({ type: 'packet', server, socket, bytes })
    })
    udp.on('error', error => {
      this.counters.count('socket-error')
      this.#options.log.warn(
        { event: 'radius-socket-error', server: labelOf(endpoint), reason: error.message },
        'radius socket failed',
      )
    })
    udp.unref()
    return {
      send: bytes => {
        if (!isOpen) return
        udp.send(bytes, port, address, error => {
          // The packet is repeated, and then another server is asked.
          if (error !== null) this.counters.count('send-error')
        })
      },
      close: () => {
        isOpen = false
        udp.close()
      },
    }
  }

  #radsec(
    endpoint: RadiusServerEndpoint,
    identity: RadsecIdentity,
    server: number,
    socket: number,
  ): Transport {
    const { clock, wheel, log } = this.#options
    const { address, port } = endpoint
    return new RadsecConnection(
      { host: address, port, identity, clock, wheel },
      {
        packet: bytes => this.#driver.handle({ type: 'packet', server, socket, bytes }),
        lost: reason => {
          this.counters.count('connection-lost')
          log.info(
            { event: 'radius-connection-lost', server: labelOf(endpoint), reason },
            'radius connection lost',
          )
          this.#driver.handle({ type: 'socket-lost', server, socket })
        },
      },
    )
  }
}

/** When to give up so that it is known within `totalMs`: timers are late, never early. */
function decisionMs(totalMs: number, wheel: TimerWheel): number {
  return Math.max(totalMs - wheel.latenessMs - longestTurnMs, totalMs / 2)
}

function labelOf({ address, port }: RadiusServerEndpoint): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

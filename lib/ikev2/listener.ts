/**
 * Answers IKEv2: finds the connection that a message is for, and lets strangers in one by one. Before
 * a stranger costs a key exchange it counts as half-open; beyond a threshold it must show a cookie.
 */
import { toHex } from '../core/bytes.ts'
import { Counters, faultName } from '../core/faults.ts'
import { digest } from '../crypto/hash.ts'
import type { Envelope } from '../dataplane/datagrams.ts'
import type { IkeHandler } from '../ipsec/ike-sockets.ts'
import { CookieJar, readFirstRequest } from './cookie-jar.ts'
import {
  IkeConnection,
  type IkeConnectionOwner,
  type IkeServices,
  type IkeSettings,
  type TunnelLimits,
} from './ike-connection.ts'
import type { Path } from './path.ts'
import { pathOf } from './route.ts'
import { SpiMap } from './spi-map.ts'
import { checkHeader, parseHeader, SPI_BYTES } from './wire/header.ts'

/** RFC 8019 §4.4; the numbers of strongSwan but for sources, where many may share an address. */
export interface HalfOpenLimits {
  /** Half-open connections from which on cookies are asked for. */
  readonly cookieThreshold: number
  readonly total: number
  readonly perSource: number
}

export const defaultHalfOpenLimits: HalfOpenLimits = {
  cookieThreshold: 30,
  total: 1000,
  perSource: 20,
}

/** Who decides about callers. */
export interface IkeCallFactory {
  /** A caller at this path; undefined turns it away without an answer. */
  accept(path: Path): AcceptedCall | undefined
}

export interface AcceptedCall extends IkeConnectionOwner {
  readonly settings: IkeSettings
  readonly limits: TunnelLimits
  /** Called once, before anything else. */
  connect(connection: IkeConnection): void
}

export interface Ikev2ListenerOptions extends IkeServices {
  readonly calls: IkeCallFactory
  readonly halfOpen: HalfOpenLimits
}

export interface Ikev2Status {
  readonly addresses: readonly {
    readonly host: string
    readonly port: number
    readonly isTcp?: true
  }[]
  readonly established: number
  readonly halfOpen: number
  readonly childSas: number
  /** Present when TCP is taken: its connections. */
  readonly streams?: number
  /** Datagrams in and out, and everything that was refused, by reason. */
  readonly counters: Readonly<Record<string, number>>
}

interface HalfOpen {
  readonly source: string
  /** Under which its first request is known, for repetitions. */
  readonly request: string
}

/** How long `stop` waits for peers to answer our deletion, ms. */
const stopPatienceMs = 2000

export class Ikev2Listener implements IkeHandler {
  readonly #options: Ikev2ListenerOptions
  readonly #spis = new SpiMap({
    onEstablished: connection => this.#noLongerHalfOpen(connection),
    onClosed: connection => this.#onClosed(connection),
  })
  readonly #cookies: CookieJar
  readonly #halfOpen = new Map<IkeConnection, HalfOpen>()
  readonly #byRequest = new Map<string, IkeConnection>()
  readonly #perSource = new Map<string, number>()
  readonly #counters = new Counters()
  #onEmpty: (() => void) | undefined
  #isStopping = false

  constructor(options: Ikev2ListenerOptions) {
    this.#options = options
    this.#cookies = new CookieJar(options.random, options.clock.nowMs())
    options.sockets.handle(2, this)
  }

  status(): Ikev2Status {
    const { sockets, database } = this.#options
    const total: Record<string, number> = { ...this.#counters.toJSON() }
    for (const counters of [sockets.counters.toJSON(), database.drops.toJSON()]) {
      for (const [name, count] of Object.entries(counters)) total[name] = count
    }
    for (const port of sockets.ports) {
      for (const [name, count] of Object.entries(port.counters)) {
        if (count > 0) total[name] = (total[name] ?? 0) + Number(count)
      }
    }
    return {
      addresses: sockets.ports.map(({ bound }) => ({ host: bound.text, port: bound.port })),
      established: this.#spis.size - this.#halfOpen.size,
      halfOpen: this.#halfOpen.size,
      childSas: database.size,
      counters: total,
    }
  }

  /** Sends everybody to another gateway who would go (RFC 5685 §5). */
  redirect(gateway: string): void {
    for (const connection of [...this.#spis.connections]) {
      if (!this.#halfOpen.has(connection)) connection.handle({ type: 'redirect', gateway })
    }
  }

  /** Takes nobody in any more, and waits a while for the connections to end. */
  async stop(): Promise<void> {
    this.#isStopping = true
    for (const connection of [...this.#halfOpen.keys()]) {
      connection.handle({ type: 'close', cause: 'nas-reboot', detail: 'stopping' })
    }
    if (this.#spis.size > 0) {
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, stopPatienceMs)
        this.#onEmpty = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    this.#cookies.destroy()
  }

  message(bytes: Uint8Array, envelope: Envelope): void {
    const fault = checkHeader(bytes)
    if (fault) {
      this.#counters.count(`malformed-${faultName(fault)}`)
      return
    }
    const header = parseHeader(bytes)
    const connection = this.#spis.find(header)
    if (connection !== undefined) connection.message(bytes, envelope)
    else if (isZero(header.responderSpi)) this.#stranger(bytes, envelope)
    else this.#counters.count('unknown-ike-spi')
  }

  /** A request without a responder's SPI: new, or a repetition of one that was answered. */
  #stranger(bytes: Uint8Array, envelope: Envelope): void {
    const { calls, halfOpen, clock, sockets } = this.#options
    const request = readFirstRequest(bytes)
    if (request.fault) {
      this.#counters.count(`malformed-${faultName(request.fault)}`)
      return
    }
    const name = `${toHex(request.initiatorSpi)}${toHex(digest('sha256', bytes))}`
    const known = this.#byRequest.get(name)
    if (known !== undefined) {
      known.message(bytes, envelope)
      return
    }
    if (this.#isStopping) return
    const path = pathOf(envelope)
    const source = path.peer.address
    if (this.#halfOpen.size >= halfOpen.cookieThreshold) {
      const nowMs = clock.nowMs()
      if (!this.#cookies.isValid(request, source, nowMs)) {
        this.#counters.count('cookies-asked')
        const challenge = this.#cookies.challenge(request, source, nowMs)
        sockets.send(sockets.routeBack(envelope), challenge)
        return
      }
    }
    if (this.#halfOpen.size >= halfOpen.total) {
      this.#counters.count('refused-half-open-total')
      return
    }
    if ((this.#perSource.get(source) ?? 0) >= halfOpen.perSource) {
      this.#counters.count('refused-half-open-source')
      return
    }
    const call = calls.accept(path)
    if (call === undefined) {
      this.#counters.count('refused-call')
      return
    }
    this.#admit(call, { source, request: name }, bytes, envelope)
  }

  #admit(call: AcceptedCall, entry: HalfOpen, bytes: Uint8Array, envelope: Envelope): void {
    const connection = new IkeConnection(
      call.settings,
      this.#options.sockets.routeBack(envelope),
      this.#options,
      call.limits,
      call,
      this.#spis,
    )
    this.#halfOpen.set(connection, entry)
    this.#byRequest.set(entry.request, connection)
    this.#perSource.set(entry.source, (this.#perSource.get(entry.source) ?? 0) + 1)
    call.connect(connection)
    connection.message(bytes, envelope)
  }

  #noLongerHalfOpen(connection: IkeConnection): void {
    const entry = this.#halfOpen.get(connection)
    if (entry === undefined) return
    this.#halfOpen.delete(connection)
    this.#byRequest.delete(entry.request)
    const left = (this.#perSource.get(entry.source) ?? 1) - 1
    if (left > 0) this.#perSource.set(entry.source, left)
    else this.#perSource.delete(entry.source)
  }

  #onClosed(connection: IkeConnection): void {
    this.#noLongerHalfOpen(connection)
    for (const [name, count] of Object.entries(connection.counters.toJSON())) {
      this.#counters.count(name, count)
    }
    for (const [name, packets] of Object.entries(connection.tunnel.drops)) {
      this.#counters.count(`esp-${name}`, packets)
    }
    if (this.#spis.size === 0) this.#onEmpty?.()
  }
}

function isZero(spi: Uint8Array): boolean {
  for (let i = 0; i < SPI_BYTES; i++) if (spi[i] !== 0) return false
  return true
}

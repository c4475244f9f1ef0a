/**
 * One accepted connection, stage by stage: PROXY header, TLS, HTTP, call, goodbye. Every stage before
 * the call has a deadline, and the call's machine has its own.
 */
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { concatBytes, copyBytes, utf8 } from '../core/bytes.ts'
import type { Clock, WallClock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { faultName } from '../core/faults.ts'
import { unmapped } from '../core/ip-address.ts'
import type { Logger } from '../core/log.ts'
import type { RandomSource } from '../core/random.ts'
import type { TimerWheel, WheelEntry } from '../core/timers.ts'
import type { Dataplane } from '../dataplane/dataplane.ts'
import type { LinkFactory } from '../ppp/carrier.ts'
import { BurstStream } from './burst-stream.ts'
import { Call } from './call.ts'
import { landReads } from './landing.ts'
import type { LandingPlaces } from './landing-places.ts'
import { parseProxyHeader } from './proxy-protocol.ts'
import type { Refusals } from './refusals.ts'
import { ServerCallMachine } from './server-call-machine.ts'
import type { TlsAcceptor } from './tls-acceptor.ts'
import type { HashName } from './wire/attribute.ts'
import { acceptedText, HeadCollector, notFoundText, parseRequest } from './wire/http-head.ts'

/** Implementation constant: how long a last answer may take to leave. */
const GOODBYE_MS = 2_000

export type Stage = 'proxy' | 'tls' | 'http' | 'call' | 'goodbye'

export interface ConnectionContext {
  readonly dataplane: Dataplane
  readonly places: LandingPlaces
  readonly links: LinkFactory
  readonly clock: Clock
  readonly wallClock: WallClock
  readonly wheel: TimerWheel
  readonly random: RandomSource
  readonly hashes: readonly HashName[]
  readonly acceptor: TlsAcceptor
  readonly refusals: Refusals
  readonly log: Logger
  /** For PROXY header and TLS handshake together, and for the HTTP head. */
  readonly handshakeMs: number
  readonly httpHeadMs: number
  /** Asked once the client's address is known; false closes the connection, which is counted there. */
  admit(connection: ServerConnection): boolean
  /** The binding is verified: this is no stranger any more. */
  established(connection: ServerConnection): void
  closed(connection: ServerConnection): void
}

export class ServerConnection implements WheelEntry {
  readonly acceptedMs: number
  /** The client's address; the balancer's until its header is read. */
  address: string
  call: Call | undefined
  readonly #context: ConnectionContext
  readonly #raw: Socket
  #port: number
  #stage: Stage = 'tls'
  #tls: TLSSocket | undefined
  #burst: BurstStream | undefined
  #head: HeadCollector | undefined

  constructor(raw: Socket, context: ConnectionContext) {
    this.#raw = raw
    this.#context = context
    this.acceptedMs = context.clock.nowMs()
    this.address = unmapped(raw.remoteAddress ?? '')
    this.#port = raw.remotePort ?? 0
    // Whatever the error is, 'close' follows.
    raw.on('error', () => {})
    raw.once('close', () => this.#onClose())
  }

  get stage(): Stage {
    return this.#stage
  }

  /** Begins. `isProxied`: the peer is a load balancer and must say who the client is. */
  start(isProxied: boolean): void {
    this.#limit(this.#context.handshakeMs)
    if (isProxied) this.#readProxyHeader()
    else this.#beginTls()
  }

  /** Ends a call in an orderly way, and anything else at once. */
  shutDown(cause: DisconnectCause): void {
    if (this.#stage === 'call') this.call?.shutDown(cause)
    else this.destroy()
  }

  destroy(): void {
    this.#raw.destroy()
  }

  onDeadline(): void {
    if (this.#stage !== 'goodbye') this.#refuse(`${this.#stage}-timeout`)
    this.destroy()
  }

  #limit(durationMs: number): void {
    this.#context.wheel.schedule(this, this.#context.clock.nowMs() + durationMs)
  }

  #refuse(reason: string, detail = ''): void {
    this.#context.refusals.note(reason, this.address, detail)
  }

  #onClose(): void {
    this.call?.transportClosed()
    this.#context.wheel.cancel(this)
    this.#context.closed(this)
  }

  #readProxyHeader(): void {
    this.#stage = 'proxy'
    let soFar: Uint8Array = new Uint8Array(0)
    const onData = (chunk: Uint8Array) => {
      soFar = soFar.length === 0 ? copyBytes(chunk) : concatBytes(soFar, chunk)
      const result = parseProxyHeader(soFar)
      if (result.type === 'incomplete') return
      this.#raw.off('data', onData)
      if (result.type === 'fault') {
        this.#refuse('bad-proxy-header', faultName(result.fault))
        this.destroy()
        return
      }
      this.#raw.pause()
      if (result.usedBytes < soFar.length) this.#raw.unshift(soFar.subarray(result.usedBytes))
      if (result.source.type === 'client') {
        this.address = result.source.address
        this.#port = result.source.port
      }
      this.#beginTls()
    }
    this.#raw.on('data', onData)
  }

  #beginTls(): void {
    this.#stage = 'tls'
    if (!this.#context.admit(this)) {
      this.destroy()
      return
    }
    this.#context.acceptor.accept(this.#raw, {
      secured: socket => this.#beginHttp(socket),
      failed: code => this.#refuse('tls-failed', code),
    })
  }

  #beginHttp(socket: TLSSocket): void {
    this.#tls = socket
    socket.disableRenegotiation()
    socket.setNoDelay(true)
    socket.on('error', () => {})
    socket.on('data', (chunk: Uint8Array) => this.#receive(chunk))
    // The peer has ended its half, or all is gone: for a call the two are the same.
    socket.once('end', () => this.call?.transportClosed())
    this.#stage = 'http'
    this.#head = new HeadCollector()
    this.#limit(this.#context.httpHeadMs)
  }

  #receive(chunk: Uint8Array): void {
    // After the last answer what still comes is read and forgotten: closing on unread bytes would
    // reset the connection and take the answer with it.
    if (this.#stage === 'call') this.call?.receive(chunk)
    else if (this.#stage === 'http') this.#receiveHead(chunk)
  }

  #receiveHead(chunk: Uint8Array): void {
    const head = this.#head
    if (head === undefined) return
    const { state, used } = head.push(chunk)
    if (state === 'incomplete') return
    this.#head = undefined
    if (state !== 'complete') {
      this.#refuse(state === 'oversize' ? 'http-oversize' : 'not-http')
      this.destroy()
      return
    }
    const request = parseRequest(head.lines())
    switch (request.type) {
      case 'not-http':
        this.#refuse('not-http')
        this.destroy()
        return
      case 'other-http':
        this.#refuse('not-sstp')
        this.#sayGoodbye(utf8(notFoundText))
        return
      case 'sstp':
        this.#beginCall(request.correlationId)
        if (used < chunk.length) this.call?.receive(chunk.subarray(used))
    }
  }

  /** `correlationId` is the client's own name of its attempt, for matching with its log. */
  #beginCall(correlationId: string | undefined): void {
    const socket = this.#tls
    // The certificate of this very handshake: with several, or after a reload, others are in use too.
    const certificate = socket?.getX509Certificate()
    if (socket === undefined || certificate === undefined) {
      this.#refuse('no-certificate')
      this.destroy()
      return
    }
    const { clock, wheel, wallClock, hashes, random, dataplane, links, log } = this.#context
    wheel.cancel(this)
    this.#stage = 'call'
    const machine = new ServerCallMachine(
      { hashes, random, certificate: certificate.raw },
      clock.nowMs(),
    )
    this.#burst = new BurstStream(socket)
    this.call = new Call({ address: this.address, port: this.#port }, machine, {
      dataplane,
      links,
      clock,
      wheel,
      stream: this.#burst,
      remark: (reason, detail) => this.#refuse(reason, detail),
      established: hash => {
        this.#context.refusals.counters.count(`binding-${hash}`)
        this.#context.established(this)
      },
      ended: () => this.#sayGoodbye(),
    })
    const tls = `${socket.getProtocol()} ${socket.getCipher().name}`
    const { peerLabel: peer } = this.call
    log.debug({ event: 'sstp-call', peer, correlationId, tls }, 'sstp call begins')
    socket.write(acceptedText(wallClock.now()))
    this.call.start()
    landReads(socket, this.#context.places, this.call)
  }

  #sayGoodbye(lastWords?: Uint8Array): void {
    this.#stage = 'goodbye'
    this.#limit(GOODBYE_MS)
    if (lastWords !== undefined) this.#tls?.end(lastWords)
    else if (this.#burst !== undefined) this.#burst.end()
    else this.#tls?.end()
  }
}

/**
 * The SSTP client: dials a server and gives its link factory a carrier, as the listener does
 * ([MS-SSTP] §3.2). For demand-dial, load generation and tests.
 */

import { createHash } from 'node:crypto'
import { isIP } from 'node:net'
import { type ConnectionOptions, checkServerIdentity, connect, type TLSSocket } from 'node:tls'
import { equalBytes, toHex, utf8 } from '../core/bytes.ts'
import type { Clock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { ConnectError, messageOf } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import type { TimerWheel, WheelEntry } from '../core/timers.ts'
import type { Dataplane } from '../dataplane/dataplane.ts'
import type { LinkFactory } from '../ppp/carrier.ts'
import { Call, type CallCounters } from './call.ts'
import { ClientCallMachine } from './client-call-machine.ts'
import { landReads } from './landing.ts'
import { LandingPlaces } from './landing-places.ts'
import type { HashName } from './wire/attribute.ts'
import {
  HeadCollector,
  parseStatusCode,
  type RequestHeader,
  requestText,
} from './wire/http-head.ts'

/** Specification constant, §3.2.2.1: the client waits this long for the HTTP answer. */
const HTTP_RESPONSE_TIMER_MS = 60_000
/** Implementation constants: TCP and TLS together; the last bytes of a call. */
const CONNECT_MS = 30_000
const GOODBYE_MS = 2_000

export interface SstpDiallerOptions {
  readonly dataplane: Dataplane
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
  readonly log: Logger
}

/** How the server proves who it is. */
export type ServerProof =
  /** By a chain to one of these (PEM), or to the system's when there are none, and by its name. */
  | { readonly type: 'chain'; readonly ca?: string | Uint8Array; readonly serverName?: string }
  /** By its leaf certificate: the SHA-256 of its DER, 32 bytes. Neither chain nor name is looked at. */
  | { readonly type: 'pinned'; readonly sha256: Uint8Array }

/** In what stock clients differ from one another before PPP. */
export interface SstpClientHabits {
  /** `Host: name:port` in place of `Host: name`. */
  readonly hasPortInHost?: boolean
  readonly headerOrder?: readonly RequestHeader[]
  /** Hashes that the client can bind with; the strongest that is offered is taken. */
  readonly hashes?: readonly HashName[]
  readonly maxTlsVersion?: 'TLSv1.2' | 'TLSv1.3'
}

export interface SstpTarget {
  readonly host: string
  readonly port: number
  readonly localAddress?: string
  readonly proof: ServerProof
  readonly links: LinkFactory
  readonly habits?: SstpClientHabits
}

/** A call that we dialled: the server has acknowledged it and PPP has begun. */
export interface DialledCall {
  /** Without braces, as sent to the server. */
  readonly correlationId: string
  readonly counters: CallCounters
  /** The server's leaf certificate, DER. */
  readonly certificate: Uint8Array
  /** When the connection is gone: why. */
  readonly closed: Promise<DisconnectCause>
  /** Ends the call in an orderly way and tells PPP. */
  hangUp(cause: DisconnectCause): void
}

export class SstpDialler {
  readonly #options: SstpDiallerOptions
  readonly #places: LandingPlaces

  constructor(options: SstpDiallerOptions) {
    this.#options = options
    this.#places = new LandingPlaces(options.dataplane)
  }

  /** Resolves when PPP has begun; rejects with ConnectError when it does not come to that. */
  async dial(target: SstpTarget): Promise<DialledCall> {
    let attempt: Attempt
    try {
      attempt = new Attempt(this.#options, this.#places, target)
    } catch (error) {
      const message = `SSTP call to ${target.host} port ${target.port}: ${messageOf(error)}`
      throw new ConnectError(message, { cause: error })
    }
    return attempt.run()
  }
}

class Attempt implements WheelEntry {
  readonly #options: SstpDiallerOptions
  readonly #places: LandingPlaces
  readonly #target: SstpTarget
  readonly #correlationId: string
  readonly #head = new HeadCollector()
  readonly #socket: TLSSocket
  #call: Call | undefined
  #certificate: Uint8Array = new Uint8Array(0)
  #stage = 'connecting'
  #cause: DisconnectCause = 'lost-carrier'
  #failure = 'the server closed the connection'
  #resolve: (call: DialledCall) => void = () => {}
  #reject: (error: ConnectError) => void = () => {}
  #onClosed: (cause: DisconnectCause) => void = () => {}

  constructor(options: SstpDiallerOptions, places: LandingPlaces, target: SstpTarget) {
    this.#options = options
    this.#places = places
    this.#target = target
    this.#correlationId = guid(options.random)
    this.#socket = connect(connectionOptions(target))
  }

  run(): Promise<DialledCall> {
    const socket = this.#socket
    socket.setNoDelay(true)
    socket.on('error', error => {
      this.#failure = messageOf(error)
    })
    socket.once('secureConnect', () => this.#request())
    socket.on('data', (chunk: Uint8Array) => this.#receive(chunk))
    socket.once('end', () => this.#call?.transportClosed())
    socket.once('close', () => this.#onClose())
    this.#limit(CONNECT_MS)
    return new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
  }

  onDeadline(): void {
    if (this.#stage !== 'goodbye') this.#failure = `no answer in time while ${this.#stage}`
    this.#socket.destroy()
  }

  #limit(durationMs: number): void {
    this.#options.wheel.schedule(this, this.#options.clock.nowMs() + durationMs)
  }

  #fail(failure: string): void {
    this.#failure = failure
    this.#socket.destroy()
  }

  #request(): void {
    const { proof, host, port, habits } = this.#target
    const certificate = this.#socket.getPeerX509Certificate()
    if (certificate === undefined) {
      this.#fail('the server showed no certificate')
      return
    }
    this.#certificate = certificate.raw
    if (proof.type === 'pinned') {
      const sha256 = createHash('sha256').update(this.#certificate).digest()
      if (!equalBytes(sha256, proof.sha256)) {
        this.#fail('the server showed another certificate than the pinned one')
        return
      }
    }
    this.#stage = 'waiting for HTTP'
    this.#limit(HTTP_RESPONSE_TIMER_MS)
    const name = proof.type === 'chain' ? (proof.serverName ?? host) : host
    const bracketed = isIP(name) === 6 ? `[${name}]` : name
    const order = habits?.headerOrder
    this.#socket.write(
      utf8(
        requestText({
          host: habits?.hasPortInHost === true ? `${bracketed}:${port}` : bracketed,
          correlationId: this.#correlationId,
          ...(order === undefined ? {} : { order }),
        }),
      ),
    )
  }

  #receive(chunk: Uint8Array): void {
    if (this.#call !== undefined) {
      this.#call.receive(chunk)
      return
    }
    const { state, used } = this.#head.push(chunk)
    if (state === 'incomplete') return
    const status = state === 'complete' ? parseStatusCode(this.#head.lines()) : undefined
    if (status !== 200) {
      this.#fail(status === undefined ? 'the server does not speak HTTP' : `HTTP status ${status}`)
      return
    }
    const call = this.#beginCall()
    if (used < chunk.length) call.receive(chunk.subarray(used))
  }

  #beginCall(): Call {
    const { clock, wheel, dataplane, log } = this.#options
    const { links, habits } = this.#target
    wheel.cancel(this)
    this.#stage = 'asking for a call'
    const machine = new ClientCallMachine(
      { hashes: habits?.hashes ?? ['sha256', 'sha1'], certificate: this.#certificate },
      clock.nowMs(),
    )
    const peer = {
      address: this.#socket.remoteAddress ?? this.#target.host,
      port: this.#target.port,
    }
    const call = new Call(peer, machine, {
      dataplane,
      links: { open: carrier => this.#opened(links.open(carrier)) },
      clock,
      wheel,
      stream: this.#socket,
      remark: (reason, detail) => {
        this.#failure = `${reason}: ${detail}`
        log.debug({ event: 'sstp-remark', reason, detail }, 'sstp server misbehaves')
      },
      established: () => {},
      ended: cause => {
        this.#cause = cause
        this.#stage = 'goodbye'
        this.#limit(GOODBYE_MS)
        this.#socket.end()
      },
    })
    this.#call = call
    call.start()
    landReads(this.#socket, this.#places, call)
    return call
  }

  #opened<L>(link: L | undefined): L | undefined {
    const call = this.#call
    if (link === undefined || call === undefined) return undefined
    this.#resolve({
      correlationId: this.#correlationId,
      certificate: this.#certificate,
      get counters() {
        return call.counters
      },
      closed: new Promise(resolve => {
        this.#onClosed = resolve
      }),
      hangUp: cause => call.shutDown(cause),
    })
    return link
  }

  #onClose(): void {
    this.#call?.transportClosed()
    this.#options.wheel.cancel(this)
    const { host, port } = this.#target
    // Of no effect when the call has begun.
    this.#reject(new ConnectError(`SSTP call to ${host} port ${port}: ${this.#failure}`))
    this.#onClosed(this.#cause)
  }
}

function connectionOptions({ host, port, localAddress, proof, habits }: SstpTarget) {
  const options: ConnectionOptions & { localAddress?: string } = {
    host,
    port,
    minVersion: 'TLSv1.2',
    maxVersion: habits?.maxTlsVersion ?? 'TLSv1.3',
  }
  if (localAddress !== undefined) options.localAddress = localAddress
  if (proof.type === 'pinned') {
    // The pin is checked before the first byte of ours, in place of the chain.
    options.rejectUnauthorized = false
    if (isIP(host) === 0) options.servername = host
    return options
  }
  if (proof.ca !== undefined) {
    options.ca = typeof proof.ca === 'string' ? proof.ca : Buffer.from(proof.ca)
  }
  const name = proof.serverName ?? host
  // RFC 6066 §3: no address in the server name; a certificate's addresses are checked all the same.
  if (isIP(name) === 0) options.servername = name
  options.checkServerIdentity = (_host, certificate) => checkServerIdentity(name, certificate)
  return options
}

/** RFC 9562 §5.4: a random GUID, without braces. */
function guid(random: RandomSource): string {
  const bytes = randomBytes(random, 16)
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  const hex = toHex(bytes)
  const cuts = [0, 8, 12, 16, 20, 32]
  return cuts
    .slice(1)
    .map((end, i) => hex.slice(cuts[i], end))
    .join('-')
}

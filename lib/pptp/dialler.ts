/**
 * The PPTP client: opens a control connection, places one call and gives its link factory a carrier
 * (RFC 2637 §3.2.3, as PNS). For demand-dial, load generation and tests.
 */
import { connect, type Socket } from 'node:net'
import type { Clock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { ConnectError, messageOf } from '../core/errors.ts'
import { parseIpv4, unmapped } from '../core/ip-address.ts'
import type { RandomSource } from '../core/random.ts'
import type { TimerWheel, WheelEntry } from '../core/timers.ts'
import type { Dataplane, PacketSocket } from '../dataplane/index.ts'
import type { LinkFactory } from '../ppp/carrier.ts'
import { ControlConnection } from './control-connection.ts'
import type { ClientHabits } from './control-settings.ts'
import { GreHub } from './gre-hub.ts'

const CONNECT_MS = 30_000
const GOODBYE_MS = 2_000

export interface PptpDiallerOptions {
  readonly dataplane: Dataplane
  /** For IP protocol 47; `close` closes it. */
  readonly socket: PacketSocket
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
  /** Whether packets wait while the server's window is full; not by default. */
  readonly obeysWindow?: boolean
}

export interface PptpTarget {
  /** IPv4 address or a name that has one. */
  readonly host: string
  readonly port: number
  readonly localAddress?: string
  readonly hostName?: string
  readonly links: LinkFactory
  readonly habits?: ClientHabits
}

/** A call that we dialled; PPP has begun. */
export interface DialledCall {
  /** When the control connection is gone: why. */
  readonly closed: Promise<DisconnectCause>
  readonly counters: Readonly<Record<string, number>>
  /** Ends call and connection in an orderly way and tells PPP. */
  hangUp(cause: DisconnectCause): void
}

export class PptpDialler {
  readonly #options: PptpDiallerOptions
  readonly #hub: GreHub

  constructor(options: PptpDiallerOptions) {
    this.#options = options
    this.#hub = new GreHub(options.socket, options.dataplane, () => {})
    this.#hub.start()
  }

  get greCounters(): Readonly<Record<string, number>> {
    return this.#hub.counters
  }

  /** Resolves when PPP has begun; rejects with ConnectError when it does not come to that. */
  dial(target: PptpTarget): Promise<DialledCall> {
    return new Attempt(this.#options, this.#hub, target).run()
  }

  /** Calls that live carry nothing any more. */
  close(): void {
    this.#hub.close()
  }
}

class Attempt implements WheelEntry {
  readonly #options: PptpDiallerOptions
  readonly #hub: GreHub
  readonly #target: PptpTarget
  readonly #socket: Socket
  #connection: ControlConnection | undefined
  #cause: DisconnectCause = 'lost-carrier'
  #failure = 'the server closed the connection'
  #resolve: (call: DialledCall) => void = () => {}
  #reject: (error: ConnectError) => void = () => {}
  #onClosed: (cause: DisconnectCause) => void = () => {}

  constructor(options: PptpDiallerOptions, hub: GreHub, target: PptpTarget) {
    this.#options = options
    this.#hub = hub
    this.#target = target
    const { host, port, localAddress } = target
    this.#socket = connect({
      host,
      port,
      family: 4,
      ...(localAddress !== undefined && { localAddress }),
    })
    this.#deadline(CONNECT_MS)
  }

  run(): Promise<DialledCall> {
    const socket = this.#socket
    socket.setNoDelay(true)
    socket.on('error', error => {
      this.#failure = messageOf(error)
    })
    socket.once('connect', () => this.#begin())
    socket.on('data', chunk => this.#connection?.receive(chunk))
    socket.once('end', () => this.#connection?.transportClosed())
    socket.once('close', () => this.#onClose())
    return new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
  }

  /** Nobody answered, or the last bytes do not go. */
  onDeadline(): void {
    this.#fail('no answer in time')
  }

  #deadline(delayMs: number): void {
    const { wheel, clock } = this.#options
    wheel.schedule(this, clock.nowMs() + delayMs)
  }

  #fail(failure: string): void {
    this.#failure = failure
    this.#socket.destroy()
  }

  #begin(): void {
    const socket = this.#socket
    const { dataplane, clock, wheel, random, obeysWindow = false } = this.#options
    const peerText = unmapped(socket.remoteAddress ?? '')
    const peerAddress = parseIpv4(peerText)
    const localAddress = parseIpv4(unmapped(socket.localAddress ?? ''))
    if (peerAddress === undefined || localAddress === undefined) {
      this.#fail('the connection is not over IPv4')
      return
    }
    const { links, habits, hostName = '', port } = this.#target
    const connection = new ControlConnection(
      { address: peerText, port },
      {
        role: 'client',
        hostName,
        maxCalls: 1,
        takeCallId: () => this.#hub.takeCallId(random),
        ...(habits !== undefined && { habits }),
      },
      {
        dataplane,
        hub: this.#hub,
        links: { open: carrier => this.#opened(links.open(carrier)) },
        clock,
        wheel,
        stream: socket,
        localAddress,
        peerAddress,
        obeysWindow,
        remark: counter => {
          this.#failure = counter
        },
        established: () => connection.placeCall(),
        callUp: () => {},
        callDown: cause => {
          this.#cause = cause
          this.#failure = `the call ended: ${cause}`
          connection.stop(cause)
        },
        ended: reason => {
          if (this.#failure === '') this.#failure = reason
          socket.end()
          this.#deadline(GOODBYE_MS)
        },
      },
    )
    this.#connection = connection
    connection.start()
  }

  #opened<L>(link: L | undefined): L | undefined {
    const connection = this.#connection
    if (link === undefined || connection === undefined) return undefined
    this.#options.wheel.cancel(this)
    this.#resolve({
      get counters() {
        return connection.counters
      },
      closed: new Promise(resolve => {
        this.#onClosed = resolve
      }),
      hangUp: cause => connection.stop(cause),
    })
    return link
  }

  #onClose(): void {
    this.#options.wheel.cancel(this)
    this.#connection?.transportClosed()
    const { host, port } = this.#target
    // Of no effect when the call has begun.
    this.#reject(new ConnectError(`PPTP call to ${host} port ${port}: ${this.#failure}`))
    this.#onClosed(this.#cause)
  }
}

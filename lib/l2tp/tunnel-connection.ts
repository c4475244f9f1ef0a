/**
 * One tunnel at work: its machine on the wheel, its messages on the path to the peer, and the sessions
 * of its calls.
 */
import type { Clock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { Driver } from '../core/driver.ts'
import type { Counters } from '../core/faults.ts'
import { noRoom } from '../core/packet-sink.ts'
import type { TimerWheel } from '../core/timers.ts'
import type { PinnedMemory } from '../dataplane/dataplane.ts'
import type { LinkFactory } from '../ppp/carrier.ts'
import type { L2tpEvent, L2tpInput } from './event.ts'
import { L2TP_PORT, type L2tpPath } from './l2tp-path.ts'
import { Session } from './session.ts'
import type { TunnelMachine } from './tunnel-machine.ts'
import { sessionIdOf } from './wire/header.ts'

export interface TunnelServices {
  readonly memory: PinnedMemory
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly counters: Counters
}

export interface TunnelConnectionOwner {
  /** Everything, after the connection has done its part; `closed` is the last. */
  event(event: L2tpEvent): void
}

export class TunnelConnection {
  readonly path: L2tpPath
  readonly #services: TunnelServices
  readonly #links: LinkFactory
  readonly #owner: TunnelConnectionOwner
  #driver: Driver<L2tpInput, L2tpEvent> | undefined
  readonly #sessions = new Map<number, Session>()
  /** Some clients send from a port of their own (RFC 2661 §8.1); learnt from control messages. */
  #peerPort = L2TP_PORT
  #hasHeard = false
  #hasYielded = false

  constructor(
    path: L2tpPath,
    links: LinkFactory,
    services: TunnelServices,
    owner: TunnelConnectionOwner,
  ) {
    this.path = path
    this.#links = links
    this.#services = services
    this.#owner = owner
  }

  /** Called once, before anything else. */
  begin(machine: TunnelMachine): void {
    const { clock, wheel } = this.#services
    // Data does not pass the machine: it learns that the peer lives when it is about to ask.
    const watched = {
      handle: (input: Parameters<typeof machine.handle>[0], nowMs: number) => {
        if (input.type === 'timeout' && this.#hasHeard) {
          this.#hasHeard = false
          machine.handle({ type: 'alive' }, nowMs)
        }
        machine.handle(input, nowMs)
      },
      poll: () => machine.poll(),
      nextDeadlineMs: () => machine.nextDeadlineMs(),
    }
    this.#driver = new Driver(watched, clock, wheel, {
      transmit: bytes => this.#send(bytes),
      event: event => this.#onEvent(event),
    })
  }

  get sessionCount(): number {
    return this.#sessions.size
  }

  /** The peer's own request, which crossed ours, has won: it is another tunnel's. */
  get hasYielded(): boolean {
    return this.#hasYielded
  }

  handle(input: L2tpInput): void {
    this.#driver?.handle(input)
  }

  /** A control message of the peer. */
  control(bytes: Uint8Array, peerPort: number): void {
    this.#peerPort = peerPort
    this.#driver?.handle({ type: 'packet', bytes })
  }

  /** A data message with a good header at `at`. */
  data(at: number, lengthBytes: number): void {
    const session = this.#sessions.get(sessionIdOf(this.#services.memory.bytes, at))
    if (session === undefined) {
      this.#services.counters.count('l2tp-unknown-session')
      return
    }
    this.#hasHeard = true
    session.receive(at, lengthBytes)
  }

  /** Nothing can be sent any more. */
  lost(cause: DisconnectCause): void {
    this.#driver?.close()
    this.#dropSessions(cause)
  }

  #onEvent(event: L2tpEvent): void {
    switch (event.type) {
      case 'call-up':
        this.#openSession(event)
        break
      case 'call-down': {
        const session = this.#sessions.get(event.sessionId)
        this.#sessions.delete(event.sessionId)
        session?.lost(event.reason.cause)
        break
      }
      case 'tie-lost':
        this.#hasYielded = true
        break
      case 'closed':
        this.#driver?.close()
        this.#dropSessions('lost-carrier')
        break
      case 'tunnel-up':
      case 'call-offered':
      case 'link-info':
      case 'wan-error':
      case 'unexpected':
      case 'tunnel-down':
        break
    }
    this.#owner.event(event)
  }

  #openSession(event: Extract<L2tpEvent, { type: 'call-up' }>): void {
    const { sessionId, peerTunnelId, peerSessionId } = event
    const { memory, counters } = this.#services
    const session = new Session({
      memory,
      path: this.path,
      peerTunnelId,
      peerSessionId,
      isSequenced: event.parameters.isSequenced,
      peerPort: () => this.#peerPort,
      count: name => counters.count(name),
      close: cause => {
        this.#sessions.delete(sessionId)
        this.#driver?.handle({ type: 'close-call', sessionId, cause })
      },
    })
    this.#sessions.set(sessionId, session)
    session.open(this.#links)
  }

  #dropSessions(cause: DisconnectCause): void {
    const sessions = [...this.#sessions.values()]
    this.#sessions.clear()
    for (const session of sessions) session.lost(cause)
  }

  #send(bytes: Uint8Array): void {
    const at = this.path.reserve(bytes.length)
    if (at === noRoom) {
      this.#services.counters.count('l2tp-control-dropped')
      return
    }
    this.#services.memory.bytes.set(bytes, at)
    this.path.commit(at, bytes.length, this.#peerPort)
    this.path.flush()
  }
}

/**
 * A control connection on an open stream, with the calls that it controls: what the machine says
 * becomes bytes, carriers and links. In either role.
 */
import type { Clock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { Driver } from '../core/driver.ts'
import { Counters } from '../core/faults.ts'
import type { TimerWheel } from '../core/timers.ts'
import type { Dataplane } from '../dataplane/dataplane.ts'
import type { LinkFactory } from '../ppp/carrier.ts'
import { PlainSealer } from '../ppp/frame-sealers.ts'
import { Call, type CallOwner, type CallPeer } from './call.ts'
import { ControlMachine } from './control-machine.ts'
import type { ControlSettings } from './control-settings.ts'
import type { CallParameters, ControlEvent, ControlInput } from './event.ts'
import { GreCall } from './gre-call.ts'
import type { GreHub } from './gre-hub.ts'
import { SendWindow } from './send-window.ts'

/** Control bytes that may wait for a peer that does not read. */
const MAX_BACKLOG_BYTES = 64 * 1024

/** What a control connection needs of the TCP socket under it. */
export interface ByteStream {
  write(bytes: Uint8Array, callback: () => void): unknown
  /** Sends what is queued, then says that no more comes. */
  end(): unknown
  destroy(): unknown
}

export interface ConnectionPorts {
  readonly dataplane: Dataplane
  readonly hub: GreHub
  readonly links: LinkFactory
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly stream: ByteStream
  /** Host order; what the peer dialled, and where GRE comes from and goes to. */
  readonly localAddress: number
  readonly peerAddress: number
  /** Whether packets wait while the peer's window is full. */
  readonly obeysWindow: boolean
  /** Something worth a counter and perhaps a log line. */
  remark(counter: string): void
  established(hostName: string, vendorName: string): void
  callUp(): void
  callDown(cause: DisconnectCause): void
  /** The connection is over; the stream is being closed. Said once. */
  ended(reason: string): void
}

export class ControlConnection implements CallOwner {
  readonly #ports: ConnectionPorts
  readonly #peer: CallPeer
  readonly #driver: Driver<ControlInput, ControlEvent>
  readonly #machine: ControlMachine
  readonly #calls = new Map<number, Call>()
  /** Of calls that have ended. */
  readonly #counters = new Counters()
  #backlogBytes = 0
  #isOver = false

  constructor(peer: CallPeer, settings: ControlSettings, ports: ConnectionPorts) {
    this.#ports = ports
    this.#peer = peer
    this.#machine = new ControlMachine(settings, ports.clock.nowMs())
    this.#driver = new Driver(this.#machine, ports.clock, ports.wheel, {
      transmit: bytes => this.#write(bytes),
      event: event => this.#act(event),
    })
  }

  /** Says what a client says first, and starts the timers. */
  start(): void {
    this.#driver.handle({ type: 'open' })
  }

  receive(chunk: Uint8Array): void {
    this.#driver.handle({ type: 'received', bytes: chunk })
  }

  transportClosed(): void {
    this.#driver.handle({ type: 'transport-closed' })
  }

  /** Client, when established. */
  placeCall(): void {
    this.#driver.handle({ type: 'place-call' })
  }

  /** Ends everything in an orderly way. */
  stop(cause: DisconnectCause): void {
    this.#driver.handle({ type: 'stop', cause })
  }

  get callCount(): number {
    return this.#calls.size
  }

  get isEstablished(): boolean {
    return this.#machine.state === 'established'
  }

  /** What the calls have counted, by name: those that live and those that ended. */
  get counters(): Record<string, number> {
    const sum = new Counters()
    for (const [name, count] of Object.entries(this.#counters.toJSON())) sum.count(name, count)
    for (const call of this.#calls.values()) addCounts(sum, call.gre)
    return sum.toJSON()
  }

  // CallOwner

  endCall(callId: number, cause: DisconnectCause): void {
    this.#forget(callId)
    this.#driver.handle({ type: 'clear-call', callId, cause })
  }

  countDroppedControl(): void {
    this.#counters.count('droppedControl')
  }

  #act(event: ControlEvent): void {
    switch (event.type) {
      case 'established':
        this.#ports.established(event.hostName, event.vendorName)
        return
      case 'call-requested':
        this.#driver.handle({ type: 'answer', callId: event.callId, isAccepted: true })
        return
      case 'call-up':
        this.#openCall(event)
        return
      case 'call-down': {
        const call = this.#calls.get(event.callId)
        this.#forget(event.callId)
        call?.lose(event.cause)
        this.#ports.callDown(event.cause)
        return
      }
      case 'remark':
        this.#ports.remark(event.counter)
        return
      case 'close':
        this.#end(event.counter)
        return
    }
  }

  #openCall({ callId, peerCallId, peerWindowPackets, peerDelayMs }: CallParameters): void {
    const { hub, dataplane, wheel, clock, localAddress, peerAddress, links } = this.#ports
    const { obeysWindow } = this.#ports
    const gre = new GreCall(
      {
        socket: hub.socket,
        dataplane,
        reorderSlots: hub.reorderSlots,
        waitingRoom: hub.waitingRoom,
        ...(obeysWindow && { window: new SendWindow(peerWindowPackets, peerDelayMs) }),
        wheel,
        localAddress,
        peerAddress,
        peerCallId,
        nowMs: () => clock.nowMs(),
      },
      new PlainSealer(dataplane.memory.bytes),
    )
    const call = new Call(this.#peer, callId, gre, this)
    hub.add(callId, gre)
    this.#calls.set(callId, call)
    this.#ports.callUp()
    const link = links.open(call)
    if (link === undefined) {
      this.#ports.remark('link-refused')
      call.close('session-limit')
    } else call.begin(link)
  }

  #forget(callId: number): void {
    const call = this.#calls.get(callId)
    if (call === undefined) return
    addCounts(this.#counters, call.gre)
    this.#calls.delete(callId)
    // Without its link: `lose` takes that away, and PPP that asked for the end knows.
    this.#ports.hub.forget(callId)
  }

  #write(bytes: Uint8Array): void {
    if (this.#isOver) return
    this.#backlogBytes += bytes.length
    if (this.#backlogBytes > MAX_BACKLOG_BYTES) {
      this.#ports.remark('control-backlog')
      this.#ports.stream.destroy()
      return
    }
    this.#ports.stream.write(bytes, () => {
      this.#backlogBytes -= bytes.length
    })
  }

  #end(reason: string): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#driver.close()
    this.#ports.ended(reason)
  }
}

function addCounts(sum: Counters, gre: GreCall): void {
  for (const name of greCounters) if (gre[name] > 0) sum.count(name, gre[name])
}

const greCounters = [
  'receivedPackets',
  'receivedAcknowledgments',
  'receivedReordered',
  'droppedStale',
  'droppedJump',
  'droppedWithoutLink',
  'lostPackets',
  'sentPackets',
  'sentAcknowledgments',
  'droppedNoRoom',
  'droppedNotPermitted',
  'droppedTooLong',
  'droppedWindow',
  'droppedAcknowledgments',
  'windowTimeouts',
] as const satisfies readonly (keyof GreCall)[]

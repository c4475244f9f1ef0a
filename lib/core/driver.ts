/** The small loop that drives a machine: written once, used by every listener. */
import type { Clock } from './clock.ts'
import { type Machine, timeout } from './machine.ts'
import type { TimerWheel, WheelEntry } from './timers.ts'

export interface DriverPorts<Event> {
  transmit(bytes: Uint8Array): void
  event(event: Event): void
}

export class Driver<Input, Event> implements WheelEntry {
  readonly #machine: Machine<Input, Event>
  readonly #clock: Clock
  readonly #wheel: TimerWheel
  readonly #ports: DriverPorts<Event>
  #isDraining = false
  #isClosed = false

  constructor(
    machine: Machine<Input, Event>,
    clock: Clock,
    wheel: TimerWheel,
    ports: DriverPorts<Event>,
  ) {
    this.#machine = machine
    this.#clock = clock
    this.#wheel = wheel
    this.#ports = ports
  }

  /** Feeds the machine and does what it asks. May be called from inside a port. */
  handle(input: Input): void {
    if (this.#isClosed) return
    this.#machine.handle(input, this.#clock.nowMs())
    this.#drain()
  }

  onDeadline(nowMs: number): void {
    if (this.#isClosed) return
    this.#machine.handle(timeout, nowMs)
    this.#drain()
  }

  /** After this nothing goes in or out. */
  close(): void {
    this.#isClosed = true
    this.#wheel.cancel(this)
  }

  #drain(): void {
    // A port that calls `handle` adds to the same outbox; the outer loop empties it, in order.
    if (this.#isDraining) return
    this.#isDraining = true
    try {
      for (let out = this.#machine.poll(); out !== undefined; out = this.#machine.poll()) {
        if (this.#isClosed) break
        if (out.type === 'transmit') this.#ports.transmit(out.bytes)
        else this.#ports.event(out.event)
      }
    } finally {
      this.#isDraining = false
    }
    if (!this.#isClosed) this.#wheel.schedule(this, this.#machine.nextDeadlineMs())
  }
}

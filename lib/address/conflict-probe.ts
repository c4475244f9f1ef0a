/**
 * Asks the hosts of a network whether one of them has an address already (RFC 5227 §2.1), with less
 * patience than a host that has nobody waiting. No I/O.
 */
import { equalBytes } from '../core/bytes.ts'
import type { Clock } from '../core/clock.ts'
import { Counters } from '../core/faults.ts'
import type { TimerWheel, WheelEntry } from '../core/timers.ts'
import { encodeArpProbe, parseArp } from './wire/arp.ts'

export interface ConflictProbeOptions {
  /** Ours, on this network. */
  readonly hardware: Uint8Array
  /** To every host of the network. */
  readonly send: (packet: Uint8Array) => void
  readonly clock: Clock
  readonly wheel: TimerWheel
}

/** Implementation constants. Hosts of a wired network answer within a millisecond, others within a beacon. */
const probes = 3
const probeIntervalMs = 100
/** Addresses that are asked for at a time; beyond, they are given unasked. */
const mostAtATime = 256

interface Question extends WheelEntry {
  /** Undefined: nobody has answered. */
  settle(owner: Uint8Array | undefined): void
}

export class ConflictProbe {
  readonly counters = new Counters()
  readonly #options: ConflictProbeOptions
  readonly #questions = new Map<number, Question>()

  constructor(options: ConflictProbeOptions) {
    this.#options = options
  }

  /** The hardware address of who has it; undefined when nobody says so. Never rejects. */
  ownerOf(address: number): Promise<Uint8Array | undefined> {
    if (this.#questions.has(address) || this.#questions.size >= mostAtATime) {
      this.counters.count('probe-skipped')
      return Promise.resolve(undefined)
    }
    const { hardware, send, clock, wheel } = this.#options
    return new Promise(resolve => {
      let sent = 0
      const question: Question = {
        settle: owner => {
          wheel.cancel(question)
          this.#questions.delete(address)
          resolve(owner)
        },
        onDeadline: () => {
          if (sent === probes) {
            question.settle(undefined)
            return
          }
          sent++
          wheel.schedule(question, clock.nowMs() + probeIntervalMs)
          send(encodeArpProbe(hardware, address))
        },
      }
      this.#questions.set(address, question)
      this.counters.count('probed')
      question.onDeadline(clock.nowMs())
    })
  }

  /** A packet that a host has sent. */
  receive(bytes: Uint8Array): void {
    const packet = parseArp(bytes)
    if (packet === undefined) {
      this.counters.count('arp-malformed')
      return
    }
    const { senderHardware, senderAddress, targetAddress } = packet
    if (equalBytes(senderHardware, this.#options.hardware)) return
    // RFC 5227 §2.1.1: who has it, and who is about to take it.
    const isProbe = packet.operation === 'request' && senderAddress === 0
    const question = this.#questions.get(isProbe ? targetAddress : senderAddress)
    if (question === undefined) return
    this.counters.count('conflict')
    question.settle(senderHardware)
  }

  /** Who waits is told that nobody has answered. */
  close(): void {
    for (const question of [...this.#questions.values()]) question.settle(undefined)
  }
}

/** One RADIUS server as the client sees it: how good it is, and which identifiers are in use. */
import type { Secret } from '../../core/secret.ts'

/** How one server is spoken to. */
export interface RadiusServerSettings {
  /** For logs and counters. */
  readonly label: string
  readonly secret: Secret
  /** A stream: nothing is repeated on it (RFC 6614 §2.5). */
  readonly isReliable: boolean
  /** Answers to Access-Requests without one are dropped (CVE-2024-3596). */
  readonly needsMessageAuthenticator: boolean
  /** 1 to 30; the server with the highest is asked first. */
  readonly score: number
  /** Until the same packet is sent again, ms. */
  readonly timeoutMs: number
  /** How often one packet is sent before another server is asked. */
  readonly tries: number
  /** How long a server that does not answer is left alone, ms. */
  readonly deadTimeMs: number
  /** Ask a dead server with Status-Server (RFC 5997) whether it lives. */
  readonly isProbed: boolean
}

/** A place in the identifier space of one socket. */
export interface Slot {
  readonly socket: number
  readonly identifier: number
}

/** RFC 2865 §3: the Identifier has eight bits. */
const identifiersPerSocket = 256
/** Source ports per server: with 16 there may be 4,096 requests in flight. */
export const mostSockets = 16
/** Requests in a row that got no answer until a server counts as dead. */
const failuresUntilDead = 2
/** Packets that may be kept for another try. */
const mostKept = 1024
/** What a failure takes from the score; an answer gives one point back. */
const failurePoints = 5

type SlotHistory = 'unused' | 'answered' | 'given-up'

interface SocketState<Pending> {
  readonly pending: Map<number, Pending>
  readonly history: SlotHistory[]
  next: number
}

export class ServerState<Pending> {
  readonly settings: RadiusServerSettings
  readonly index: number
  readonly #sockets: SocketState<Pending>[] = []
  /** In the order of their deadlines, since all wait equally long. */
  readonly waiting = new Set<Pending>()
  /** Given up for now, by the key of the request; each has its identifier still. */
  readonly #kept = new Map<number, Pending>()
  #score: number
  #failures = 0
  #deadUntilMs = Number.NEGATIVE_INFINITY

  constructor(index: number, settings: RadiusServerSettings) {
    this.index = index
    this.settings = settings
    this.#score = settings.score
  }

  get score(): number {
    return this.#score
  }

  isDead(nowMs: number): boolean {
    return nowMs < this.#deadUntilMs
  }

  /** `Infinity` when it is not dead. */
  get deadUntilMs(): number {
    return this.#deadUntilMs > Number.NEGATIVE_INFINITY
      ? this.#deadUntilMs
      : Number.POSITIVE_INFINITY
  }

  /** True when it was dead before. */
  answered(): boolean {
    const wasDead = this.#deadUntilMs > Number.NEGATIVE_INFINITY
    this.#failures = 0
    this.#deadUntilMs = Number.NEGATIVE_INFINITY
    this.#score = Math.min(this.#score + 1, this.settings.score)
    return wasDead
  }

  /** True when this makes it dead. */
  failed(nowMs: number): boolean {
    this.#score = Math.max(this.#score - failurePoints, 0)
    if (++this.#failures < failuresUntilDead) return false
    const isNews = this.#deadUntilMs === Number.NEGATIVE_INFINITY
    this.#deadUntilMs = nowMs + this.settings.deadTimeMs
    return isNews
  }

  /** A free identifier, of the socket with the lowest number that has one. Undefined when all are in use. */
  take(pending: (slot: Slot) => Pending): Pending | undefined {
    for (let number = 0; number < mostSockets; number++) {
      const socket = this.#socket(number)
      if (socket.pending.size >= identifiersPerSocket) continue
      // Round and round, so that a late answer meets no new request soon.
      while (socket.pending.has(socket.next)) socket.next = (socket.next + 1) & 0xff
      const identifier = socket.next
      socket.next = (socket.next + 1) & 0xff
      const made = pending({ socket: number, identifier })
      socket.pending.set(identifier, made)
      return made
    }
    return undefined
  }

  find({ socket, identifier }: Slot): Pending | undefined {
    return this.#sockets[socket]?.pending.get(identifier)
  }

  release({ socket, identifier }: Slot, how: 'answered' | 'given-up'): void {
    const state = this.#sockets[socket]
    if (state === undefined) return
    state.pending.delete(identifier)
    state.history[identifier] = how
  }

  /** Another that waits for the same packet. */
  replace({ socket, identifier }: Slot, pending: Pending): void {
    this.#sockets[socket]?.pending.set(identifier, pending)
  }

  /** False when there are too many. */
  keep(key: number, pending: Pending): boolean {
    if (this.#kept.size >= mostKept) return false
    this.#kept.set(key, pending)
    return true
  }

  takeKept(key: number): Pending | undefined {
    const pending = this.#kept.get(key)
    this.#kept.delete(key)
    return pending
  }

  /** Why nothing waits at a slot, as a name to count. */
  absence({ socket, identifier }: Slot): 'duplicate-answer' | 'late-answer' | 'unasked-answer' {
    const history = this.#sockets[socket]?.history[identifier]
    if (history === 'answered') return 'duplicate-answer'
    return history === 'given-up' ? 'late-answer' : 'unasked-answer'
  }

  pendingOn(socket: number): Pending[] {
    return [...(this.#sockets[socket]?.pending.values() ?? [])]
  }

  get inFlight(): number {
    return this.#sockets.reduce((sum, { pending }) => sum + pending.size, 0) - this.#kept.size
  }

  #socket(number: number): SocketState<Pending> {
    const known = this.#sockets[number]
    if (known !== undefined) return known
    const made: SocketState<Pending> = { pending: new Map(), history: [], next: 0 }
    this.#sockets[number] = made
    return made
  }
}

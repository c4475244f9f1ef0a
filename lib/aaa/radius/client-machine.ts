/**
 * A group of RADIUS servers as one: which is asked, how often, and which answers are believed
 * (RFC 2865 §2, RFC 5080 §2.2, RFC 5997). Sans-IO: packets come with the number of their socket, and
 * go out as events.
 *
 * A request goes to the living server with the highest score; when that stays silent, to the next,
 * until its time is over. When no server lives, the best of the dead is asked all the same.
 *
 * A request with a key that is asked again goes to the same server as the same packet, byte by byte and
 * from the same port (RFC 5080 §2.2.1), whatever time has passed: the server can tell that it has it
 * already, and an answer that comes between two tries counts for the next.
 */
import { copyBytes } from '../../core/bytes.ts'
import { assertNever } from '../../core/errors.ts'
import { faultName } from '../../core/faults.ts'
import { type Machine, Outbox, type Output, type Timeout } from '../../core/machine.ts'
import { type RandomSource, randomBytes } from '../../core/random.ts'
import type { Secret } from '../../core/secret.ts'
import { checkResponse, sealAccessRequest, sealAccountingRequest } from './authenticity.ts'
import { hidePassword } from './hiding.ts'
import { type RadiusServerSettings, ServerState, type Slot } from './server-state.ts'
import { AttributeList } from './wire/attributes.ts'
import { dictionary } from './wire/dictionary.ts'
import {
  authenticatorAt,
  authenticatorBytes,
  checkRadiusPacket,
  hasAttribute,
  packetHeaderBytes,
  parseRadiusPacket,
  type RadiusAttribute,
  RadiusCode,
  type RadiusPacket,
} from './wire/packet.ts'

/** Between two questions to a dead server, ms. */
const probeIntervalMs = 5000

export interface RadiusRequest {
  readonly code: 'access' | 'accounting'
  readonly attributes: readonly RadiusAttribute[]
  /** Hidden under the secret of the server that is asked (RFC 2865 §5.2); the caller keeps it. */
  readonly password?: Secret
  /**
   * Monotonic ms of what is reported: Acct-Delay-Time says how long before the first try at a server that
   * was (RFC 2866 §5.2).
   */
  readonly eventMs?: number
  /** Names what is asked until it is answered; absent: it is asked once. */
  readonly key?: number
}

/** An answer that has proved to be one. `secret` and `requestAuthenticator` reveal what it hides. */
export interface RadiusAnswer {
  readonly code: number
  readonly attributes: readonly RadiusAttribute[]
  readonly requestAuthenticator: Uint8Array
  readonly secret: Secret
  /** Label of the server. */
  readonly server: string
}

export interface ClientMachineOptions {
  readonly servers: readonly RadiusServerSettings[]
  readonly random: RandomSource
  /** From a request to its answer, over all servers, ms. */
  readonly totalMs: number
  /** What the group is asked for; Status-Server is answered accordingly. */
  readonly purpose: 'access' | 'accounting'
  /** In Status-Server: who we are. */
  readonly identity: readonly RadiusAttribute[]
}

export type ClientInput =
  | { readonly type: 'request'; readonly ticket: number; readonly request: RadiusRequest }
  | {
      readonly type: 'packet'
      readonly server: number
      readonly socket: number
      readonly bytes: Uint8Array
    }
  /** The connection is gone; what waits on it gets no answer. */
  | { readonly type: 'socket-lost'; readonly server: number; readonly socket: number }

export type ClientEvent =
  | {
      readonly type: 'send'
      readonly server: number
      readonly socket: number
      readonly bytes: Uint8Array
    }
  | { readonly type: 'answer'; readonly ticket: number; readonly answer: RadiusAnswer }
  /** `no-answer` within the time, `too-many` in flight, or `oversize`: it fits in no packet. */
  | {
      readonly type: 'failed'
      readonly ticket: number
      readonly reason: 'no-answer' | 'too-many' | 'oversize'
    }
  | { readonly type: 'server-dead' | 'server-alive'; readonly server: string }
  /** A packet was not believed; a name to count. */
  | { readonly type: 'dropped'; readonly server: string; readonly counter: string }

interface Pending {
  /** Undefined: a probe. */
  readonly ticket: number | undefined
  readonly request: RadiusRequest
  readonly slot: Slot
  readonly bytes: Uint8Array
  readonly authenticator: Uint8Array
  /** Servers that were asked before. */
  readonly asked: ReadonlySet<number>
  /** When the whole request is given up. */
  readonly endMs: number
  transmissions: number
  deadlineMs: number
}

const probeRequest: RadiusRequest = { code: 'access', attributes: [] }
const [, eapMessageType] = dictionary['EAP-Message']

export class RadiusClientMachine implements Machine<ClientInput, ClientEvent> {
  readonly #options: ClientMachineOptions
  readonly #outbox = new Outbox<ClientEvent>()
  readonly #servers: readonly ServerState<Pending>[]
  readonly #nextProbeMs = new Map<number, number>()
  /** By ticket, and so in the order in which their time is over: all have equally long. */
  readonly #unsettled = new Map<number, { server: ServerState<Pending>; pending: Pending }>()
  /** To requests that had been given up, by key. */
  readonly #lateAnswers = new Map<number, RadiusAnswer>()

  constructor(options: ClientMachineOptions) {
    this.#options = options
    this.#servers = options.servers.map((settings, index) => new ServerState(index, settings))
  }

  handle(input: ClientInput | Timeout, nowMs: number): void {
    switch (input.type) {
      case 'request':
        this.#begin(input.ticket, input.request, nowMs)
        return
      case 'packet':
        this.#packet(input, nowMs)
        return
      case 'socket-lost':
        this.#socketLost(input, nowMs)
        return
      case 'timeout':
        this.#timeout(nowMs)
        return
      default:
        assertNever(input)
    }
  }

  poll(): Output<ClientEvent> | undefined {
    return this.#outbox.poll()
  }

  nextDeadlineMs(): number {
    let next = Number.POSITIVE_INFINITY
    for (const server of this.#servers) {
      for (const first of server.waiting) {
        next = Math.min(next, first.deadlineMs)
        break
      }
    }
    for (const { pending } of this.#unsettled.values()) {
      next = Math.min(next, pending.endMs)
      break
    }
    for (const probeMs of this.#nextProbeMs.values()) next = Math.min(next, probeMs)
    return next
  }

  /** For status: label, score, whether it is dead, requests in flight. */
  status(nowMs: number): { label: string; score: number; isDead: boolean; inFlight: number }[] {
    return this.#servers.map(server => ({
      label: server.settings.label,
      score: server.score,
      isDead: server.isDead(nowMs),
      inFlight: server.inFlight,
    }))
  }

  #begin(ticket: number, request: RadiusRequest, nowMs: number): void {
    const { key } = request
    const answer = key === undefined ? undefined : this.#lateAnswers.get(key)
    if (key !== undefined && answer !== undefined) {
      this.#forget(key)
      this.#outbox.event({ type: 'answer', ticket, answer })
      return
    }
    this.#ask(ticket, request, new Set(), nowMs + this.#options.totalMs, nowMs)
  }

  /** Asks the best server that was not asked; false when there is none. */
  #ask(
    ticket: number,
    request: RadiusRequest,
    asked: ReadonlySet<number>,
    endMs: number,
    nowMs: number,
  ): void {
    let reason: 'no-answer' | 'too-many' | 'oversize' = 'no-answer'
    for (const server of this.#byMerit(nowMs)) {
      if (asked.has(server.index)) continue
      const sent = this.#send(server, { ticket, request, asked, endMs }, nowMs)
      if (sent === undefined) return
      reason = sent
    }
    this.#fail(ticket, reason)
  }

  #fail(ticket: number, reason: 'no-answer' | 'too-many' | 'oversize'): void {
    this.#unsettled.delete(ticket)
    this.#outbox.event({ type: 'failed', ticket, reason })
  }

  #byMerit(nowMs: number): ServerState<Pending>[] {
    return [...this.#servers].sort(
      (a, b) =>
        Number(a.isDead(nowMs)) - Number(b.isDead(nowMs)) || b.score - a.score || a.index - b.index,
    )
  }

  /** Undefined when it was sent. */
  #send(
    server: ServerState<Pending>,
    what: Pick<Pending, 'request' | 'asked' | 'endMs' | 'ticket'>,
    nowMs: number,
  ): 'too-many' | 'oversize' | undefined {
    const kept = what.request.key === undefined ? undefined : server.takeKept(what.request.key)
    if (kept !== undefined) {
      const again = { ...kept, ...what, transmissions: 0 }
      server.replace(kept.slot, again)
      this.#transmit(server, again, nowMs)
      if (again.ticket !== undefined) this.#unsettled.set(again.ticket, { server, pending: again })
      return undefined
    }
    let isOversize = false
    const pending = server.take(slot => {
      const bytes = this.#seal(server, what, slot.identifier, nowMs)
      isOversize = bytes === undefined
      const sealed = bytes ?? new Uint8Array(packetHeaderBytes)
      return {
        ...what,
        slot,
        bytes: sealed,
        authenticator: copyBytes(sealed, authenticatorAt, authenticatorAt + authenticatorBytes),
        transmissions: 0,
        deadlineMs: 0,
      }
    })
    if (pending === undefined) return 'too-many'
    if (isOversize) {
      server.release(pending.slot, 'given-up')
      return 'oversize'
    }
    if (pending.ticket !== undefined) this.#unsettled.set(pending.ticket, { server, pending })
    this.#transmit(server, pending, nowMs)
    return undefined
  }

  #seal(
    { settings: { secret } }: ServerState<Pending>,
    { ticket, request }: Pick<Pending, 'ticket' | 'request'>,
    identifier: number,
    nowMs: number,
  ): Uint8Array | undefined {
    const authenticator = randomBytes(this.#options.random, authenticatorBytes)
    if (ticket === undefined) {
      const code = RadiusCode['Status-Server']
      return sealAccessRequest(
        { code, identifier, authenticator, attributes: this.#options.identity },
        secret,
      )
    }
    if (request.code === 'accounting') {
      const list = new AttributeList().all(request.attributes)
      if (request.eventMs !== undefined) {
        const delaySeconds = Math.max(0, Math.floor((nowMs - request.eventMs) / 1000))
        list.u32('Acct-Delay-Time', Math.min(delaySeconds, 0xffff_ffff))
      }
      const code = RadiusCode['Accounting-Request']
      return sealAccountingRequest({ code, identifier, attributes: list.attributes }, secret)
    }
    const list = new AttributeList().all(request.attributes)
    if (request.password !== undefined) {
      const hidden = hidePassword(request.password, secret, authenticator)
      if (hidden === undefined) return undefined
      list.bytes('User-Password', hidden)
    }
    return sealAccessRequest(
      {
        code: RadiusCode['Access-Request'],
        identifier,
        authenticator,
        attributes: list.attributes,
      },
      secret,
    )
  }

  #transmit(server: ServerState<Pending>, pending: Pending, nowMs: number): void {
    const { timeoutMs, tries, isReliable } = server.settings
    pending.transmissions++
    pending.deadlineMs = nowMs + (isReliable ? timeoutMs * tries : timeoutMs)
    // Behind all others: they were sent earlier and wait as long.
    server.waiting.delete(pending)
    server.waiting.add(pending)
    this.#outbox.event({
      type: 'send',
      server: server.index,
      socket: pending.slot.socket,
      bytes: copyBytes(pending.bytes),
    })
  }

  // Answers

  #packet(
    { server: index, socket, bytes }: Extract<ClientInput, { type: 'packet' }>,
    nowMs: number,
  ) {
    const server = this.#servers[index]
    if (server === undefined) return
    const { settings } = server
    const drop = (counter: string) =>
      this.#outbox.event({ type: 'dropped', server: settings.label, counter })
    const fault = checkRadiusPacket(bytes)
    if (fault) {
      drop(`malformed-${faultName(fault)}`)
      return
    }
    const slot = { socket, identifier: bytes[1] ?? 0 }
    const pending = server.find(slot)
    if (pending === undefined) {
      drop(server.absence(slot))
      return
    }
    const isAccounting = this.#options.purpose === 'accounting'
    // RFC 3579 §3.2: what carries EAP has it in any case.
    const needsMac =
      (!isAccounting && settings.needsMessageAuthenticator) || hasAttribute(bytes, eapMessageType)
    const disbelief = checkResponse(bytes, pending.authenticator, settings.secret, needsMac)
    if (disbelief !== undefined) {
      drop(disbelief)
      return
    }
    const packet = parseRadiusPacket(bytes)
    if (!isAnswer(packet.code, isAccounting, pending.ticket === undefined)) {
      drop('wrong-code')
      return
    }
    this.#answered(server, pending, packet)
    this.#timeout(nowMs)
  }

  #answered(server: ServerState<Pending>, pending: Pending, packet: RadiusPacket): void {
    server.release(pending.slot, 'answered')
    server.waiting.delete(pending)
    if (server.answered()) {
      this.#nextProbeMs.delete(server.index)
      this.#outbox.event({ type: 'server-alive', server: server.settings.label })
    }
    if (pending.ticket === undefined) return
    const answer: RadiusAnswer = {
      code: packet.code,
      attributes: packet.attributes,
      requestAuthenticator: pending.authenticator,
      secret: server.settings.secret,
      server: server.settings.label,
    }
    const { ticket, request } = pending
    if (request.key !== undefined) {
      const isLate = server.takeKept(request.key) === pending
      this.#forget(request.key)
      if (isLate) {
        this.#lateAnswers.set(request.key, answer)
        return
      }
    }
    this.#unsettled.delete(ticket)
    this.#outbox.event({ type: 'answer', ticket, answer })
  }

  /** What waits elsewhere for an answer to the same. */
  #forget(key: number): void {
    this.#lateAnswers.delete(key)
    for (const server of this.#servers) {
      const kept = server.takeKept(key)
      if (kept !== undefined) server.release(kept.slot, 'given-up')
    }
  }

  // Silence

  #timeout(nowMs: number): void {
    for (const server of this.#servers) {
      for (const pending of server.waiting) {
        if (pending.deadlineMs > nowMs) break
        this.#unanswered(server, pending, nowMs)
      }
    }
    for (const { server, pending } of this.#unsettled.values()) {
      if (pending.endMs > nowMs) break
      // A server whose time was cut short by that of the request may have been about to answer.
      const isSilent = pending.transmissions > 1 || pending.deadlineMs <= nowMs
      this.#giveUp(server, pending, nowMs, isSilent)
    }
    for (const [index, probeMs] of this.#nextProbeMs) {
      const server = this.#servers[index]
      if (server !== undefined && probeMs <= nowMs) this.#probe(server, nowMs)
    }
  }

  #unanswered(server: ServerState<Pending>, pending: Pending, nowMs: number): void {
    const { tries, isReliable } = server.settings
    const mayRepeat = !isReliable && pending.ticket !== undefined
    if (mayRepeat && pending.transmissions < tries && nowMs < pending.endMs) {
      this.#transmit(server, pending, nowMs)
      return
    }
    this.#giveUp(server, pending, nowMs)
  }

  /** This server does not answer; the next may. */
  #giveUp(server: ServerState<Pending>, pending: Pending, nowMs: number, isSilent = true): void {
    const { ticket, request, asked, endMs } = pending
    server.waiting.delete(pending)
    const isKept =
      request.key !== undefined && !server.settings.isReliable && server.keep(request.key, pending)
    if (!isKept) server.release(pending.slot, 'given-up')
    if (ticket === undefined) return
    if (isSilent && server.failed(nowMs)) {
      this.#outbox.event({ type: 'server-dead', server: server.settings.label })
      if (server.settings.isProbed) this.#nextProbeMs.set(server.index, nowMs + probeIntervalMs)
    }
    if (nowMs >= endMs) {
      this.#fail(ticket, 'no-answer')
      return
    }
    this.#ask(ticket, request, new Set([...asked, server.index]), endMs, nowMs)
  }

  #probe(server: ServerState<Pending>, nowMs: number): void {
    if (!server.isDead(nowMs)) {
      this.#nextProbeMs.delete(server.index)
      return
    }
    this.#nextProbeMs.set(server.index, nowMs + probeIntervalMs)
    const what = { ticket: undefined, request: probeRequest, asked: new Set<number>(), endMs: 0 }
    this.#send(server, what, nowMs)
  }

  #socketLost({ server: index, socket }: { server: number; socket: number }, nowMs: number): void {
    const server = this.#servers[index]
    for (const pending of server?.pendingOn(socket) ?? []) {
      if (server !== undefined) this.#giveUp(server, pending, nowMs)
    }
  }
}

function isAnswer(code: number, isAccounting: boolean, isProbe: boolean): boolean {
  if (isAccounting) return code === RadiusCode['Accounting-Response']
  if (isProbe) return code === RadiusCode['Access-Accept']
  return (
    code === RadiusCode['Access-Accept'] ||
    code === RadiusCode['Access-Reject'] ||
    code === RadiusCode['Access-Challenge']
  )
}

/** Two PPP engines over a simulated link, with a clock that only the test moves. */

import { createHash } from 'node:crypto'
import type { Proof, Verdict } from '../../lib/aaa/authenticator.ts'
import { concatBytes, copyBytes, equalBytes, fromHex, utf8 } from '../../lib/core/bytes.ts'
import { timeout } from '../../lib/core/machine.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { serverKeysOf } from '../../lib/crypto/mppe-keys.ts'
import {
  checkEncryptedHash,
  checkNtResponse,
  decryptNewPassword,
  generateAuthenticatorResponse,
  ntPasswordHash,
} from '../../lib/crypto/ms-chap.ts'
import type { ServerNetwork } from '../../lib/ppp/settings.ts'
import { encodeControlPacket, parseControlPacket } from '../../lib/ppp/wire/control-packet.ts'
import { encodeFrame, PppProtocol, peel, protocolName } from '../../lib/ppp/wire/frame.ts'
import {
  type WholeClientSettings,
  WholeEngine,
  type WholeEvent,
  type WholeInput,
  type WholeServerSettings,
} from './whole-engine.ts'

export const password = 'clientPass-canary'
export const userName = 'DOMAIN\\alice'

export const serverSettings: WholeServerSettings = {
  role: 'server',
  mruBytes: 1400,
  serverName: 'openras',
  authentication: ['mschapv2', 'chap-md5', 'pap'],
}

export const clientSettings: WholeClientSettings = {
  role: 'client',
  mruBytes: 1400,
  userName,
  password: Secret.fromText(password),
  authentication: ['mschapv2', 'chap-md5', 'pap'],
  network: { ipv4: { wantsDns: true, wantsWins: true }, ipv6: {} },
}

export const network: ServerNetwork = {
  ipv4: {
    localAddress: 0x0a000001,
    peerAddress: 0x0a000042,
    dns: [0x0a000035, 0x0a000036],
    wins: [],
  },
  ipv6: {},
}

/** A users database of one. */
export class OneUser {
  password = password
  isExpired = false

  judge(name: string, proof: Proof): Verdict {
    const ntHash = ntPasswordHash(this.password)
    const reject = { type: 'reject', reason: 'bad-credentials', canRetry: true } as const
    if (name !== userName) return reject
    const authorization = { userName: 'alice' }
    switch (proof.method) {
      case 'pap':
        return proof.password.exposeText() === this.password
          ? { type: 'accept', authorization }
          : reject
      case 'chap-md5': {
        const input = concatBytes(
          Uint8Array.of(proof.identifier),
          utf8(this.password),
          proof.challenge,
        )
        const digest = Uint8Array.from(createHash('md5').update(input).digest())
        return equalBytes(digest, proof.response) ? { type: 'accept', authorization } : reject
      }
      case 'mschapv2': {
        const exchange = { userName: name, ...proof }
        if (!checkNtResponse(exchange, ntHash, proof.ntResponse)) return reject
        if (this.isExpired) return { type: 'reject', reason: 'password-expired', canRetry: true }
        return {
          type: 'accept',
          authorization,
          keys: serverKeysOf(ntHash, proof.ntResponse),
          authenticatorResponse: generateAuthenticatorResponse(exchange, ntHash, proof.ntResponse),
        }
      }
      case 'mschapv2-change-password': {
        const changed = decryptNewPassword(proof.encryptedPassword, ntHash)?.exposeText()
        const failed = { ...reject, reason: 'change-password-failed', canRetry: false } as const
        if (changed === undefined) return failed
        const newHash = ntPasswordHash(changed)
        if (!checkEncryptedHash(proof.encryptedHash, ntHash, newHash)) return failed
        const exchange = { userName: name, ...proof }
        if (!checkNtResponse(exchange, newHash, proof.ntResponse)) return failed
        this.password = changed
        this.isExpired = false
        return {
          type: 'accept',
          authorization,
          keys: serverKeysOf(newHash, proof.ntResponse),
          authenticatorResponse: generateAuthenticatorResponse(exchange, newHash, proof.ntResponse),
        }
      }
    }
  }
}

export interface Impairment {
  readonly lossPercent: number
  readonly duplicatePercent: number
  readonly reorderPercent: number
}

export const perfect: Impairment = { lossPercent: 0, duplicatePercent: 0, reorderPercent: 0 }

/** One engine with what it said. */
export class Side {
  readonly engine: WholeEngine
  readonly events: WholeEvent[] = []
  readonly sent: Uint8Array[] = []

  constructor(engine: WholeEngine) {
    this.engine = engine
  }

  /** Hands a buffer over and overwrites it afterwards: nothing may be kept. */
  handle(input: WholeInput | typeof timeout, nowMs: number): void {
    if (input.type === 'frame') {
      const bytes = copyBytes(input.bytes)
      this.engine.handle({ type: 'frame', bytes }, nowMs)
      bytes.fill(0xa5)
    } else this.engine.handle(input, nowMs)
    for (let out = this.engine.poll(); out !== undefined; out = this.engine.poll()) {
      if (out.type === 'transmit') this.sent.push(out.bytes)
      else this.events.push(out.event)
    }
  }

  frame(hex: string, nowMs = 0): void {
    this.handle({ type: 'frame', bytes: fromHex(hex) }, nowMs)
  }

  takeSent(): Uint8Array[] {
    return this.sent.splice(0)
  }

  of<T extends WholeEvent['type']>(type: T): Extract<WholeEvent, { type: T }>[] {
    return this.events.filter((e): e is Extract<WholeEvent, { type: T }> => e.type === type)
  }

  counters(): string[] {
    return this.of('unexpected').map(event => event.counter)
  }
}

interface InFlight {
  readonly to: Side
  readonly bytes: Uint8Array
  readonly atMs: number
}

export interface PairOptions {
  readonly seed?: number
  readonly server?: Partial<WholeServerSettings>
  readonly client?: Partial<WholeClientSettings>
  readonly impairment?: Impairment
  readonly users?: OneUser
  /** How long the users database thinks. */
  readonly verdictMs?: number
  readonly network?: ServerNetwork | undefined
}

const latencyMs = 20

export class Pair {
  readonly server: Side
  readonly client: Side
  nowMs = 0
  impairment: Impairment
  readonly #random: SeededRandom
  readonly #users: OneUser
  readonly #verdictMs: number
  readonly #network: ServerNetwork | undefined
  #inFlight: InFlight[] = []
  #later: { atMs: number; run: () => void }[] = []
  #judged = 0
  #granted = 0

  constructor(options: PairOptions = {}) {
    const seed = options.seed ?? 1
    this.#random = new SeededRandom(seed)
    this.#users = options.users ?? new OneUser()
    this.#verdictMs = options.verdictMs ?? 5
    this.#network = 'network' in options ? options.network : network
    this.impairment = options.impairment ?? perfect
    this.server = new Side(
      new WholeEngine({ ...serverSettings, ...options.server }, new SeededRandom(seed * 7 + 1)),
    )
    this.client = new Side(
      new WholeEngine({ ...clientSettings, ...options.client }, new SeededRandom(seed * 13 + 5)),
    )
  }

  open(): this {
    this.server.handle({ type: 'open' }, this.nowMs)
    this.client.handle({ type: 'open' }, this.nowMs)
    return this
  }

  /** Runs until `isDone`, or until `untilMs`; returns whether it was done. */
  run(untilMs: number, isDone: () => boolean = () => false): boolean {
    for (;;) {
      this.#collect()
      if (isDone()) return true
      const nextMs = Math.min(
        this.server.engine.nextDeadlineMs(),
        this.client.engine.nextDeadlineMs(),
        ...this.#inFlight.map(flight => flight.atMs),
        ...this.#later.map(later => later.atMs),
      )
      if (nextMs > untilMs) {
        this.nowMs = Math.max(this.nowMs, untilMs)
        return isDone()
      }
      this.nowMs = Math.max(this.nowMs, nextMs)
      const due = this.#inFlight.filter(flight => flight.atMs <= this.nowMs)
      this.#inFlight = this.#inFlight.filter(flight => flight.atMs > this.nowMs)
      for (const { to, bytes } of due) to.handle({ type: 'frame', bytes }, this.nowMs)
      const ready = this.#later.filter(later => later.atMs <= this.nowMs)
      this.#later = this.#later.filter(later => later.atMs > this.nowMs)
      for (const { run } of ready) run()
      for (const side of [this.server, this.client]) {
        if (side.engine.nextDeadlineMs() <= this.nowMs) side.handle(timeout, this.nowMs)
      }
    }
  }

  /** How often both sides have seen IPv4 go up. */
  upCount(): number {
    return Math.min(this.server.of('ipv4-up').length, this.client.of('ipv4-up').length)
  }

  isUp(): boolean {
    const balance = (side: Side) => side.of('ipv4-up').length - side.of('ipv4-down').length
    return balance(this.server) === 1 && balance(this.client) === 1
  }

  #collect(): void {
    this.#transmit(this.server, this.client)
    this.#transmit(this.client, this.server)
    const requests = this.server.of('authenticate')
    for (const { attempt, userName: name, proof } of requests.slice(this.#judged)) {
      const verdict = this.#users.judge(name, proof)
      this.#later.push({
        atMs: this.nowMs + this.#verdictMs,
        run: () => this.server.handle({ type: 'verdict', attempt, verdict }, this.nowMs),
      })
    }
    this.#judged = requests.length
    const authenticated = this.server.of('authenticated').length
    if (authenticated > this.#granted && this.#network !== undefined) {
      this.server.handle({ type: 'network', network: this.#network }, this.nowMs)
      this.#granted = authenticated
      this.#collect()
    }
  }

  #transmit(from: Side, to: Side): void {
    for (const bytes of from.takeSent()) {
      const copies = this.#isHit(this.impairment.duplicatePercent) ? 2 : 1
      for (let i = 0; i < copies; i++) {
        if (this.#isHit(this.impairment.lossPercent)) continue
        const delayMs = this.#isHit(this.impairment.reorderPercent) ? latencyMs * 5 : latencyMs
        this.#inFlight.push({ to, bytes, atMs: this.nowMs + delayMs })
      }
    }
  }

  #isHit(percent: number): boolean {
    return percent > 0 && this.#random.next() % 100 < percent
  }
}

/** A frame that an engine sent, taken apart. */
export interface Seen {
  readonly protocol: string
  readonly code: number
  readonly identifier: number
  readonly data: Uint8Array
}

export function seen(bytes: Uint8Array): Seen {
  const peeled = peel(bytes, 0, bytes.length)
  return {
    protocol: protocolName(peeled & 0xffff),
    ...parseControlPacket(bytes, peeled >>> 16),
  }
}

/** Plays a peer by hand against one engine. */
export class HandPlayed extends Side {
  nowMs = 0

  /** What the engine has sent since the last call. */
  take(): Seen[] {
    return this.takeSent().map(seen)
  }

  /** Sends one control packet; `dataHex` may have spaces. */
  play(
    protocol: keyof typeof PppProtocol,
    code: number,
    identifier: number,
    dataHex: string | Uint8Array,
  ): this {
    const data = typeof dataHex === 'string' ? fromHex(dataHex) : dataHex
    const packet = encodeControlPacket({ code, identifier, data })
    const bytes = encodeFrame(PppProtocol[protocol], packet)
    this.handle({ type: 'frame', bytes }, this.nowMs)
    return this
  }

  /** Acknowledges every Configure-Request that the engine sends for `protocol`. */
  acknowledge(protocol: 'lcp' | 'ipcp' | 'ipv6cp'): Seen[] {
    const packets = this.take()
    for (const packet of packets) {
      if (packet.protocol === protocol && packet.code === 1) {
        this.play(protocol, 2, packet.identifier, packet.data)
      }
    }
    return packets
  }

  /** Opens LCP with a Configure-Request of our own. */
  openLink(optionsHex = '0506 11223344'): this {
    this.handle({ type: 'open' }, this.nowMs)
    this.acknowledge('lcp')
    return this.play('lcp', 1, 1, optionsHex)
  }

  /** Moves the clock to each deadline up to `untilMs`. */
  waitUntil(untilMs: number): this {
    for (;;) {
      const nextMs = this.engine.nextDeadlineMs()
      if (nextMs > untilMs) break
      this.nowMs = nextMs
      this.handle(timeout, this.nowMs)
    }
    this.nowMs = untilMs
    return this
  }

  closed(): string {
    return this.of('closed')
      .map(event => event.cause)
      .join()
  }
}

export function handPlayedServer(settings: Partial<WholeServerSettings> = {}): HandPlayed {
  return new HandPlayed(new WholeEngine({ ...serverSettings, ...settings }, new SeededRandom(4242)))
}

export function handPlayedClient(settings: Partial<WholeClientSettings> = {}): HandPlayed {
  return new HandPlayed(new WholeEngine({ ...clientSettings, ...settings }, new SeededRandom(2424)))
}

/** A server whose client has proved itself with PAP and waits in the Network phase. */
export function acceptedByPap(settings: Partial<WholeServerSettings> = {}): HandPlayed {
  const server = handPlayedServer({ ...settings, authentication: ['pap'] }).openLink()
  server.play('pap', 1, 1, '0161 0162')
  const attempt = server.of('authenticate').at(-1)?.attempt ?? 0
  const verdict = { type: 'accept', authorization: { userName: 'a' } } as const
  server.handle({ type: 'verdict', attempt, verdict }, server.nowMs)
  server.takeSent()
  return server
}

/** The same with both network protocols up. */
export function upByPap(settings: Partial<WholeServerSettings> = {}): HandPlayed {
  const server = acceptedByPap(settings)
  server.handle({ type: 'network', network }, server.nowMs)
  const packets = server.take()
  for (const name of ['ipcp', 'ipv6cp'] as const) {
    const request = packets.find(packet => packet.protocol === name)
    if (request !== undefined) server.play(name, 2, request.identifier, request.data)
  }
  server.play('ipcp', 1, 1, '0306 0a000042').play('ipv6cp', 1, 1, '010a 0000000000000001')
  server.takeSent()
  return server
}

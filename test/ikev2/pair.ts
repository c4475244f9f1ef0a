/**
 * Our initiator and our responder over a simulated link that loses, repeats and reorders, with one
 * manual clock. The composer's part (users, certificates, addresses) is played here.
 */
import { createPublicKey, type KeyObject } from 'node:crypto'
import type { AuthenticationRequest, Verdict } from '../../lib/aaa/authenticator.ts'
import { toHex, utf8 } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { digest } from '../../lib/crypto/hash.ts'
import { serverKeysOf } from '../../lib/crypto/mppe-keys.ts'
import {
  checkNtResponse,
  generateAuthenticatorResponse,
  ntPasswordHash,
} from '../../lib/crypto/ms-chap.ts'
import { readFirstRequest } from '../../lib/ikev2/cookie-jar.ts'
import type { ChildDescription, IkeSaEvent } from '../../lib/ikev2/event.ts'
import { identityOf } from '../../lib/ikev2/identity.ts'
import { IkeSa } from '../../lib/ikev2/ike-sa.ts'
import type { Grant, GrantVerdict, IkeSaInput } from '../../lib/ikev2/input.ts'
import {
  defaultFeatures,
  defaultSignaturePolicy,
  defaultTiming,
  type IkeSaOptions,
} from '../../lib/ikev2/options.ts'
import type { Path } from '../../lib/ikev2/path.ts'
import { defaultEspAlgorithms, defaultIkeAlgorithms } from '../../lib/ikev2/suite.ts'
import { everything } from '../../lib/ikev2/traffic-selectors.ts'

export const users: Readonly<Record<string, string>> = {
  alice: 'correct horse',
  User: 'clientPass',
}

export const defaultGrant: Grant = {
  ipv4Address: 0x0a090001,
  ipv4Dns: [0x01010101, 0x08080808],
  localSelectors: everything,
}

export interface LinkFaults {
  /** Shares of datagrams, 0..1. */
  readonly loss: number
  readonly duplication: number
  /** Delay of a datagram: `latencyMs` and up to `jitterMs` more, so that they overtake each other. */
  readonly latencyMs: number
  readonly jitterMs: number
}

export const perfectLink: LinkFaults = { loss: 0, duplication: 0, latencyMs: 5, jitterMs: 0 }

type Shape<T> = { [Key in keyof T]?: T[Key] }

export interface PairOptions {
  readonly seed?: number
  readonly link?: LinkFaults
  readonly initiator?: Shape<IkeSaOptions>
  readonly responder?: Shape<IkeSaOptions>
  readonly grant?: GrantVerdict
  /** The initiator stands behind a NAT. */
  readonly nat?: boolean
  /** Certificates by their (opaque) bytes. */
  readonly certificates?: ReadonlyMap<string, KeyObject>
  /** Change or drop a datagram on its way; `undefined` drops it. */
  readonly onPath?: (bytes: Uint8Array, from: 'initiator' | 'responder') => Uint8Array | undefined
}

const clientAddress = '198.51.100.10'
const serverAddress = '192.0.2.1'
const natAddress = '203.0.113.5'

let spiCounter = 0x1000

function pathFor(role: 'initiator' | 'responder'): Path {
  const [own, other] =
    role === 'initiator' ? [clientAddress, serverAddress] : [serverAddress, clientAddress]
  return { local: { address: own, port: 500 }, peer: { address: other, port: 500 } }
}

export function optionsFor(role: 'initiator' | 'responder'): IkeSaOptions {
  const isInitiator = role === 'initiator'
  return {
    role,
    localIdentities: [
      {
        identity: identityOf(isInitiator ? 'branch@example.com' : 'vpn.example.com'),
        credential: { type: 'psk', secret: Secret.fromText('a long preshared key') },
      },
    ],
    peer: {
      acceptsCertificates: true,
      authorities: [],
      presharedKeys: [{ identity: undefined, secret: Secret.fromText('a long preshared key') }],
    },
    signature: defaultSignaturePolicy,
    ikeAlgorithms: defaultIkeAlgorithms,
    child: {
      algorithms: defaultEspAlgorithms,
      transportMode: false,
      localSelectors: everything,
      remoteSelectors: everything,
    },
    ...(isInitiator ? { configurationAttributes: [1, 3, 8, 10] } : {}),
    vendorIds: [],
    timing: defaultTiming,
    features: { ...defaultFeatures, keyLog: true },
  }
}

interface Flight {
  readonly atMs: number
  readonly order: number
  readonly to: 'initiator' | 'responder'
  readonly bytes: Uint8Array
  readonly path: Path
}

/** One end with what its composer would hold. */
export class End {
  readonly role: 'initiator' | 'responder'
  machine: IkeSa
  readonly events: IkeSaEvent[] = []
  readonly children = new Map<number, ChildDescription>()
  activeChild: number | undefined
  spis = new Set<string>()
  readonly options: IkeSaOptions
  readonly path: Path

  constructor(role: 'initiator' | 'responder', options: IkeSaOptions, seed: number) {
    this.role = role
    this.options = options
    this.path = pathFor(role)
    this.machine = new IkeSa(options, this.path, {
      random: new SeededRandom(seed * 2 + (role === 'initiator' ? 1 : 0) + 77),
      newEspSpi: () => ++spiCounter,
      hasHeard: () => false,
    })
  }

  of<Type extends IkeSaEvent['type']>(type: Type): Extract<IkeSaEvent, { type: Type }>[] {
    return this.events.filter(
      (event): event is Extract<IkeSaEvent, { type: Type }> => event.type === type,
    )
  }

  count(what: string): number {
    return this.of('unexpected').filter(event => event.what === what).length
  }

  get closed(): Extract<IkeSaEvent, { type: 'closed' }> | undefined {
    return this.of('closed')[0]
  }
}

export class Pair {
  nowMs = 0
  readonly initiator: End
  readonly responder: End
  readonly datagrams: { from: End['role']; bytes: Uint8Array; atMs: number }[] = []
  link: LinkFaults
  natPort = 40_000
  /** A move of the client: its address changes. */
  clientAddress = clientAddress
  readonly #options: PairOptions
  readonly #random: SeededRandom
  readonly #flights: Flight[] = []
  #order = 0

  constructor(options: PairOptions = {}) {
    const seed = options.seed ?? 1
    this.#options = options
    this.#random = new SeededRandom(seed + 1000)
    this.link = options.link ?? perfectLink
    const [initiator, responder] = [optionsFor('initiator'), optionsFor('responder')]
    this.initiator = new End('initiator', { ...initiator, ...options.initiator }, seed)
    this.responder = new End('responder', { ...responder, ...options.responder }, seed)
  }

  end(role: End['role']): End {
    return role === 'initiator' ? this.initiator : this.responder
  }

  send(role: End['role'], input: IkeSaInput): void {
    const end = this.end(role)
    end.machine.handle(input, this.nowMs)
    this.#drain(end)
  }

  /** Fetches what a machine has produced, when it was driven directly. */
  drain(role: End['role']): void {
    this.#drain(this.end(role))
  }

  /** Dials and waits until both sides are established, or one is closed. */
  dial(): boolean {
    this.send('initiator', { type: 'start' })
    return this.run(120_000, () => this.#isSettled()) && this.isEstablished
  }

  get isEstablished(): boolean {
    return (
      this.initiator.machine.state === 'established' &&
      this.responder.machine.state === 'established'
    )
  }

  #isSettled(): boolean {
    const states = [this.initiator.machine.state, this.responder.machine.state]
    return states.includes('closed') || states.every(state => state === 'established')
  }

  /** Moves time on, event by event, until `done` or for `forMs`. */
  run(forMs: number, done: () => boolean = () => false): boolean {
    const endMs = this.nowMs + forMs
    while (!done()) {
      const flight = this.#next()
      const deadlineMs = Math.min(
        this.initiator.machine.nextDeadlineMs(),
        this.responder.machine.nextDeadlineMs(),
      )
      const nextMs = Math.min(flight?.atMs ?? Number.POSITIVE_INFINITY, deadlineMs)
      if (nextMs > endMs) {
        this.nowMs = endMs
        return done()
      }
      this.nowMs = Math.max(this.nowMs, nextMs)
      if (flight !== undefined && flight.atMs <= nextMs) {
        this.#flights.splice(this.#flights.indexOf(flight), 1)
        this.#deliver(flight)
        continue
      }
      for (const end of [this.initiator, this.responder]) {
        if (end.machine.nextDeadlineMs() > this.nowMs) continue
        end.machine.handle({ type: 'timeout' }, this.nowMs)
        this.#drain(end)
      }
    }
    return true
  }

  /** Lets what is under way arrive: no flights, no requests out. */
  settle(forMs = 60_000): void {
    this.run(forMs)
  }

  #next(): Flight | undefined {
    let first: Flight | undefined
    for (const flight of this.#flights) {
      const isEarlier =
        first === undefined ||
        flight.atMs < first.atMs ||
        (flight.atMs === first.atMs && flight.order < first.order)
      if (isEarlier) first = flight
    }
    return first
  }

  #deliver(flight: Flight): void {
    const end = this.end(flight.to)
    // A fresh responder sees what a listener would let through.
    if (end.machine.state === 'fresh' && readFirstRequest(flight.bytes).fault) return
    end.machine.handle({ type: 'datagram', bytes: flight.bytes, path: flight.path }, this.nowMs)
    // What was handed in is the ring's: nothing may have been kept.
    flight.bytes.fill(0xee)
    this.#drain(end)
  }

  #share(): number {
    return this.#random.next() / 2 ** 32
  }

  /** Puts a datagram on the link towards the other side. */
  transmit(from: End, bytes: Uint8Array, path: Path): void {
    this.datagrams.push({ from: from.role, bytes: bytes.slice(), atMs: this.nowMs })
    const to = from.role === 'initiator' ? 'responder' : 'initiator'
    const changed = this.#options.onPath
      ? this.#options.onPath(bytes.slice(), from.role)
      : bytes.slice()
    if (changed === undefined) return
    const copies = this.#share() < this.link.duplication ? 2 : 1
    for (let i = 0; i < copies; i++) {
      if (this.#share() < this.link.loss) continue
      this.#flights.push({
        atMs: this.nowMs + this.link.latencyMs + this.#share() * this.link.jitterMs,
        order: this.#order++,
        to,
        bytes: changed.slice(),
        path: this.#translate(from.role, path),
      })
    }
  }

  /** The path as the receiver sees it. */
  #translate(from: End['role'], path: Path): Path {
    if (from === 'initiator') {
      const { port } = path.local
      const source = this.#options.nat
        ? { address: natAddress, port: this.natPort + (port === 4500 ? 1 : 0) }
        : { address: path.local.address, port }
      return { local: path.peer, peer: source }
    }
    const port = this.#options.nat
      ? path.peer.port === this.natPort + 1
        ? 4500
        : 500
      : path.peer.port
    return {
      local: { address: this.#initiatorAddress(path), port },
      peer: path.local,
    }
  }

  #initiatorAddress(path: Path): string {
    return this.#options.nat ? this.clientAddress : path.peer.address
  }

  #drain(end: End): void {
    for (let out = end.machine.poll(); out !== undefined; out = end.machine.poll()) {
      if (out.type === 'event') this.#event(end, out.event)
    }
  }

  #event(end: End, event: IkeSaEvent): void {
    end.events.push(event)
    switch (event.type) {
      case 'datagram':
        this.transmit(end, event.bytes, event.path)
        return
      case 'spi-added':
        end.spis.add(toHex(event.localSpi))
        return
      case 'spi-removed':
        end.spis.delete(toHex(event.localSpi))
        return
      case 'child-up':
        end.children.set(event.child.inboundSpi, event.child)
        return
      case 'child-active':
        end.activeChild = event.inboundSpi
        return
      case 'child-down':
        end.children.delete(event.inboundSpi)
        if (end.activeChild === event.inboundSpi) end.activeChild = undefined
        return
      case 'authenticate':
        end.machine.handle(
          { type: 'verdict', ticket: event.ticket, verdict: judge(event.request) },
          this.nowMs,
        )
        return
      case 'verify-certificate': {
        const leaf = event.certificates[0] ?? new Uint8Array(0)
        const publicKey = this.#options.certificates?.get(toHex(leaf))
        end.machine.handle(
          {
            type: 'certificate-verdict',
            ticket: event.ticket,
            verdict: publicKey
              ? { type: 'accept', publicKey, authorization: { userName: 'device-7' } }
              : { type: 'reject', detail: 'unknown-authority' },
          },
          this.nowMs,
        )
        return
      }
      case 'need-grant':
        end.machine.handle(
          {
            type: 'grant-verdict',
            ticket: event.ticket,
            verdict: this.#options.grant ?? { type: 'grant', grant: defaultGrant },
          },
          this.nowMs,
        )
        return
      default:
        return
    }
  }

  /** Whether what one side sends through its active Child SA, the other can read. */
  carriesTraffic(): boolean {
    return isReadable(this.initiator, this.responder) && isReadable(this.responder, this.initiator)
  }
}

function isReadable(from: End, to: End): boolean {
  const child = from.activeChild === undefined ? undefined : from.children.get(from.activeChild)
  const other = child && to.children.get(child.outboundSpi)
  if (!child || !other) return false
  return (
    child.outbound.encryption.equals(other.inbound.encryption) &&
    child.outbound.integrity.equals(other.inbound.integrity) &&
    child.outbound.encryption.length > 0 &&
    !child.outbound.encryption.equals(child.inbound.encryption)
  )
}

/** Local users, as an Authenticator would judge. */
export function judge(request: AuthenticationRequest): Verdict {
  const { proof } = request
  const userName = request.userName.slice(request.userName.lastIndexOf('\\') + 1)
  const password = users[userName]
  const refused: Verdict = { type: 'reject', reason: 'bad-credentials', canRetry: false }
  if (password === undefined) return refused
  if (proof.method === 'chap-md5') {
    const expected = digest('md5', Uint8Array.of(proof.identifier), utf8(password), proof.challenge)
    return toHex(expected) === toHex(proof.response)
      ? { type: 'accept', authorization: { userName } }
      : refused
  }
  if (proof.method !== 'mschapv2') return refused
  const exchange = {
    userName: request.userName,
    authenticatorChallenge: proof.authenticatorChallenge,
    peerChallenge: proof.peerChallenge,
  }
  const ntHash = ntPasswordHash(password)
  if (!checkNtResponse(exchange, ntHash, proof.ntResponse)) return refused
  return {
    type: 'accept',
    authorization: { userName },
    keys: serverKeysOf(ntHash, proof.ntResponse),
    authenticatorResponse: generateAuthenticatorResponse(exchange, ntHash, proof.ntResponse),
  }
}

export function publicOf(key: KeyObject): KeyObject {
  return createPublicKey(key)
}

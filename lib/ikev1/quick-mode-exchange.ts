/**
 * One quick mode exchange: what its three messages carry, and the pair of ESP SAs that comes of them.
 * RFC 2409 §5.5, RFC 2407 §4.6, RFC 3947 §5. The states stand in `quick-mode.ts`; hashes over whole
 * messages, encryption and repetition are the machine's.
 */
import { putU32, u32 } from '../core/bytes.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import type { KeyExchangeOffer } from '../crypto/key-exchange.ts'
import { keyExchange } from '../crypto/key-exchanges.ts'
import type { Child } from './event.ts'
import { addressBytes } from './path.ts'
import type { Phase1 } from './phase1.ts'
import { addressIdentity } from './phase1.ts'
import { choosePhase2, type EncapsulationMode, type IkePolicy, phase2Offer } from './policy.ts'
import type { CbcChain } from './protection.ts'
import { type QuickModeEvent, type QuickModeState, quickModeTable } from './quick-mode.ts'
import { IdType, NotifyType, ProtocolId } from './wire/numbers.ts'
import {
  filterPayloads,
  findPayload,
  type Identification,
  idPayload,
  type Payload,
  type PayloadOf,
  saPayload,
} from './wire/payload.ts'

const shortestNonceBytes = 8
const longestNonceBytes = 256
const nonceBytes = 32
/** RFC 2407 §4.6.2: IP protocol of a service. */
const anyProtocol = 0
const anyPort = 0

/** The one kind of traffic that the SAs carry: UDP port 1701 for L2TP. */
export interface ProtectedService {
  readonly protocol: number
  readonly port: number
}

export interface QuickModePorts {
  send(payloads: readonly Payload[]): void
  /** Message 3: nothing but the hash. */
  sendConfirmation(): void
  sendNotify(notifyType: number): void
  childUp(child: Child, canSend: boolean): void
  childConfirmed(child: Child): void
  childDown(child: Child, detail: string): void
  failed(detail: string): void
  unexpected(what: string): void
}

export interface QuickModeOptions {
  readonly policy: IkePolicy
  readonly random: RandomSource
  readonly service: ProtectedService
  allocateSpi(): number
  /** NAT-OA payloads are sent (RFC 3947 §5.2). */
  readonly sendsOriginalAddresses: boolean
}

/** What the owner of an initiator wants. */
export interface QuickModeIntent {
  readonly localSelector: Identification | undefined
  readonly peerSelector: Identification | undefined
  /** Perfect forward secrecy with this group; the policy may ask for it too. */
  readonly group: number | undefined
  readonly replaces: number | undefined
  readonly reference: number | undefined
}

export class QuickModeExchange {
  readonly messageId: number
  readonly chain: CbcChain
  readonly #phase1: Phase1
  readonly #options: QuickModeOptions
  readonly #ports: QuickModePorts
  #state: QuickModeState = 'idle'
  #intent: QuickModeIntent | undefined
  #nonceI: Uint8Array = new Uint8Array(0)
  #nonceR: Uint8Array = new Uint8Array(0)
  #offer: KeyExchangeOffer | undefined
  #group: number | undefined
  #inboundSpi = 0
  #answer: readonly Payload[] = []
  #child: Child | undefined
  #refusal = { notifyType: 0, detail: '' }

  constructor(
    messageId: number,
    chain: CbcChain,
    phase1: Phase1,
    options: QuickModeOptions,
    ports: QuickModePorts,
  ) {
    this.messageId = messageId
    this.chain = chain
    this.#phase1 = phase1
    this.#options = options
    this.#ports = ports
  }

  get state(): QuickModeState {
    return this.#state
  }

  /** Ni_b, which the hash of message 2 covers (RFC 2409 §5.5). */
  get nonceI(): Uint8Array {
    return this.#nonceI
  }

  get nonceR(): Uint8Array {
    return this.#nonceR
  }

  get child(): Child | undefined {
    return this.#child
  }

  get reference(): number | undefined {
    return this.#intent?.reference
  }

  open(intent: QuickModeIntent): void {
    this.#intent = intent
    this.#step('open')
  }

  /** The payloads behind a hash that was right; `what` is the number of the message. */
  receiveRequest(payloads: readonly Payload[], nowMs: number, replaces: number | undefined): void {
    if (quickModeTable[this.#state].request === null) {
      this.#step('request')
      return
    }
    const refusal = this.#prepareAnswer(payloads, nowMs, replaces)
    if (refusal === undefined) this.#step('request')
    else this.#refuse('request-bad', ...refusal)
  }

  receiveAnswer(payloads: readonly Payload[], nowMs: number): void {
    if (quickModeTable[this.#state].answer === null) {
      this.#step('answer')
      return
    }
    const refusal = this.#takeAnswer(payloads, nowMs)
    if (refusal === undefined) this.#step('answer')
    else this.#refuse('answer-bad', ...refusal)
  }

  confirm(): void {
    this.#step('confirmation')
  }

  /** A protected notification of the peer that refuses our proposal. */
  refused(name: string): void {
    this.#refusal = { notifyType: 0, detail: name }
    this.#step('refusal')
  }

  expire(): void {
    this.#refusal = { notifyType: 0, detail: 'no answer in quick mode' }
    this.#step('expire')
  }

  destroy(): void {
    this.#offer?.destroy()
  }

  #refuse(event: 'request-bad' | 'answer-bad', notifyType: number, detail: string): void {
    this.#refusal = { notifyType, detail }
    this.#step(event)
  }

  #step(event: QuickModeEvent): void {
    const cell = quickModeTable[this.#state][event]
    if (cell === null) {
      if (event !== 'expire') this.#ports.unexpected(event)
      return
    }
    this.#state = cell.next
    for (const action of cell.actions) {
      switch (action) {
        case 'send-request':
          this.#sendRequest()
          break
        case 'send-answer':
          this.#ports.send(this.#answer)
          break
        case 'send-confirmation':
          this.#ports.sendConfirmation()
          break
        case 'send-notify':
          this.#ports.sendNotify(this.#refusal.notifyType)
          break
        case 'child-up':
          // The initiator has the peer's proof; the responder gets it with message 3.
          if (this.#child !== undefined) {
            this.#ports.childUp(this.#child, this.#child.isInitiator)
          }
          break
        case 'child-confirmed':
          if (this.#child !== undefined) this.#ports.childConfirmed(this.#child)
          break
        case 'child-down':
          if (this.#child !== undefined) this.#ports.childDown(this.#child, this.#refusal.detail)
          break
        case 'report':
          this.#ports.failed(this.#refusal.detail)
          break
      }
    }
  }

  // Initiator

  #sendRequest(): void {
    const { policy, random, service } = this.#options
    const { path } = this.#phase1
    this.#nonceI = randomBytes(random, nonceBytes)
    this.#inboundSpi = this.#options.allocateSpi()
    const [encapsulation] = this.#encapsulations()
    const insisted = policy.requiresPfs ? policy.groups[0] : undefined
    this.#group = this.#intent?.group ?? insisted
    const payloads: Payload[] = [
      saPayload(phase2Offer(policy, spiBytes(this.#inboundSpi), encapsulation, this.#group)),
      { type: 'NONCE', data: this.#nonceI },
    ]
    if (this.#group !== undefined) {
      this.#offer = keyExchange(this.#group)?.offer(random)
      if (this.#offer !== undefined) payloads.push({ type: 'KE', data: this.#offer.publicValue })
    }
    const local =
      this.#intent?.localSelector ??
      addressIdentity(path.local.address, service.protocol, service.port)
    const peer =
      this.#intent?.peerSelector ??
      addressIdentity(path.peer.address, service.protocol, service.port)
    payloads.push(idPayload(local), idPayload(peer))
    payloads.push(...this.#originalAddresses(path.local.address, path.peer.address))
    this.#ports.send(payloads)
  }

  #takeAnswer(payloads: readonly Payload[], nowMs: number): [number, string] | undefined {
    const sa = findPayload(payloads, 'SA')
    const nonce = findPayload(payloads, 'NONCE')
    if (sa === undefined || nonce === undefined || !isNonceGood(nonce)) {
      return [NotifyType['PAYLOAD-MALFORMED'], 'incomplete answer']
    }
    const choice = choosePhase2(sa.proposals, this.#options.policy, this.#encapsulations())
    if (typeof choice === 'string') return [NotifyType['NO-PROPOSAL-CHOSEN'], choice]
    if (choice.group !== this.#group) return [NotifyType['NO-PROPOSAL-CHOSEN'], 'other group']
    let shared: Uint8Array | undefined
    if (this.#group !== undefined) {
      const ke = findPayload(payloads, 'KE')
      const secret = ke === undefined ? undefined : this.#offer?.finish(ke.data)
      if (secret === undefined || typeof secret === 'number') {
        return [NotifyType['PAYLOAD-MALFORMED'], 'bad public value']
      }
      shared = secret.expose()
    }
    this.#nonceR = nonce.data
    const [local, peer] = filterPayloads(payloads, 'ID')
    const { service } = this.#options
    const { path } = this.#phase1
    this.#child = this.#makeChild(
      choice,
      local ?? addressIdentity(path.local.address, service.protocol, service.port),
      peer ?? addressIdentity(path.peer.address, service.protocol, service.port),
      filterPayloads(payloads, 'NAT-OA'),
      shared,
      true,
      this.#intent?.replaces,
      nowMs,
    )
    return undefined
  }

  // Responder

  #prepareAnswer(
    payloads: readonly Payload[],
    nowMs: number,
    replaces: number | undefined,
  ): [number, string] | undefined {
    const { policy, random, service } = this.#options
    const sa = findPayload(payloads, 'SA')
    const nonce = findPayload(payloads, 'NONCE')
    if (sa === undefined || nonce === undefined || !isNonceGood(nonce)) {
      return [NotifyType['PAYLOAD-MALFORMED'], 'incomplete request']
    }
    const [peerId, localId] = filterPayloads(payloads, 'ID')
    const { path } = this.#phase1
    const peer = peerId ?? addressIdentity(path.peer.address, anyProtocol, anyPort)
    const local = localId ?? addressIdentity(path.local.address, anyProtocol, anyPort)
    if (!isServed(peer, local, service)) {
      return [NotifyType['INVALID-ID-INFORMATION'], 'traffic that is not served here']
    }
    const choice = choosePhase2(sa.proposals, policy, this.#encapsulations())
    if (typeof choice === 'string') return [NotifyType['NO-PROPOSAL-CHOSEN'], choice]
    const answer: Payload[] = []
    let shared: Uint8Array | undefined
    if (choice.group !== undefined) {
      const ke = findPayload(payloads, 'KE')
      const result =
        ke === undefined ? undefined : keyExchange(choice.group)?.answer(ke.data, random)
      if (result === undefined || typeof result === 'number') {
        return [NotifyType['PAYLOAD-MALFORMED'], 'bad public value']
      }
      answer.push({ type: 'KE', data: result.publicValue })
      shared = result.sharedSecret.expose()
    }
    this.#nonceI = nonce.data
    this.#nonceR = randomBytes(random, nonceBytes)
    this.#inboundSpi = this.#options.allocateSpi()
    const chosen = { ...choice.answer, spi: spiBytes(this.#inboundSpi) }
    // Both identities go back unchanged.
    const identities = peerId !== undefined && localId !== undefined ? [peerId, localId] : []
    this.#answer = [
      saPayload([chosen]),
      { type: 'NONCE', data: this.#nonceR },
      ...answer,
      ...identities,
      ...this.#originalAddresses(path.peer.address, path.local.address),
    ]
    this.#child = this.#makeChild(
      choice,
      local,
      peer,
      filterPayloads(payloads, 'NAT-OA'),
      shared,
      false,
      replaces,
      nowMs,
    )
    return undefined
  }

  /** Modes that fit what was found about NATs, the likeliest first. */
  #encapsulations(): [EncapsulationMode, ...EncapsulationMode[]] {
    if (!this.#phase1.isEncapsulated) return ['transport']
    return this.#phase1.usesDraftNumbers
      ? ['udp-transport-draft', 'udp-transport']
      : ['udp-transport', 'udp-transport-draft']
  }

  #originalAddresses(initiator: string, responder: string): PayloadOf<'NAT-OA'>[] {
    if (!this.#phase1.isEncapsulated || !this.#options.sendsOriginalAddresses) return []
    return [initiator, responder].map(address => {
      const data = addressBytes(address)
      return {
        type: 'NAT-OA',
        isDraft: this.#phase1.usesDraftNumbers,
        idType: data.length === 16 ? IdType.ipv6Address : IdType.ipv4Address,
        data,
      }
    })
  }

  #makeChild(
    choice: Exclude<ReturnType<typeof choosePhase2>, string>,
    localSelector: Identification,
    peerSelector: Identification,
    originalAddresses: readonly PayloadOf<'NAT-OA'>[],
    shared: Uint8Array | undefined,
    isInitiator: boolean,
    replaces: number | undefined,
    nowMs: number,
  ): Child | undefined {
    const { keys } = this.#phase1
    if (keys === undefined) return undefined
    const derive = (spi: Uint8Array) =>
      keys.childKeys(choice.suite, ProtocolId.esp, spi, this.#nonceI, this.#nonceR, shared)
    const child: Child = {
      inboundSpi: this.#inboundSpi,
      outboundSpi: u32(choice.peerSpi, 0),
      suite: choice.suite,
      inboundKeys: derive(spiBytes(this.#inboundSpi)),
      outboundKeys: derive(choice.peerSpi),
      isUdpEncapsulated: choice.encapsulation !== 'transport',
      localSelector,
      peerSelector,
      originalAddresses: originalAddresses.map(payload => payload.data),
      lifetimes: choice.lifetimes,
      group: choice.group,
      isInitiator,
      createdMs: nowMs,
      replaces,
    }
    shared?.fill(0)
    return child
  }
}

export function spiBytes(spi: number): Uint8Array {
  const out = new Uint8Array(4)
  putU32(out, 0, spi)
  return out
}

function isNonceGood(nonce: PayloadOf<'NONCE'>): boolean {
  return nonce.data.length >= shortestNonceBytes && nonce.data.length <= longestNonceBytes
}

/**
 * Whether the identities of a request name our service, at either end. The other port may be any
 * (macOS uses an ephemeral one) and the peer's address too: behind a NAT it is a private one.
 */
function isServed(peer: Identification, local: Identification, service: ProtectedService): boolean {
  return (
    (local.protocol === service.protocol || local.protocol === anyProtocol) &&
    (peer.protocol === service.protocol || peer.protocol === anyProtocol) &&
    (local.port === service.port || local.port === anyPort || peer.port === service.port)
  )
}

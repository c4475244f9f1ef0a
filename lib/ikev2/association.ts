/**
 * One pair of IKE SPIs with its keys, message IDs and reassembly: what RFC 7296 calls an IKE SA. A
 * connection has one, and for a while two or three when it is rekeyed (§2.18).
 */
import { fromHex, packBytes, toHex, unpackBytes } from '../core/bytes.ts'
import type { Secret } from '../core/secret.ts'
import { PayloadCipher } from '../crypto/payload-cipher.ts'
import { FragmentSet } from './fragments.ts'
import { destroyIkeKeys, type IkeKeys, keepDerivationKey, type NoncePair } from './key-schedule.ts'
import type { SpiPair } from './nat-detection.ts'
import type { Path } from './path.ts'
import type { IkeSuite } from './suite.ts'
import type { Task } from './task.ts'
import type { ExchangeName } from './wire/exchange-type.ts'
import { SPI_BYTES } from './wire/header.ts'
import type { Payload } from './wire/payload.ts'

/** A request of ours that waits for its response. */
export interface Outstanding {
  readonly task: Task
  readonly messageId: number
  readonly exchange: ExchangeName
  readonly payloads: readonly Payload[]
  datagrams: readonly Uint8Array[]
  tries: number
}

/** A request of the peer that we have taken and not answered yet. */
export interface Answering {
  readonly messageId: number
  readonly exchange: ExchangeName
  /** Where the answer goes: back to where the request came from (RFC 7296 §2.11). */
  readonly path: Path
  /** Size of the request's largest fragment, 0 when it was whole. */
  readonly fragmentBytes: number
}

/** The peer's rekeying of this IKE SA, waiting for further key exchanges (RFC 9370 §2.2.4). */
export interface PendingRekey {
  readonly suite: IkeSuite
  readonly nonces: NoncePair
  readonly localSpi: Uint8Array
  readonly peerSpi: Uint8Array
  /** SK(0), SK(1)… as far as they are known. */
  readonly secrets: readonly Secret[]
  /** Methods still to come. */
  readonly remaining: readonly number[]
  /** What ties the next request to this. */
  readonly link: Uint8Array
}

const noSpi = toHex(new Uint8Array(SPI_BYTES))

export class Association {
  /** Names its timers. */
  readonly index: number
  /** Whether we were the initiator of the exchange that made it: bit I of the header. */
  readonly isInitiator: boolean
  /** In hexadecimal digits: an array takes six times as much. */
  readonly #localSpi: string
  #peerSpi = noSpi
  #suite: IkeSuite | undefined
  #keys: IkeKeys | undefined
  #sender: PayloadCipher | undefined
  #receiver: PayloadCipher | undefined
  /** Opens repetitions of requests from before the keys changed (RFC 9242 §3). */
  #previousReceiver: PayloadCipher | undefined
  #keysSinceRequestId = 0

  /** Message ID of our next request, and of the peer's next one (RFC 7296 §2.2). */
  nextRequestId = 0
  expectedRequestId = 0
  outstanding: Outstanding | undefined
  answering: Answering | undefined
  /** To the request before `expectedRequestId`: kept as long as the IKE SA, so kept small. */
  #lastReply: { readonly messageId: number; readonly datagrams: readonly string[] } | undefined
  /** The cleartext request that the last reply answers; protected ones prove themselves. */
  lastRequest: Uint8Array | undefined
  readonly queue: Task[] = []
  pendingRekey: PendingRekey | undefined
  #requestFragments: FragmentSet | undefined
  #responseFragments: FragmentSet | undefined
  /** Another association has taken its place; only its deletion is still to come. */
  isReplaced = false

  constructor(index: number, isInitiator: boolean, localSpi: Uint8Array) {
    this.index = index
    this.isInitiator = isInitiator
    this.#localSpi = toHex(localSpi)
  }

  get localSpi(): Uint8Array {
    return fromHex(this.#localSpi)
  }

  get peerSpi(): Uint8Array {
    return fromHex(this.#peerSpi)
  }

  set peerSpi(spi: Uint8Array) {
    this.#peerSpi = toHex(spi)
  }

  get spis(): SpiPair {
    const { localSpi, peerSpi } = this
    return this.isInitiator
      ? { initiatorSpi: localSpi, responderSpi: peerSpi }
      : { initiatorSpi: peerSpi, responderSpi: localSpi }
  }

  get suite(): IkeSuite | undefined {
    return this.#suite
  }

  get keys(): IkeKeys | undefined {
    return this.#keys
  }

  get sender(): PayloadCipher | undefined {
    return this.#sender
  }

  get receiver(): PayloadCipher | undefined {
    return this.#receiver
  }

  /** What opens a message: an old request, sent again, is under the keys of its time. */
  receiverOf(messageId: number, isResponse: boolean): PayloadCipher | undefined {
    const isOld = !isResponse && messageId < this.#keysSinceRequestId
    return isOld ? this.#previousReceiver : this.#receiver
  }

  /** Keeps the answer to a request, instead of the one before, in case it is asked again. */
  keepReply(messageId: number, datagrams: readonly Uint8Array[]): void {
    this.#lastReply = { messageId, datagrams: datagrams.map(packBytes) }
  }

  /** What was answered to this request, when it was the last one. */
  replyTo(messageId: number): readonly Uint8Array[] | undefined {
    return this.hasReplyTo(messageId) ? this.#lastReply?.datagrams.map(unpackBytes) : undefined
  }

  hasReplyTo(messageId: number): boolean {
    return this.#lastReply?.messageId === messageId
  }

  /** Takes over the keys, and wipes those before them. */
  install(suite: IkeSuite, keys: IkeKeys): void {
    this.#sender?.destroy()
    this.#previousReceiver?.destroy()
    this.#previousReceiver = this.#receiver
    this.#keysSinceRequestId = this.#receiver ? this.expectedRequestId : 0
    if (this.#keys) destroyIkeKeys(this.#keys)
    this.#suite = suite
    this.#keys = keys
    const { encryption, integrity } = suite
    const fromInitiator = new PayloadCipher({
      encryption,
      integrity,
      encryptionKey: keys.ei.expose(),
      integrityKey: keys.ai.expose(),
    })
    const fromResponder = new PayloadCipher({
      encryption,
      integrity,
      encryptionKey: keys.er.expose(),
      integrityKey: keys.ar.expose(),
    })
    this.#sender = this.isInitiator ? fromInitiator : fromResponder
    this.#receiver = this.isInitiator ? fromResponder : fromInitiator
  }

  /** The keys with SK_d, SK_pi and SK_pr changed; the ciphers stay (RFC 8784 §3). */
  replaceKeys(keys: IkeKeys): void {
    this.#keys = keys
  }

  /** Both sides have proved who they are: what they need no more goes. */
  settle(): void {
    if (this.#keys !== undefined) this.#keys = keepDerivationKey(this.#keys)
    this.lastRequest = undefined
  }

  /** The set that fragments of this message go to; an older message's set is dropped. */
  fragments(messageId: number, isResponse: boolean): FragmentSet {
    const held = isResponse ? this.#responseFragments : this.#requestFragments
    if (held?.messageId === messageId) return held
    const fresh = new FragmentSet(messageId)
    if (isResponse) this.#responseFragments = fresh
    else this.#requestFragments = fresh
    return fresh
  }

  /** Keeps this rekeying instead of the one before, whose secrets are wiped. */
  suspend(rekey: PendingRekey | undefined): void {
    for (const secret of this.pendingRekey?.secrets ?? []) secret.destroy()
    this.pendingRekey = rekey
  }

  dropFragments(): void {
    this.#requestFragments = undefined
    this.#responseFragments = undefined
  }

  destroy(): void {
    this.#wipe()
    this.#keys = undefined
    this.#sender = undefined
    this.#receiver = undefined
    this.outstanding = undefined
    this.answering = undefined
    this.#lastReply = undefined
    this.lastRequest = undefined
    this.queue.length = 0
    this.suspend(undefined)
    this.dropFragments()
  }

  #wipe(): void {
    this.#sender?.destroy()
    this.#receiver?.destroy()
    this.#previousReceiver?.destroy()
    this.#previousReceiver = undefined
    if (this.#keys) destroyIkeKeys(this.#keys)
  }
}

/**
 * What IKE_AUTH and CREATE_CHILD_SA have in common: offering a Child SA, answering an offer, installing
 * the result. RFC 7296 §1.2, §1.3.1, §2.9, §2.17.
 */
import { concatBytes, copyBytes, putU16 } from '../../core/bytes.ts'
import { type RandomSource, randomBytes } from '../../core/random.ts'
import type { Secret } from '../../core/secret.ts'
import type { KeyExchangeOffer } from '../../crypto/key-exchange.ts'
import { keyExchange } from '../../crypto/key-exchanges.ts'
import type { Association } from '../association.ts'
import { type ChildSa, type SelectorPair, spiBytes, spiNumber } from '../child-sa.ts'
import type { Connection } from '../connection.ts'
import type { Grant } from '../input.ts'
import { type ChildKeys, childKeys, type NoncePair } from '../key-schedule.ts'
import { addressBytes } from '../path.ts'
import { chooseEsp, espProposals, isAnswer } from '../proposal.ts'
import type { EspSuite } from '../suite.ts'
import {
  copySelectors,
  everything,
  hostSelector,
  ipv6Selector,
  isWithin,
  narrow,
} from '../traffic-selectors.ts'
import { findNotify, findPayload } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { NotifyType } from '../wire/notify-type.ts'
import type { Payload } from '../wire/payload.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'

const NONCE_BYTES = 32

/** What a Child SA with a peer that has this grant may carry. */
export function permittedBy(grant: Grant): SelectorPair {
  const own: TrafficSelector[] = []
  if (grant.ipv4Address !== undefined) {
    const address = new Uint8Array(4)
    putU16(address, putU16(address, 0, grant.ipv4Address >>> 16), grant.ipv4Address & 0xffff)
    own.push(hostSelector(address))
  }
  if (grant.ipv6Address !== undefined) own.push(ipv6Selector(maskedIpv6(grant.ipv6Address)))
  return { local: grant.localSelectors, remote: own.concat(grant.remoteSelectors ?? []) }
}

function maskedIpv6(network: { address: Uint8Array; prefixLength: number }) {
  const address = copyBytes(network.address)
  for (let bit = network.prefixLength; bit < 128; bit++) {
    address[bit >>> 3] = (address[bit >>> 3] ?? 0) & ~(0x80 >>> (bit & 7))
  }
  return { address, prefixLength: network.prefixLength }
}

function permittedSelectors({ permitted, options }: Connection): SelectorPair {
  const { localSelectors: local, remoteSelectors: remote } = options.child
  return permitted ?? { local, remote }
}

/** In transport mode only the two hosts themselves (RFC 7296 §1.3.1). */
function hostSelectors(connection: Connection): SelectorPair {
  const { local, peer } = connection.path
  return {
    local: [hostSelector(addressBytes(local.address))],
    remote: [hostSelector(addressBytes(peer.address))],
  }
}

interface NewChild {
  readonly inboundSpi: number
  readonly outboundSpi: number
  readonly suite: EspSuite
  readonly mode: 'tunnel' | 'transport'
  readonly selectors: SelectorPair
  readonly keys: ChildKeys
  readonly isExchangeInitiator: boolean
  readonly refusesTfcPadding: boolean
  readonly replaces: ChildSa | undefined
}

/** Announces a Child SA and starts its clocks. Activating it is the caller's decision. */
function installChild(connection: Connection, made: NewChild, nowMs: number): ChildSa {
  const child: ChildSa = {
    inboundSpi: made.inboundSpi,
    outboundSpi: made.outboundSpi,
    suite: made.suite,
    mode: made.mode,
    selectors: made.selectors,
    isDeleting: false,
    replacedBy: undefined,
  }
  connection.addChild(child)
  connection.emit({
    type: 'child-up',
    replaces: made.replaces?.inboundSpi,
    child: {
      inboundSpi: child.inboundSpi,
      outboundSpi: child.outboundSpi,
      suite: child.suite,
      mode: child.mode,
      localSelectors: child.selectors.local,
      remoteSelectors: child.selectors.remote,
      inbound: made.isExchangeInitiator ? made.keys.fromResponder : made.keys.fromInitiator,
      outbound: made.isExchangeInitiator ? made.keys.fromInitiator : made.keys.fromResponder,
      isUdpEncapsulated: connection.isUdpEncapsulated,
      path: connection.path,
      refusesTfcPadding: made.refusesTfcPadding,
    },
  })
  startChildClocks(connection, child, nowMs)
  return child
}

function startChildClocks(connection: Connection, child: ChildSa, nowMs: number): void {
  const { childRekeyMs, childExpireMs } = connection.options.timing
  const { isWindows } = connection.peer
  const isNatted = connection.nat?.isPeerBehindNat === true
  if (childExpireMs > 0) {
    connection.timers.set(`child-expire:${child.inboundSpi}`, nowMs + childExpireMs)
  }
  // Windows behind a NAT answers our rekeying with MS_STATUS 13863, and rekeys by itself: we only do
  // it when the Child SA would otherwise end.
  const dueMs = isWindows && isNatted ? 0.95 * childExpireMs : connection.jittered(childRekeyMs)
  if (dueMs > 0) connection.timers.set(`child-rekey:${child.inboundSpi}`, nowMs + dueMs)
}

function groupNotify(group: number): Payload {
  const data = new Uint8Array(2)
  putU16(data, 0, group)
  return notify(NotifyType.INVALID_KE_PAYLOAD, data)
}

export interface ChildAnswer {
  /** SA, Nonce, KE, TSi, TSr, or the error. */
  readonly payloads: readonly Payload[]
  /** Undefined when the offer was refused. */
  readonly child: ChildSa | undefined
  /** For collisions. */
  readonly nonces: NoncePair
}

interface AnswerContext {
  /** In IKE_AUTH the nonces are those of IKE_SA_INIT and there is no KE (RFC 7296 §1.2). */
  readonly isInAuth: boolean
  readonly replaces: ChildSa | undefined
}

function refuse(nonces: NoncePair, ...payloads: Payload[]): ChildAnswer {
  return { payloads, child: undefined, nonces }
}

/** Answers an offer of the peer. */
export function answerChild(
  connection: Connection,
  association: Association,
  payloads: readonly Payload[],
  context: AnswerContext,
  nowMs: number,
): ChildAnswer {
  const { options, setup } = connection
  const { suite: ikeSuite, keys: ikeSaKeys } = association
  const sa = findPayload(payloads, 'SA')
  const tsi = findPayload(payloads, 'TSi')
  const tsr = findPayload(payloads, 'TSr')
  const peerNonce = findPayload(payloads, 'Nonce')
  const nonces = context.isInAuth
    ? setup.nonces
    : {
        initiator: copyBytes(peerNonce?.data ?? new Uint8Array(0)),
        responder: randomBytes(connection.host.random, NONCE_BYTES),
      }
  if (!sa || !tsi || !tsr || !ikeSuite || !ikeSaKeys) {
    return refuse(nonces, notify(NotifyType.INVALID_SYNTAX))
  }
  const ke = findPayload(payloads, 'KE')
  const inboundSpi = connection.host.newEspSpi()
  const choice = chooseEsp(sa.proposals, options.child.algorithms, {
    spi: spiBytes(inboundSpi),
    keyExchange: context.isInAuth ? 'ignore' : { sentGroup: ke?.group },
  })
  if (choice === undefined || spiNumber(choice.peerSpi) < 256) {
    return refuse(nonces, notify(NotifyType.NO_PROPOSAL_CHOSEN))
  }
  const { suite } = choice
  if (suite.keyExchangeId !== 0 && ke?.group !== suite.keyExchangeId) {
    return refuse(nonces, groupNotify(suite.keyExchangeId))
  }
  const wantsTransport = findNotify(payloads, NotifyType.USE_TRANSPORT_MODE) !== undefined
  const isTransport = wantsTransport && options.child.transportMode
  const permitted = isTransport ? hostSelectors(connection) : permittedSelectors(connection)
  // In the peer's offer TSi is its own side, for it is the initiator of the exchange.
  const remote = narrow(tsi.selectors, permitted.remote)
  const local = narrow(tsr.selectors, permitted.local)
  if (remote.length === 0 || local.length === 0) {
    return refuse(nonces, notify(NotifyType.TS_UNACCEPTABLE))
  }
  let sharedSecret: Secret | undefined
  let ourValue: Uint8Array | undefined
  if (suite.keyExchangeId !== 0 && ke !== undefined) {
    const answer = keyExchange(ke.group)?.answer(ke.publicValue, connection.host.random)
    if (answer === undefined || typeof answer === 'number') {
      return refuse(nonces, notify(NotifyType.INVALID_SYNTAX))
    }
    sharedSecret = answer.sharedSecret
    ourValue = answer.publicValue
  }
  const keys = childKeys(ikeSuite.prf, ikeSaKeys.d, suite, nonces, sharedSecret)
  sharedSecret?.destroy()
  const child = installChild(
    connection,
    {
      inboundSpi,
      outboundSpi: spiNumber(choice.peerSpi),
      suite,
      mode: isTransport ? 'transport' : 'tunnel',
      selectors: { local, remote },
      keys,
      isExchangeInitiator: false,
      refusesTfcPadding: refusesTfc(payloads),
      replaces: context.replaces,
    },
    nowMs,
  )
  return {
    child,
    nonces,
    payloads: [
      ...(isTransport ? [notify(NotifyType.USE_TRANSPORT_MODE)] : []),
      { type: 'SA', proposals: [choice.answer] },
      ...(context.isInAuth ? [] : [{ type: 'Nonce', data: nonces.responder } as const]),
      ...(ourValue === undefined
        ? []
        : [{ type: 'KE', group: suite.keyExchangeId, publicValue: ourValue } as const]),
      { type: 'TSi', selectors: remote },
      { type: 'TSr', selectors: local },
    ],
  }
}

function refusesTfc(payloads: readonly Payload[]): boolean {
  return findNotify(payloads, NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED) !== undefined
}

/** Error words of `ChildOffer.complete`. */
export type OfferFault = 'answer-not-proposed' | 'bad-key-exchange-value' | 'selectors-widened'

/** Our offer of one Child SA, from request to response. */
export class ChildOffer {
  readonly #isInAuth: boolean
  readonly #selectors: SelectorPair
  readonly #group: number
  readonly #inboundSpi: number
  readonly #nonce: Uint8Array
  readonly #offer: KeyExchangeOffer | undefined

  /** `group` is 0 for no key exchange. */
  constructor(connection: Connection, selectors: SelectorPair, group: number, isInAuth: boolean) {
    const { host } = connection
    this.#isInAuth = isInAuth
    this.#selectors = selectors
    this.#group = isInAuth ? 0 : group
    this.#inboundSpi = host.newEspSpi()
    this.#nonce = drawNonce(host.random)
    this.#offer = keyExchange(this.#group)?.offer(host.random)
  }

  get nonce(): Uint8Array {
    return this.#nonce
  }

  payloads(connection: Connection): Payload[] {
    const { algorithms, transportMode } = connection.options.child
    const groups =
      this.#group === 0
        ? []
        : [this.#group, ...algorithms.keyExchange.filter(group => group !== this.#group)]
    const offer = this.#offer
    return [
      ...(transportMode ? [notify(NotifyType.USE_TRANSPORT_MODE)] : []),
      { type: 'SA', proposals: espProposals(algorithms, spiBytes(this.#inboundSpi), groups) },
      ...(this.#isInAuth ? [] : [{ type: 'Nonce', data: this.#nonce } as const]),
      ...(offer === undefined
        ? []
        : [{ type: 'KE', group: this.#group, publicValue: offer.publicValue } as const]),
      { type: 'TSi', selectors: this.#selectors.local },
      { type: 'TSr', selectors: this.#selectors.remote },
    ]
  }

  /** Installs what the peer chose, or says what is wrong with it. */
  complete(
    connection: Connection,
    association: Association,
    payloads: readonly Payload[],
    replaces: ChildSa | undefined,
    nowMs: number,
  ): { readonly child: ChildSa; readonly nonces: NoncePair } | OfferFault {
    const sa = findPayload(payloads, 'SA')
    const tsi = findPayload(payloads, 'TSi')
    const tsr = findPayload(payloads, 'TSr')
    const { suite: ikeSuite, keys: ikeSaKeys } = association
    if (!sa || !tsi || !tsr || !ikeSuite || !ikeSaKeys) return 'answer-not-proposed'
    const ke = findPayload(payloads, 'KE')
    const choice = isAnswer(sa.proposals)
      ? chooseEsp(sa.proposals, connection.options.child.algorithms, {
          spi: spiBytes(this.#inboundSpi),
          keyExchange: this.#isInAuth ? 'ignore' : { sentGroup: ke?.group },
        })
      : undefined
    if (choice === undefined || spiNumber(choice.peerSpi) < 256) return 'answer-not-proposed'
    const { suite } = choice
    if (suite.keyExchangeId !== (this.#offer ? this.#group : 0)) return 'answer-not-proposed'
    const isTransport =
      connection.options.child.transportMode &&
      findNotify(payloads, NotifyType.USE_TRANSPORT_MODE) !== undefined
    const widest = isTransport ? hostsOrAll(connection) : this.#selectors
    if (tsi.selectors.length === 0 || tsr.selectors.length === 0) return 'selectors-widened'
    if (!isWithin(tsi.selectors, widest.local) || !isWithin(tsr.selectors, widest.remote)) {
      return 'selectors-widened'
    }
    const sharedSecret = this.#offer?.finish(ke?.publicValue ?? new Uint8Array(0))
    if (typeof sharedSecret === 'number') return 'bad-key-exchange-value'
    const nonces = this.#isInAuth
      ? connection.setup.nonces
      : {
          initiator: this.#nonce,
          responder: copyBytes(findPayload(payloads, 'Nonce')?.data ?? new Uint8Array(0)),
        }
    const keys = childKeys(ikeSuite.prf, ikeSaKeys.d, suite, nonces, sharedSecret)
    sharedSecret?.destroy()
    const child = installChild(
      connection,
      {
        inboundSpi: this.#inboundSpi,
        outboundSpi: spiNumber(choice.peerSpi),
        suite,
        mode: isTransport ? 'transport' : 'tunnel',
        selectors: {
          local: copySelectors(tsi.selectors),
          remote: copySelectors(tsr.selectors),
        },
        keys,
        isExchangeInitiator: true,
        refusesTfcPadding: refusesTfc(payloads),
        replaces,
      },
      nowMs,
    )
    return { child, nonces }
  }

  destroy(): void {
    this.#offer?.destroy()
  }
}

/** Behind a NAT the peer sees our hosts under other addresses (RFC 7296 §2.23.1). */
function hostsOrAll(connection: Connection): SelectorPair {
  return connection.isUdpEncapsulated
    ? { local: everything, remote: everything }
    : hostSelectors(connection)
}

function drawNonce(random: RandomSource): Uint8Array {
  return randomBytes(random, NONCE_BYTES)
}

/** Protocol and SPI of a Child SA of ours, as notifications name it. */
export function childNotify(notifyType: number, spi: number): Payload {
  return { type: 'N', protocolId: 3, spi: spiBytes(spi), notifyType, data: concatBytes() }
}

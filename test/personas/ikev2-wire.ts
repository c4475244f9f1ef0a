/** The IKE SAs of a stock client: numbers, keys, sealing and opening, put together again from fragments. */
import { putU32 } from '../../lib/core/bytes.ts'
import { WireFault } from '../../lib/core/faults.ts'
import type { RandomSource } from '../../lib/core/random.ts'
import { PayloadCipher } from '../../lib/crypto/payload-cipher.ts'
import { createPrf } from '../../lib/crypto/prf.ts'
import {
  encryptionTransform,
  integrityTransform,
  negotiatedKeyBits,
  prfTransform,
  TransformType,
} from '../../lib/crypto/transforms.ts'
import { FragmentSet } from '../../lib/ikev2/fragments.ts'
import type { IkeKeys } from '../../lib/ikev2/key-schedule.ts'
import {
  messageRoomBytes,
  openMessage,
  parseInner,
  sealFragments,
  sealMessage,
} from '../../lib/ikev2/protection.ts'
import type { EspSuite, IkeSuite } from '../../lib/ikev2/suite.ts'
import type { Header } from '../../lib/ikev2/wire/header.ts'
import { allPayloads, parseMessage } from '../../lib/ikev2/wire/message.ts'
import { isErrorNotify, NotifyType, notifyName } from '../../lib/ikev2/wire/notify-type.ts'
import type { Payload } from '../../lib/ikev2/wire/payload.ts'
import {
  keyLengthBits,
  type Proposal,
  type Transform,
} from '../../lib/ikev2/wire/security-association.ts'
import {
  type CipherName,
  cipherIds,
  type EspOffer,
  type GroupName,
  groupIds,
  type IkeOffer,
  integrityIds,
  prfIds,
} from './ikev2-personas.ts'

function transform(transformType: number, transformId: number, keyBits = 0): Transform {
  const attributes = keyBits === 0 ? [] : [{ attributeType: 14, value: keyBits }]
  return { transformType, transformId, attributes }
}

function ciphers(names: readonly CipherName[]): Transform[] {
  return names.map(name => {
    const [id, keyBits] = cipherIds[name]
    return transform(TransformType.encryption, id, keyBits)
  })
}

/** Proposals in the order of the offers, each with its transforms in order. */
export function ikeProposalsOf(offers: readonly IkeOffer[], spi: Uint8Array): Proposal[] {
  return offers.map((offer, i) => ({
    proposalNumber: i + 1,
    protocolId: 1,
    spi,
    transforms: [
      ...ciphers(offer.ciphers),
      ...offer.integrity.map(name => transform(TransformType.integrity, integrityIds[name])),
      ...offer.prf.map(name => transform(TransformType.prf, prfIds[name])),
      ...offer.groups.map(name => transform(TransformType.keyExchange, groupIds[name])),
    ],
  }))
}

export function espProposalsOf(
  offers: readonly EspOffer[],
  spi: Uint8Array,
  groups: readonly (GroupName | 'none')[],
): Proposal[] {
  return offers.map((offer, i) => ({
    proposalNumber: i + 1,
    protocolId: 3,
    spi,
    transforms: [
      ...ciphers(offer.ciphers),
      ...offer.integrity.map(name => transform(TransformType.integrity, integrityIds[name])),
      ...groups.map(name =>
        transform(TransformType.keyExchange, name === 'none' ? 0 : groupIds[name]),
      ),
      ...offer.esn.map(id => transform(TransformType.extendedSequenceNumbers, id)),
    ],
  }))
}

/** What is wrong with an answer: it must be one of our proposals, with one transform of each type. */
export function answerFault(
  answer: readonly Proposal[],
  offered: readonly Proposal[],
): string | undefined {
  const [chosen] = answer
  if (chosen === undefined || answer.length !== 1) return `${answer.length} proposals in an answer`
  const ours = offered.find(one => one.proposalNumber === chosen.proposalNumber)
  if (ours === undefined) return `proposal ${chosen.proposalNumber} was not offered`
  const types = chosen.transforms.map(one => one.transformType)
  if (new Set(types).size !== types.length) return 'two transforms of a type'
  for (const one of chosen.transforms) {
    const isOffered = ours.transforms.some(
      mine =>
        mine.transformType === one.transformType &&
        mine.transformId === one.transformId &&
        keyLengthBits(mine) === keyLengthBits(one),
    )
    if (!isOffered) return `transform ${one.transformType}/${one.transformId} was not offered`
  }
  const missing = ours.transforms.find(
    mine => mine.transformId !== 0 && !types.includes(mine.transformType),
  )
  // A group beside "none", and groups in IKE_AUTH, may be left out.
  return missing === undefined || missing.transformType === TransformType.keyExchange
    ? undefined
    : `no transform of type ${missing.transformType}`
}

function idOf(proposal: Proposal, transformType: number): number {
  return proposal.transforms.find(one => one.transformType === transformType)?.transformId ?? 0
}

function cipherOf(proposal: Proposal) {
  const row = proposal.transforms.find(one => one.transformType === TransformType.encryption)
  const encryption = encryptionTransform(row?.transformId ?? 0)
  const keyBits = row && encryption ? negotiatedKeyBits(encryption, keyLengthBits(row)) : undefined
  if (encryption === undefined || keyBits === undefined) throw new Error('no such cipher')
  const integrity = integrityTransform(idOf(proposal, TransformType.integrity))
  return { encryption, keyBits, integrity: encryption.isAead ? undefined : integrity }
}

export function ikeSuiteOf(proposal: Proposal): IkeSuite {
  const prf = prfTransform(idOf(proposal, TransformType.prf))
  if (prf === undefined) throw new Error('no such prf')
  return {
    ...cipherOf(proposal),
    prf: createPrf(prf.id),
    keyExchangeId: idOf(proposal, TransformType.keyExchange),
    additionalKeyExchanges: [],
  }
}

export function espSuiteOf(proposal: Proposal): EspSuite {
  return {
    ...cipherOf(proposal),
    hasEsn: idOf(proposal, TransformType.extendedSequenceNumbers) === 1,
    keyExchangeId: idOf(proposal, TransformType.keyExchange),
  }
}

export interface Spis {
  readonly initiatorSpi: Uint8Array
  readonly responderSpi: Uint8Array
}

/** The initiator's end of one IKE SA. */
export class StockSa {
  readonly spis: Spis
  readonly suite: IkeSuite
  readonly keys: IkeKeys
  nextRequestId: number
  readonly #sealer: PayloadCipher
  readonly #opener: PayloadCipher
  readonly #fragments = new Map<string, FragmentSet>()

  constructor(spis: Spis, suite: IkeSuite, keys: IkeKeys, nextRequestId: number) {
    this.spis = spis
    this.suite = suite
    this.keys = keys
    this.nextRequestId = nextRequestId
    const cipher = (encryptionKey: Uint8Array, integrityKey: Uint8Array) =>
      new PayloadCipher({
        encryption: suite.encryption,
        integrity: suite.integrity,
        encryptionKey,
        integrityKey,
      })
    this.#sealer = cipher(keys.ei.expose(), keys.ai.expose())
    this.#opener = cipher(keys.er.expose(), keys.ar.expose())
  }

  /** The datagrams of a message; in one piece when `packetBytes` is 0. */
  seal(
    head: {
      readonly exchangeType: number
      readonly isResponse: boolean
      readonly messageId: number
    },
    payloads: readonly Payload[],
    packetBytes: number,
    random: RandomSource,
  ): Uint8Array[] {
    const whole = { ...this.spis, ...head, isFromInitiator: true, canHigherVersion: false }
    return packetBytes === 0
      ? [sealMessage(this.#sealer, whole, payloads, random)]
      : sealFragments(this.#sealer, whole, payloads, messageRoomBytes(packetBytes, false), random)
  }

  /** The payloads, undefined while fragments are missing, or what is wrong. */
  open(bytes: Uint8Array, header: Header): readonly Payload[] | string | undefined {
    const outer = parseMessage(bytes)
    if (outer.fault !== WireFault.none) return 'a malformed message'
    const [last] = outer.payloads.slice(-1)
    if (last?.type !== 'SK' && last?.type !== 'SKF') return 'an unprotected message'
    const numbers =
      last.type === 'SKF' ? { number: last.fragmentNumber, total: last.totalFragments } : undefined
    const opened = openMessage(this.#opener, bytes, outer.encryptedAt, numbers !== undefined)
    if (opened.fault !== WireFault.none) return 'a message that is not authentic'
    if (numbers === undefined) return inner(opened.plaintext, outer.innerType)
    const key = `${header.messageId} ${header.isResponse}`
    const set = this.#fragments.get(key) ?? new FragmentSet(header.messageId)
    this.#fragments.set(key, set)
    const { number, total } = numbers
    const added = set.add(number, total, outer.innerType, opened.plaintext, bytes.length)
    if (added !== 'complete') return undefined
    this.#fragments.delete(key)
    return inner(set.join(), set.innerType)
  }
}

function inner(plaintext: Uint8Array, innerType: number): readonly Payload[] | string {
  const parsed = parseInner(Uint8Array.from(plaintext), innerType)
  return parsed.fault === WireFault.none ? parsed.payloads : 'malformed payloads'
}

/** Throws what the server refuses with; with `always` something is thrown in any case. */
export function throwError(payloads: readonly Payload[], always = false): void {
  const error = allPayloads(payloads, 'N').find(
    ({ notifyType }) => isErrorNotify(notifyType) && notifyType !== NotifyType.INVALID_KE_PAYLOAD,
  )
  if (error !== undefined || always) {
    throw new Error(error === undefined ? 'no SA' : notifyName(error.notifyType))
  }
}

export function spiOf(spi: number): Uint8Array {
  const out = new Uint8Array(4)
  putU32(out, 0, spi)
  return out
}

/** The subject of a certificate as it stands there (RFC 5280 §4.1): the sixth field of what is signed. */
export function subjectOf(der: Uint8Array): Uint8Array {
  const inner = (at: number) =>
    at + ((der[at + 1] ?? 0) < 0x80 ? 2 : 2 + ((der[at + 1] ?? 0) & 0x7f))
  const end = (at: number) => {
    const short = der[at + 1] ?? 0
    if (short < 0x80) return at + 2 + short
    let lengthBytes = 0
    for (let i = 0; i < (short & 0x7f); i++)
      lengthBytes = lengthBytes * 256 + (der[at + 2 + i] ?? 0)
    return inner(at) + lengthBytes
  }
  let at = inner(inner(0))
  for (let field = 0; field < 5; field++) at = end(at)
  return der.slice(at, end(at))
}

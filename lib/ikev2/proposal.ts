/**
 * Proposals: making them, choosing from them, and checking what the peer chose. RFC 7296 §2.7, §3.3.
 * We choose by our own order and answer with one transform of each type.
 */
import { createPrf, type Prf } from '../crypto/prf.ts'
import {
  encryptionTransform,
  integrityTransform,
  keyExchangeTransform,
  negotiatedKeyBits,
  prfTransform,
  TransformType,
} from '../crypto/transforms.ts'
import type { EncryptionChoice, EspAlgorithms, EspSuite, IkeAlgorithms, IkeSuite } from './suite.ts'
import {
  KEY_LENGTH_ATTRIBUTE,
  keyLengthBits,
  type Proposal,
  ProtocolId,
  type Transform,
} from './wire/security-association.ts'

const NO_KEY_EXCHANGE = 0
const noKeyExchanges: readonly number[] = []
const NO_INTEGRITY = 0
const ESN_OFF = 0
const ESN_ON = 1

const prfs = new Map<number, Prf>()

export function prfOf(id: number): Prf | undefined {
  const row = prfTransform(id)
  if (row === undefined) return undefined
  const known = prfs.get(id)
  if (known) return known
  const prf = createPrf(row.id)
  prfs.set(id, prf)
  return prf
}

function transform(transformType: number, transformId: number, keyBits?: number): Transform {
  return {
    transformType,
    transformId,
    attributes:
      keyBits === undefined ? [] : [{ attributeType: KEY_LENGTH_ATTRIBUTE, value: keyBits }],
  }
}

function encryptionOf(choice: EncryptionChoice): Transform | undefined {
  const row = encryptionTransform(choice.id)
  if (row === undefined) return undefined
  const keyBits = row.hasKeyLength ? choice.keyBits : undefined
  return transform(TransformType.encryption, choice.id, keyBits)
}

function isAead(choice: EncryptionChoice): boolean {
  return encryptionTransform(choice.id)?.isAead === true
}

function listed(transformType: number, ids: readonly number[]): Transform[] {
  return ids.map(id => transform(transformType, id))
}

/** One proposal for AEADs and one for the rest: the two must not be mixed (RFC 5282 §8). */
function split(
  protocolId: number,
  spi: Uint8Array,
  encryption: readonly EncryptionChoice[],
  integrity: readonly number[],
  others: readonly Transform[],
): Proposal[] {
  const proposals: Proposal[] = []
  for (const aead of [true, false]) {
    const ciphers = encryption.filter(choice => isAead(choice) === aead)
    const transforms = ciphers.map(encryptionOf).filter(row => row !== undefined)
    if (transforms.length === 0) continue
    if (!aead) transforms.push(...listed(TransformType.integrity, integrity))
    transforms.push(...others)
    proposals.push({ proposalNumber: proposals.length + 1, protocolId, spi, transforms })
  }
  return proposals
}

/** `spi` is empty in IKE_SA_INIT and 8 bytes when an IKE SA is rekeyed. */
export function ikeProposals(algorithms: IkeAlgorithms, spi: Uint8Array): Proposal[] {
  const additional = algorithms.additionalKeyExchange ?? []
  return split(ProtocolId.IKE, spi, algorithms.encryption, algorithms.integrity, [
    ...listed(TransformType.prf, algorithms.prf),
    ...listed(TransformType.keyExchange, algorithms.keyExchange),
    // "None" beside the methods lets a peer that cannot do them say so (RFC 9370 §2.2.2).
    ...(additional.length === 0
      ? []
      : listed(TransformType.additionalKeyExchange1, [...additional, NO_KEY_EXCHANGE])),
  ])
}

/** `groups` is empty in IKE_AUTH, where a Child SA has no key exchange of its own (RFC 7296 §1.2). */
export function espProposals(
  algorithms: EspAlgorithms,
  spi: Uint8Array,
  groups: readonly number[],
): Proposal[] {
  return split(ProtocolId.ESP, spi, algorithms.encryption, algorithms.integrity, [
    ...listed(TransformType.keyExchange, groups),
    ...listed(
      TransformType.extendedSequenceNumbers,
      algorithms.extendedSequenceNumbers ? [ESN_ON, ESN_OFF] : [ESN_OFF],
    ),
  ])
}

function ofType(proposal: Proposal, transformType: number): Transform[] {
  // A transform with an attribute that we do not know is not understood (RFC 7296 §3.3.6).
  return proposal.transforms.filter(
    row =>
      row.transformType === transformType &&
      row.attributes.every(attribute => attribute.attributeType === KEY_LENGTH_ATTRIBUTE),
  )
}

/** The first of `wanted` that is offered; `none` when nothing of the type is offered. */
function choose(
  proposal: Proposal,
  transformType: number,
  wanted: readonly number[],
  none?: number,
): number | undefined {
  const offered = ofType(proposal, transformType).map(row => row.transformId)
  if (offered.length === 0) return none
  return wanted.find(id => offered.includes(id))
}

function offersEncryption(proposal: Proposal, choice: EncryptionChoice): boolean {
  const row = encryptionTransform(choice.id)
  if (row === undefined) return false
  return ofType(proposal, TransformType.encryption).some(
    offered =>
      offered.transformId === choice.id &&
      negotiatedKeyBits(row, keyLengthBits(offered)) === choice.keyBits,
  )
}

/** RFC 7296 §3.3.6: transforms of types that we do not know make a proposal unacceptable. */
function hasOnly(proposal: Proposal, known: readonly number[]): boolean {
  return proposal.transforms.every(row => known.includes(row.transformType))
}

const ikeTypes = [
  TransformType.encryption,
  TransformType.prf,
  TransformType.integrity,
  TransformType.keyExchange,
  TransformType.additionalKeyExchange1,
] as const

const espTypes = [
  TransformType.encryption,
  TransformType.integrity,
  TransformType.keyExchange,
  TransformType.extendedSequenceNumbers,
] as const

interface Choice<Suite> {
  readonly suite: Suite
  /** The answer: the peer's proposal number with one transform per type and our SPI. */
  readonly answer: Proposal
  readonly peerSpi: Uint8Array
}

function integrityFor(
  proposal: Proposal,
  choice: EncryptionChoice,
  wanted: readonly number[],
): number | undefined {
  return isAead(choice)
    ? choose(proposal, TransformType.integrity, [NO_INTEGRITY], NO_INTEGRITY)
    : choose(proposal, TransformType.integrity, wanted)
}

function answerOf(
  proposal: Proposal,
  spi: Uint8Array,
  choice: EncryptionChoice,
  integrity: number,
  others: readonly Transform[],
): Proposal {
  const encryption = encryptionOf(choice)
  return {
    proposalNumber: proposal.proposalNumber,
    protocolId: proposal.protocolId,
    spi,
    transforms: [
      ...(encryption === undefined ? [] : [encryption]),
      ...(integrity === NO_INTEGRITY ? [] : [transform(TransformType.integrity, integrity)]),
      ...others,
    ],
  }
}

/**
 * Chooses for an IKE SA. `sentGroup` is the group of the peer's KE payload: it is taken when it is one
 * of ours, even if another stands before it, because that saves the peer a round trip.
 */
export function chooseIke(
  proposals: readonly Proposal[],
  algorithms: IkeAlgorithms,
  sentGroup: number | undefined,
  spi: Uint8Array,
  peerSpiBytes: number,
): Choice<IkeSuite> | undefined {
  for (const choice of algorithms.encryption) {
    for (const proposal of proposals) {
      if (proposal.protocolId !== ProtocolId.IKE || proposal.spi.length !== peerSpiBytes) continue
      if (!hasOnly(proposal, ikeTypes) || !offersEncryption(proposal, choice)) continue
      const integrityId = integrityFor(proposal, choice, algorithms.integrity)
      const prf = prfOf(choose(proposal, TransformType.prf, algorithms.prf) ?? 0)
      const groups = algorithms.keyExchange
      const preferred = sentGroup !== undefined && groups.includes(sentGroup) ? [sentGroup] : []
      const group = choose(proposal, TransformType.keyExchange, [...preferred, ...groups])
      const additional = choose(
        proposal,
        TransformType.additionalKeyExchange1,
        [...(algorithms.additionalKeyExchange ?? []), NO_KEY_EXCHANGE],
        NO_KEY_EXCHANGE,
      )
      const encryption = encryptionTransform(choice.id)
      if (!encryption || !prf || integrityId === undefined || !group) continue
      if (additional === undefined) continue
      const offersAdditional = ofType(proposal, TransformType.additionalKeyExchange1).length > 0
      return {
        suite: {
          encryption,
          keyBits: choice.keyBits,
          prf,
          integrity: integrityId === NO_INTEGRITY ? undefined : integrityTransform(integrityId),
          keyExchangeId: group,
          additionalKeyExchanges: additional === NO_KEY_EXCHANGE ? noKeyExchanges : [additional],
        },
        answer: answerOf(proposal, spi, choice, integrityId, [
          transform(TransformType.prf, prf.id),
          transform(TransformType.keyExchange, group),
          ...(offersAdditional
            ? [transform(TransformType.additionalKeyExchange1, additional)]
            : []),
        ]),
        peerSpi: proposal.spi,
      }
    }
  }
  return undefined
}

export interface EspChoiceContext {
  /** Our inbound SPI, for the answer. */
  readonly spi: Uint8Array
  /**
   * `ignore` in IKE_AUTH: groups are allowed there and mean nothing. Otherwise the group of the KE
   * payload, undefined when the message has none.
   */
  readonly keyExchange: 'ignore' | { readonly sentGroup: number | undefined }
}

/** Clients differ at rekeying: macOS sends no KE, iOS offers both, Windows as its PfsGroup says. */
function chooseEspGroup(
  proposal: Proposal,
  algorithms: EspAlgorithms,
  keyExchange: EspChoiceContext['keyExchange'],
): number | undefined {
  if (keyExchange === 'ignore') return NO_KEY_EXCHANGE
  const { sentGroup } = keyExchange
  const groups = algorithms.keyExchange
  const wanted: number[] = []
  if (sentGroup !== undefined) {
    if (groups.includes(sentGroup)) wanted.push(sentGroup)
    wanted.push(...groups)
  }
  if (!algorithms.requiresKeyExchange) wanted.push(NO_KEY_EXCHANGE)
  // A peer that offers groups only and sends no KE is told by INVALID_KE_PAYLOAD which one to send.
  if (sentGroup === undefined) wanted.push(...groups)
  const none = algorithms.requiresKeyExchange ? undefined : NO_KEY_EXCHANGE
  return choose(proposal, TransformType.keyExchange, wanted, none)
}

export function chooseEsp(
  proposals: readonly Proposal[],
  algorithms: EspAlgorithms,
  context: EspChoiceContext,
): Choice<EspSuite> | undefined {
  for (const choice of algorithms.encryption) {
    for (const proposal of proposals) {
      if (proposal.protocolId !== ProtocolId.ESP || proposal.spi.length !== 4) continue
      if (!hasOnly(proposal, espTypes) || !offersEncryption(proposal, choice)) continue
      const integrityId = integrityFor(proposal, choice, algorithms.integrity)
      const group = chooseEspGroup(proposal, algorithms, context.keyExchange)
      const esn = choose(
        proposal,
        TransformType.extendedSequenceNumbers,
        algorithms.extendedSequenceNumbers ? [ESN_ON, ESN_OFF] : [ESN_OFF],
        ESN_OFF,
      )
      const encryption = encryptionTransform(choice.id)
      if (!encryption || integrityId === undefined || group === undefined) continue
      if (esn === undefined) continue
      return {
        suite: {
          encryption,
          keyBits: choice.keyBits,
          integrity: integrityId === NO_INTEGRITY ? undefined : integrityTransform(integrityId),
          hasEsn: esn === ESN_ON,
          keyExchangeId: group,
        },
        answer: answerOf(proposal, context.spi, choice, integrityId, [
          ...(group === NO_KEY_EXCHANGE ? [] : [transform(TransformType.keyExchange, group)]),
          transform(TransformType.extendedSequenceNumbers, esn),
        ]),
        peerSpi: proposal.spi,
      }
    }
  }
  return undefined
}

/** RFC 7296 §3.3: an answer is one proposal with at most one transform of each type. */
export function isAnswer(proposals: readonly Proposal[]): boolean {
  const proposal = proposals[0]
  if (proposal === undefined || proposals.length !== 1) return false
  const types = proposal.transforms.map(row => row.transformType)
  return new Set(types).size === types.length
}

/** The groups that we know how to compute, out of a list. */
export function knownGroups(groups: readonly number[]): number[] {
  return groups.filter(id => keyExchangeTransform(id)?.isAdditionalOnly === false)
}

/**
 * What we propose and accept, as data, in the order in which we prefer it. The choice is by our order
 * and never the first match of the peer's list: clients offer DES and NULL too.
 */
import type { HashName } from '../crypto/hash.ts'
import type { PacketSuite } from '../crypto/packet-cipher.ts'
import {
  EncryptionId,
  type EncryptionTransform,
  encryptionTransform,
  IntegrityId,
  type IntegrityTransform,
  integrityTransform,
  KeyExchangeId,
} from '../crypto/transforms.ts'
import type { Attribute } from './wire/attributes.ts'
import {
  Encapsulation,
  EspTransform,
  KEY_IKE,
  LifeType,
  Phase1Attribute,
  Phase1Authentication,
  Phase1Encryption,
  Phase1Hash,
  Phase2Attribute,
  Phase2Authentication,
  ProtocolId,
} from './wire/numbers.ts'
import type { Proposal, Transform } from './wire/sa.ts'

export type Phase1AuthenticationMethod = 'pre-shared-key' | 'rsa-signatures'

export interface Phase1Suite {
  readonly encryption: EncryptionTransform
  readonly keyBits: number
  readonly hash: HashName
  readonly group: number
}

export interface Lifetimes {
  /** 0 when not limited. */
  readonly seconds: number
  /** 0 when not limited. */
  readonly kilobytes: number
}

export interface IkePolicy {
  readonly phase1: readonly Phase1Suite[]
  /** Groups for perfect forward secrecy; the first is used when we ask for it. */
  readonly groups: readonly number[]
  readonly phase2: readonly PacketSuite[]
  readonly phase1Lifetimes: Lifetimes
  readonly phase2Lifetimes: Lifetimes
  /** Ask for a fresh exchange in phase 2 as initiator, insist on it as responder. */
  readonly requiresPfs: boolean
}

export interface PolicyChoices {
  /** MODP-1024: Android up to 11, old routers. */
  readonly allowsModp1024?: boolean
  readonly allowsTripleDes?: boolean
  /** HMAC-SHA-1: all that Windows offers. On unless switched off. */
  readonly allowsSha1?: boolean
  readonly requiresPfs?: boolean
  readonly phase1LifetimeSeconds?: number
  readonly phase2LifetimeSeconds?: number
  readonly phase2LifetimeKilobytes?: number
}

/** Strength and cost together: ECP-384 and the long MODP groups cost milliseconds. */
const groupOrder = [
  KeyExchangeId.ecp256,
  KeyExchangeId.modp2048,
  KeyExchangeId.ecp384,
  KeyExchangeId.modp3072,
  KeyExchangeId.modp4096,
  KeyExchangeId.ecp521,
  KeyExchangeId.modp1536,
] as const

export function createPolicy(choices: PolicyChoices = {}): IkePolicy {
  const { allowsModp1024 = false, allowsTripleDes = false, allowsSha1 = true } = choices
  const hashes: HashName[] = [
    'sha256',
    'sha384',
    'sha512',
    ...(allowsSha1 ? ['sha1' as const] : []),
  ]
  const groups: number[] = [...groupOrder, ...(allowsModp1024 ? [KeyExchangeId.modp1024] : [])]
  const ciphers: [EncryptionTransform | undefined, number][] = [
    [encryptionTransform(EncryptionId.aesCbc), 256],
    [encryptionTransform(EncryptionId.aesCbc), 192],
    [encryptionTransform(EncryptionId.aesCbc), 128],
  ]
  if (allowsTripleDes) ciphers.push([encryptionTransform(EncryptionId.tripleDes), 192])
  const phase1: Phase1Suite[] = []
  for (const [encryption, keyBits] of ciphers) {
    if (encryption === undefined) continue
    for (const group of groups) {
      for (const hash of hashes) phase1.push({ encryption, keyBits, hash, group })
    }
  }
  return {
    phase1,
    groups,
    phase2: phase2Suites(allowsTripleDes, allowsSha1),
    phase1Lifetimes: { seconds: choices.phase1LifetimeSeconds ?? 28_800, kilobytes: 0 },
    phase2Lifetimes: {
      seconds: choices.phase2LifetimeSeconds ?? 3_600,
      kilobytes: choices.phase2LifetimeKilobytes ?? 0,
    },
    requiresPfs: choices.requiresPfs ?? false,
  }
}

/** SHA-1 before SHA-2: some clients cut HMAC-SHA2-256 at 96 bits (field notes), and nobody SHA-1. */
function phase2Suites(allowsTripleDes: boolean, allowsSha1: boolean): PacketSuite[] {
  const gcm = encryptionTransform(EncryptionId.aesGcm16)
  const cbc = encryptionTransform(EncryptionId.aesCbc)
  const tripleDes = encryptionTransform(EncryptionId.tripleDes)
  const sha1 = integrityTransform(IntegrityId.hmacSha1_96)
  const suites: PacketSuite[] = []
  const add = (
    encryption: EncryptionTransform | undefined,
    keyBits: number,
    integrity: IntegrityTransform | undefined,
  ) => {
    if (encryption === undefined || encryption.isAead === (integrity !== undefined)) return
    suites.push({ encryption, keyBits, integrity, hasEsn: false })
  }
  for (const keyBits of [256, 128]) add(gcm, keyBits, undefined)
  if (allowsSha1) for (const keyBits of [256, 192, 128]) add(cbc, keyBits, sha1)
  for (const id of [
    IntegrityId.hmacSha256_128,
    IntegrityId.hmacSha384_192,
    IntegrityId.hmacSha512_256,
  ]) {
    for (const keyBits of [256, 192, 128]) add(cbc, keyBits, integrityTransform(id))
  }
  if (allowsTripleDes && allowsSha1) add(tripleDes, 192, sha1)
  return suites
}

/** A number attribute of a transform, undefined when absent or not a number. */
function attribute(attributes: readonly Attribute[], type: number): number | undefined {
  const found = attributes.find(one => one.type === type)
  return typeof found?.value === 'number' ? found.value : undefined
}

/** Pairs of life type and duration (RFC 2407 §4.5.4). */
function lifetimesOf(
  attributes: readonly Attribute[],
  typeAttribute: number,
  durationAttribute: number,
): Lifetimes {
  const lifetimes = { seconds: 0, kilobytes: 0 }
  let lifeType: number | undefined
  for (const { type, value } of attributes) {
    if (typeof value !== 'number') continue
    if (type === typeAttribute) lifeType = value
    if (type !== durationAttribute) continue
    if (lifeType === LifeType.seconds) lifetimes.seconds = value
    if (lifeType === LifeType.kilobytes) lifetimes.kilobytes = value
  }
  return lifetimes
}

function lifetimeAttributes(
  lifetimes: Lifetimes,
  typeAttribute: number,
  durationAttribute: number,
): Attribute[] {
  const attributes: Attribute[] = []
  if (lifetimes.seconds > 0) {
    attributes.push({ type: typeAttribute, value: LifeType.seconds })
    attributes.push({ type: durationAttribute, value: lifetimes.seconds })
  }
  if (lifetimes.kilobytes > 0) {
    attributes.push({ type: typeAttribute, value: LifeType.kilobytes })
    attributes.push({ type: durationAttribute, value: lifetimes.kilobytes })
  }
  return attributes
}

// Phase 1

function encryptionNumber(suite: Phase1Suite): number {
  return suite.encryption.id === EncryptionId.tripleDes
    ? Phase1Encryption.tripleDes
    : Phase1Encryption.aesCbc
}

const authenticationNumbers: Readonly<Record<Phase1AuthenticationMethod, number>> = {
  'pre-shared-key': Phase1Authentication.preSharedKey,
  'rsa-signatures': Phase1Authentication.rsaSignatures,
}

/** A list that fits into one datagram: what no gateway lacks, not all that we accept. */
function isOffered(suite: Phase1Suite): boolean {
  const isCommonHash = suite.hash === 'sha256' || suite.hash === 'sha1'
  const isCommonGroup =
    suite.group === KeyExchangeId.ecp256 ||
    suite.group === KeyExchangeId.modp2048 ||
    suite.group === KeyExchangeId.ecp384 ||
    suite.group === KeyExchangeId.modp1024
  const isCommonCipher = suite.encryption.id === EncryptionId.tripleDes || suite.keyBits !== 192
  return isCommonHash && isCommonGroup && isCommonCipher
}

/** The proposal of an initiator: the suites that matter, ours first. */
export function phase1Offer(policy: IkePolicy, method: Phase1AuthenticationMethod): Proposal[] {
  const transforms = policy.phase1.filter(isOffered).map(
    (suite, i): Transform => ({
      number: i + 1,
      id: KEY_IKE,
      attributes: [
        { type: Phase1Attribute.encryption, value: encryptionNumber(suite) },
        ...(suite.encryption.hasKeyLength
          ? [{ type: Phase1Attribute.keyLength, value: suite.keyBits }]
          : []),
        { type: Phase1Attribute.hash, value: Phase1Hash[suite.hash] },
        { type: Phase1Attribute.authentication, value: authenticationNumbers[method] },
        { type: Phase1Attribute.group, value: suite.group },
        ...lifetimeAttributes(
          policy.phase1Lifetimes,
          Phase1Attribute.lifeType,
          Phase1Attribute.lifeDuration,
        ),
      ],
    }),
  )
  return [{ number: 1, protocolId: ProtocolId.isakmp, spi: new Uint8Array(0), transforms }]
}

export interface Phase1Choice {
  readonly suite: Phase1Suite
  readonly method: Phase1AuthenticationMethod
  readonly lifetimes: Lifetimes
  /** The answer: the chosen transform, unchanged (RFC 2408 §4.2). */
  readonly answer: Proposal
}

export type Refusal = 'no-proposal-chosen' | 'xauth-refused'

/** Chooses out of an initiator's proposals, or checks a responder's answer, which is one of them. */
export function choosePhase1(
  proposals: readonly Proposal[],
  policy: IkePolicy,
  methods: readonly Phase1AuthenticationMethod[],
): Phase1Choice | Refusal {
  let asksXauth = false
  const offered: { proposal: Proposal; transform: Transform }[] = []
  for (const proposal of proposals) {
    if (proposal.protocolId !== ProtocolId.isakmp) continue
    for (const transform of proposal.transforms) {
      const method = attribute(transform.attributes, Phase1Attribute.authentication) ?? 0
      if (method >= Phase1Authentication.xauthFirst && method <= Phase1Authentication.xauthLast) {
        asksXauth = true
      }
      if (transform.id === KEY_IKE) offered.push({ proposal, transform })
    }
  }
  for (const method of methods) {
    for (const suite of policy.phase1) {
      for (const { proposal, transform } of offered) {
        if (!isPhase1Match(transform.attributes, suite, authenticationNumbers[method])) continue
        const lifetimes = lifetimesOf(
          transform.attributes,
          Phase1Attribute.lifeType,
          Phase1Attribute.lifeDuration,
        )
        return { suite, method, lifetimes, answer: { ...proposal, transforms: [transform] } }
      }
    }
  }
  return asksXauth ? 'xauth-refused' : 'no-proposal-chosen'
}

function isPhase1Match(
  attributes: readonly Attribute[],
  suite: Phase1Suite,
  method: number,
): boolean {
  const keyLength = attribute(attributes, Phase1Attribute.keyLength)
  return (
    attribute(attributes, Phase1Attribute.encryption) === encryptionNumber(suite) &&
    attribute(attributes, Phase1Attribute.hash) === Phase1Hash[suite.hash] &&
    attribute(attributes, Phase1Attribute.group) === suite.group &&
    attribute(attributes, Phase1Attribute.authentication) === method &&
    (suite.encryption.hasKeyLength ? keyLength === suite.keyBits : keyLength === undefined)
  )
}

// Phase 2

const espNumbers: Partial<Record<EncryptionId, number>> = {
  [EncryptionId.tripleDes]: EspTransform.tripleDes,
  [EncryptionId.aesCbc]: EspTransform.aesCbc,
  [EncryptionId.aesGcm16]: EspTransform.aesGcm16,
}

const authenticationOf: Partial<Record<IntegrityId, number>> = {
  [IntegrityId.hmacSha1_96]: Phase2Authentication.hmacSha1,
  [IntegrityId.hmacSha256_128]: Phase2Authentication.hmacSha256,
  [IntegrityId.hmacSha384_192]: Phase2Authentication.hmacSha384,
  [IntegrityId.hmacSha512_256]: Phase2Authentication.hmacSha512,
}

/** Whether ESP travels in UDP, and under which of the two numbers. */
export type EncapsulationMode = 'transport' | 'udp-transport' | 'udp-transport-draft'

const encapsulationNumbers: Readonly<Record<EncapsulationMode, number>> = {
  transport: Encapsulation.transport,
  'udp-transport': Encapsulation.udpTransport,
  'udp-transport-draft': Encapsulation.udpTransportDraft,
}

/** The proposal of an initiator of quick mode. `group` asks for perfect forward secrecy. */
export function phase2Offer(
  policy: IkePolicy,
  spi: Uint8Array,
  encapsulation: EncapsulationMode,
  group: number | undefined,
): Proposal[] {
  // One proposal per cipher, for an SPI belongs to a proposal and a transform ID to a transform.
  return [
    {
      number: 1,
      protocolId: ProtocolId.esp,
      spi,
      transforms: policy.phase2.map((suite, i): Transform => {
        const authentication =
          suite.integrity === undefined ? undefined : authenticationOf[suite.integrity.id]
        return {
          number: i + 1,
          id: espNumbers[suite.encryption.id] ?? 0,
          attributes: [
            ...lifetimeAttributes(
              policy.phase2Lifetimes,
              Phase2Attribute.lifeType,
              Phase2Attribute.lifeDuration,
            ),
            {
              type: Phase2Attribute.encapsulation,
              value: encapsulationNumbers[encapsulation],
            },
            ...(authentication === undefined
              ? []
              : [{ type: Phase2Attribute.authentication, value: authentication }]),
            ...(suite.encryption.hasKeyLength
              ? [{ type: Phase2Attribute.keyLength, value: suite.keyBits }]
              : []),
            ...(group === undefined ? [] : [{ type: Phase2Attribute.group, value: group }]),
          ],
        }
      }),
    },
  ]
}

export interface Phase2Choice {
  readonly suite: PacketSuite
  readonly peerSpi: Uint8Array
  readonly encapsulation: EncapsulationMode
  readonly group: number | undefined
  readonly lifetimes: Lifetimes
  readonly answer: Proposal
}

/**
 * Chooses out of an initiator's proposals, or checks a responder's answer. `encapsulations` are those
 * that fit what NAT detection found, in our order. `answer` carries the peer's SPI still.
 */
export function choosePhase2(
  proposals: readonly Proposal[],
  policy: IkePolicy,
  encapsulations: readonly EncapsulationMode[],
): Phase2Choice | Refusal {
  for (const suite of policy.phase2) {
    for (const encapsulation of encapsulations) {
      for (const proposal of proposals) {
        // AH together with ESP is more than we do.
        const isAlone = proposals.filter(other => other.number === proposal.number).length === 1
        if (!isAlone || proposal.protocolId !== ProtocolId.esp || proposal.spi.length !== 4)
          continue
        for (const transform of proposal.transforms) {
          const choice = matchPhase2(proposal, transform, suite, encapsulation, policy)
          if (choice !== undefined) return choice
        }
      }
    }
  }
  return 'no-proposal-chosen'
}

function matchPhase2(
  proposal: Proposal,
  transform: Transform,
  suite: PacketSuite,
  encapsulation: EncapsulationMode,
  policy: IkePolicy,
): Phase2Choice | undefined {
  const { attributes } = transform
  const { encryption, integrity } = suite
  if (transform.id !== espNumbers[encryption.id]) return undefined
  const wanted = integrity === undefined ? undefined : authenticationOf[integrity.id]
  if (attribute(attributes, Phase2Attribute.authentication) !== wanted) return undefined
  const keyLength = attribute(attributes, Phase2Attribute.keyLength)
  const isKeyRight = encryption.hasKeyLength ? keyLength === suite.keyBits : keyLength === undefined
  if (!isKeyRight) return undefined
  const mode = attribute(attributes, Phase2Attribute.encapsulation)
  if (mode !== encapsulationNumbers[encapsulation]) return undefined
  const group = attribute(attributes, Phase2Attribute.group)
  if (group === undefined ? policy.requiresPfs : !policy.groups.includes(group)) return undefined
  return {
    suite,
    peerSpi: proposal.spi,
    encapsulation,
    group,
    lifetimes: lifetimesOf(attributes, Phase2Attribute.lifeType, Phase2Attribute.lifeDuration),
    answer: { ...proposal, transforms: [transform] },
  }
}

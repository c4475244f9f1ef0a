/** IKE_SA_INIT: algorithms, key exchange, capabilities. RFC 7296 §1.2, §2.6, §2.7, §2.23. */
import { copyBytes, equalBytes, fromHex, putU16, u16 } from '../../core/bytes.ts'
import { randomBytes } from '../../core/random.ts'
import type { Secret } from '../../core/secret.ts'
import type { KeyExchangeOffer } from '../../crypto/key-exchange.ts'
import { keyExchange } from '../../crypto/key-exchanges.ts'
import type { Association } from '../association.ts'
import type { Connection } from '../connection.ts'
import { keyLogLine } from '../key-log.ts'
import { ikeKeys, initialSkeyseed } from '../key-schedule.ts'
import { detectNat, natNotifies } from '../nat-detection.ts'
import { IKE_PORT, NAT_TRAVERSAL_PORT } from '../path.ts'
import { chooseIke, ikeProposals, isAnswer, knownGroups } from '../proposal.ts'
import { parseSignatureHashes, signatureHashes } from '../signature.ts'
import type { IkeSuite } from '../suite.ts'
import type { IncomingMessage, Task } from '../task.ts'
import { AUTHORITY_HASH_BYTES, CertificateEncoding } from '../wire/certificate.ts'
import { HEADER_BYTES, SPI_BYTES } from '../wire/header.ts'
import { allPayloads, findNotify, findPayload } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { isErrorNotify, NotifyType, notifyName } from '../wire/notify-type.ts'
import { NONCE_MIN_BYTES } from '../wire/opaque.ts'
import type { Payload } from '../wire/payload.ts'
import { payloadChainBytes } from '../wire/payload-chain.ts'
import { speaksPpk } from './ppk.ts'
import { followRedirect, parseRedirect, redirectData } from './redirect.ts'

/** RFC 7296 §2.10: half the key size of the PRF at least, 16 at least; 32 covers all of ours. */
export const OUR_NONCE_BYTES = 32

/** Answers with COOKIE or INVALID_KE_PAYLOAD that an initiator follows before it gives up. */
const RETRIES_MAX = 5

/** RFC 7296 §3.7: most authorities of a peer that we remember; Windows lists all of its store. */
const AUTHORITIES_MAX = 256

const noSpi = new Uint8Array(0)

/** MD5 of "MS NT5 ISAKMPOAKLEY", then a version ([MS-IKEE] §3.1). */
const microsoftVendorId = fromHex('1e2b516905991c7d7c96fcbfb587e461')

/** Notifications of our own abilities, the same in both directions. */
function capabilities(connection: Connection, peerSaid: Connection['peer'] | undefined): Payload[] {
  const { features, signature, ikeAlgorithms } = connection.options
  const payloads: Payload[] = []
  if (features.fragmentation && (peerSaid?.fragments ?? true)) {
    payloads.push(notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED))
  }
  if (peerSaid === undefined || peerSaid.signatureHashes.length > 0) {
    payloads.push(notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, signatureHashes(signature)))
  }
  const hasAdditional = (ikeAlgorithms.additionalKeyExchange?.length ?? 0) > 0
  if (hasAdditional && (peerSaid?.intermediate ?? true)) {
    payloads.push(notify(NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED))
  }
  if (speaksPpk(connection) && (peerSaid?.usesPpk ?? true)) {
    payloads.push(notify(NotifyType.USE_PPK))
  }
  if (peerSaid === undefined && features.redirect) {
    payloads.push(notify(NotifyType.REDIRECT_SUPPORTED))
  }
  return payloads
}

export function learnCapabilities(connection: Connection, payloads: readonly Payload[]): void {
  const { peer, options } = connection
  const has = (notifyType: number) => findNotify(payloads, notifyType) !== undefined
  peer.fragments = options.features.fragmentation && has(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)
  peer.childless = has(NotifyType.CHILDLESS_IKEV2_SUPPORTED)
  peer.redirect = has(NotifyType.REDIRECT_SUPPORTED)
  peer.intermediate = has(NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED)
  peer.usesPpk = has(NotifyType.USE_PPK)
  peer.signatureHashes = parseSignatureHashes(
    findNotify(payloads, NotifyType.SIGNATURE_HASH_ALGORITHMS)?.data,
  )
  peer.isWindows = allPayloads(payloads, 'V').some(
    vendor =>
      vendor.data.length >= microsoftVendorId.length &&
      equalBytes(vendor.data.subarray(0, microsoftVendorId.length), microsoftVendorId),
  )
  learnAuthorities(connection, payloads)
}

/** Unknown encodings are no failure (RFC 7296 §3.7). */
export function learnAuthorities(connection: Connection, payloads: readonly Payload[]): void {
  const wanted: Uint8Array[] = [...connection.setup.wantedAuthorities]
  for (const request of allPayloads(payloads, 'CERTREQ')) {
    if (request.encoding !== CertificateEncoding.X509_SIGNATURE) continue
    const { authorities } = request
    for (let at = 0; at < authorities.length && wanted.length < AUTHORITIES_MAX; ) {
      // copied: outlives the message
      wanted.push(copyBytes(authorities, at, at + AUTHORITY_HASH_BYTES))
      at += AUTHORITY_HASH_BYTES
    }
  }
  connection.setup.wantedAuthorities = wanted
}

/** Keys of the first association. Destroys `sharedSecret`. */
function installFirstKeys(
  connection: Connection,
  association: Association,
  suite: IkeSuite,
  sharedSecret: Secret,
): void {
  const { nonces } = connection.setup
  const skeyseed = initialSkeyseed(suite.prf, nonces, sharedSecret)
  sharedSecret.destroy()
  const keys = ikeKeys(suite, skeyseed, nonces, association.spis)
  association.install(suite, keys)
  connection.setup.additionalKeyExchanges = [...suite.additionalKeyExchanges]
  logKeys(connection, association)
}

export function logKeys(connection: Connection, association: Association): void {
  const { suite, keys } = association
  if (!connection.options.features.keyLog || !suite || !keys) return
  const line = keyLogLine(suite, keys, association.spis)
  if (line !== undefined) connection.emit({ type: 'key-log', line })
}

/** What a responder says to an IKE_SA_INIT request; an error answer ends the attempt. */
export interface InitAnswer {
  readonly payloads: readonly Payload[]
  /** RFC 7296 §2.6: errors are answered without a responder SPI, for nothing is kept. */
  readonly refusal: string | undefined
}

export function refused(notifyType: number, data?: Uint8Array): InitAnswer {
  return { payloads: [notify(notifyType, data)], refusal: notifyName(notifyType) }
}

function groupData(group: number): Uint8Array {
  const data = new Uint8Array(2)
  putU16(data, 0, group)
  return data
}

/** Responder. Cookies were dealt with before: this costs a Diffie-Hellman operation. */
export function answerInit(
  connection: Connection,
  association: Association,
  request: IncomingMessage,
): InitAnswer {
  const { options } = connection
  const sa = findPayload(request.payloads, 'SA')
  const ke = findPayload(request.payloads, 'KE')
  const nonce = findPayload(request.payloads, 'Nonce')
  if (!sa || !ke || !nonce) return refused(NotifyType.INVALID_SYNTAX)
  learnCapabilities(connection, request.payloads)
  const elsewhere = redirection(connection, request.payloads)
  if (elsewhere !== undefined) {
    return refused(NotifyType.REDIRECT, redirectData(elsewhere, nonce.data))
  }
  const algorithms = connection.peer.intermediate
    ? options.ikeAlgorithms
    : { ...options.ikeAlgorithms, additionalKeyExchange: [] }
  const choice = chooseIke(sa.proposals, algorithms, ke.group, noSpi, 0)
  if (choice === undefined) return refused(NotifyType.NO_PROPOSAL_CHOSEN)
  const { suite } = choice
  if (ke.group !== suite.keyExchangeId) {
    return refused(NotifyType.INVALID_KE_PAYLOAD, groupData(suite.keyExchangeId))
  }
  const answer = keyExchange(ke.group)?.answer(ke.publicValue, connection.host.random)
  if (answer === undefined || typeof answer === 'number') return refused(NotifyType.INVALID_SYNTAX)
  // As long as the peer's, within RFC 7296 §2.10: no answer shall be longer than its question.
  const nonceBytes = Math.max(suite.prf.outputBytes / 2, NONCE_MIN_BYTES)
  const ourNonce = randomBytes(
    connection.host.random,
    Math.min(Math.max(nonce.data.length, nonceBytes), OUR_NONCE_BYTES),
  )
  connection.setup.nonces = { initiator: copyBytes(nonce.data), responder: ourNonce }
  // copied: AUTH covers the message as it came
  connection.setup.initiatorMessage = copyBytes(request.bytes)
  // The request was hashed before there was a responder SPI.
  const requestSpis = { ...association.spis, responderSpi: new Uint8Array(SPI_BYTES) }
  connection.nat = detectNat(request.payloads, requestSpis, request.path)
  installFirstKeys(connection, association, suite, answer.sharedSecret)
  connection.state = 'authenticating'
  const payloads: Payload[] = [
    { type: 'SA', proposals: [choice.answer] },
    { type: 'KE', group: ke.group, publicValue: answer.publicValue },
    { type: 'Nonce', data: ourNonce },
    ...(connection.nat === undefined
      ? []
      : natNotifies(association.spis, request.path, options.features.forcesEncapsulation)),
    ...capabilities(connection, connection.peer),
  ]
  const welcome: Payload[] = [
    ...authorityRequest(connection),
    ...(options.features.childless ? [notify(NotifyType.CHILDLESS_IKEV2_SUPPORTED)] : []),
    ...options.vendorIds.map((data): Payload => ({ type: 'V', data })),
  ]
  for (const payload of welcome) {
    const lengthBytes = HEADER_BYTES + payloadChainBytes([...payloads, payload])
    if (lengthBytes <= request.bytes.length) payloads.push(payload)
  }
  return { refusal: undefined, payloads }
}

/** Where the peer is to go. Not back to where it was sent here from (RFC 5685 §6). */
function redirection({ options, peer }: Connection, payloads: readonly Payload[]) {
  const { redirectTo } = options
  const from = findNotify(payloads, NotifyType.REDIRECTED_FROM)
  if (redirectTo === undefined || (!peer.redirect && from === undefined)) return undefined
  return from !== undefined && parseRedirect(from.data)?.gateway === redirectTo
    ? undefined
    : redirectTo
}

/** CERTREQ with the authorities whose certificates we take. */
export function authorityRequest(connection: Connection): Payload[] {
  const { acceptsCertificates, authorities } = connection.options.peer
  if (!acceptsCertificates || authorities.length === 0) return []
  const bytes = new Uint8Array(AUTHORITY_HASH_BYTES * authorities.length)
  authorities.forEach((hash, i) => {
    bytes.set(hash, AUTHORITY_HASH_BYTES * i)
  })
  return [{ type: 'CERTREQ', encoding: CertificateEncoding.X509_SIGNATURE, authorities: bytes }]
}

/** RFC 7296 §2.23: behind a NAT all goes to port 4500; MOBIKE wants it in any case (RFC 4555 §3.3). */
export function floatToNatTraversal(connection: Connection): void {
  const { local, peer } = connection.path
  const isNeeded = connection.isUdpEncapsulated || connection.options.features.mobike
  if (!isNeeded || connection.nat === undefined || peer.port !== IKE_PORT) return
  if (peer.isTcp === true) return
  const localPort = local.port === IKE_PORT ? NAT_TRAVERSAL_PORT : local.port
  connection.path = {
    local: { ...local, port: localPort },
    peer: { ...peer, port: NAT_TRAVERSAL_PORT },
  }
}

/** Initiator: asks until it has keys, then hands over to what follows. */
export class IkeInit implements Task {
  readonly name = 'ike-init'
  readonly exchange = 'IKE_SA_INIT'
  readonly #next: readonly Task[]
  #group: number | undefined
  #offer: KeyExchangeOffer | undefined
  #nonce: Uint8Array | undefined
  #cookie: Uint8Array | undefined
  #retries = 0

  /** `next` follows once there are keys. */
  constructor(next: readonly Task[]) {
    this.#next = next
  }

  build(connection: Connection, association: Association): readonly Payload[] | undefined {
    const { options } = connection
    this.#group ??= knownGroups(options.ikeAlgorithms.keyExchange)[0]
    const group = keyExchange(this.#group ?? 0)
    if (group === undefined) {
      connection.close('nas-error', 'no-key-exchange')
      return undefined
    }
    this.#offer ??= group.offer(connection.host.random)
    this.#nonce ??= randomBytes(connection.host.random, OUR_NONCE_BYTES)
    connection.state = 'initiating'
    return [
      // RFC 7296 §2.6: the cookie first, all else unchanged.
      ...(this.#cookie === undefined ? [] : [notify(NotifyType.COOKIE, this.#cookie)]),
      { type: 'SA', proposals: ikeProposals(options.ikeAlgorithms, noSpi) },
      { type: 'KE', group: group.id, publicValue: this.#offer.publicValue },
      { type: 'Nonce', data: this.#nonce },
      ...natNotifies(association.spis, connection.path, options.features.forcesEncapsulation),
      ...capabilities(connection, undefined),
      ...options.vendorIds.map((data): Payload => ({ type: 'V', data })),
    ]
  }

  process(connection: Connection, association: Association, response: IncomingMessage): void {
    if (response.form !== 'initial') {
      this.#notified(connection, association, response)
      return
    }
    const { payloads } = response
    const sa = findPayload(payloads, 'SA')
    const ke = findPayload(payloads, 'KE')
    const nonce = findPayload(payloads, 'Nonce')
    if (!sa || !ke || !nonce || !this.#offer || !this.#nonce) return
    learnCapabilities(connection, payloads)
    const choice = isAnswer(sa.proposals)
      ? chooseIke(sa.proposals, connection.options.ikeAlgorithms, ke.group, noSpi, 0)
      : undefined
    if (choice === undefined || ke.group !== this.#group) {
      connection.close('protocol-error', 'answer-not-proposed')
      return
    }
    const sharedSecret = this.#offer.finish(ke.publicValue)
    this.#offer = undefined
    if (typeof sharedSecret === 'number') {
      connection.close('protocol-error', 'bad-key-exchange-value')
      return
    }
    connection.setup.nonces = { initiator: this.#nonce, responder: copyBytes(nonce.data) }
    connection.setup.responderMessage = copyBytes(response.bytes)
    connection.nat = detectNat(payloads, association.spis, response.path)
    floatToNatTraversal(connection)
    installFirstKeys(connection, association, choice.suite, sharedSecret)
    connection.state = 'authenticating'
    association.queue.push(...this.#next)
  }

  #retry(connection: Connection, association: Association): void {
    if (++this.#retries > RETRIES_MAX) {
      connection.close('protocol-error', 'too-many-init-retries')
      return
    }
    association.peerSpi = new Uint8Array(SPI_BYTES)
    association.queue.unshift(this)
  }

  #notified(connection: Connection, association: Association, response: IncomingMessage): void {
    const { payloads } = response
    const cookie = findNotify(payloads, NotifyType.COOKIE)
    if (cookie !== undefined) {
      if (cookie.data.length < 1 || cookie.data.length > 64) {
        connection.close('protocol-error', 'bad-cookie')
        return
      }
      this.#cookie = copyBytes(cookie.data)
      this.#retry(connection, association)
      return
    }
    const wanted = findNotify(payloads, NotifyType.INVALID_KE_PAYLOAD)
    if (wanted !== undefined) {
      const group = u16(wanted.data, 0)
      // Only a group of ours, and not the one just sent: else a liar could send us round.
      if (!connection.options.ikeAlgorithms.keyExchange.includes(group) || group === this.#group) {
        connection.close('protocol-error', 'group-not-proposed')
        return
      }
      this.#group = group
      this.#offer?.destroy()
      this.#offer = undefined
      this.#retry(connection, association)
      return
    }
    const redirect = findNotify(payloads, NotifyType.REDIRECT)
    if (redirect !== undefined && connection.options.features.redirect) {
      followRedirect(connection, redirect.data, this.#nonce)
      return
    }
    const error = allPayloads(payloads, 'N').find(item => isErrorNotify(item.notifyType))
    const detail = error === undefined ? 'no-answer-payloads' : notifyName(error.notifyType)
    connection.close('protocol-error', detail)
  }
}

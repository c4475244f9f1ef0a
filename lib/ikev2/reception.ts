/**
 * From a datagram to a message that is legal and, when its exchange is protected, authentic. RFC 7296
 * §2.1, §2.2, §2.5, §2.21; RFC 7383 §2.6. Nothing is changed before the check value is right, except
 * counters.
 */
import { equalBytes } from '../core/bytes.ts'
import { WireFault } from '../core/faults.ts'
import type { Association } from './association.ts'
import type { Connection } from './connection.ts'
import { FRAGMENTS_LIFETIME_MS } from './fragments.ts'
import { coverReceived } from './intermediate-auth.ts'
import type { Path } from './path.ts'
import { openMessage, parseInner } from './protection.ts'
import type { IncomingMessage } from './task.ts'
import { isCleartext, sendDatagrams } from './transmission.ts'
import { legality, unknownCritical } from './wire/exchange-rules.ts'
import { type ExchangeName, exchangeName } from './wire/exchange-type.ts'
import { checkHeader, type Header, parseHeader } from './wire/header.ts'
import { parseMessage } from './wire/message.ts'
import type { Payload } from './wire/payload.ts'
import type { PayloadChain } from './wire/payload-chain.ts'

/** What is wrong with an authentic message; a request is answered with it. */
export type MessageRefusal =
  | { readonly type: 'invalid-syntax'; readonly fault: WireFault }
  | { readonly type: 'unsupported-critical'; readonly payloadType: number }

export interface Reception {
  readonly association: Association
  readonly header: Header
  readonly exchange: ExchangeName
  /** Size of the largest fragment, 0 when the message came whole. */
  readonly fragmentBytes: number
  readonly message: IncomingMessage | MessageRefusal
}

/** Header and exchange of a datagram for this machine, or undefined after counting why not. */
export function readHeader(
  connection: Connection,
  bytes: Uint8Array,
): { readonly header: Header; readonly exchange: ExchangeName } | undefined {
  const fault = checkHeader(bytes)
  if (fault) {
    connection.emit({ type: 'malformed', fault })
    return undefined
  }
  const header = parseHeader(bytes)
  const exchange = exchangeName(header.exchangeType)
  if (exchange === undefined) {
    connection.unexpected('unknown-exchange')
    return undefined
  }
  return { header, exchange }
}

export function findAssociation(connection: Connection, header: Header): Association | undefined {
  return connection.associations.find(association => {
    if (association.isInitiator === header.isFromInitiator) return false
    const ours = association.isInitiator ? header.initiatorSpi : header.responderSpi
    const theirs = association.isInitiator ? header.responderSpi : header.initiatorSpi
    if (!equalBytes(ours, association.localSpi)) return false
    // The responder's SPI is not known yet in the answer to IKE_SA_INIT.
    return equalBytes(theirs, association.peerSpi) || association.receiver === undefined
  })
}

/** The message in a datagram of one of our associations; `bytes` are ours and are decrypted in place. */
export function receive(
  connection: Connection,
  association: Association,
  header: Header,
  exchange: ExchangeName,
  bytes: Uint8Array,
  path: Path,
  nowMs: number,
): Reception | undefined {
  if (header.isResponse) {
    const { outstanding } = association
    if (outstanding?.messageId !== header.messageId || outstanding.exchange !== exchange) {
      connection.unexpected('response-unasked')
      return undefined
    }
  }
  const chain = parseMessage(bytes)
  if (chain.fault) {
    connection.emit({ type: 'malformed', fault: chain.fault })
    return undefined
  }
  const head = { association, header, exchange }
  if (isCleartext(exchange)) {
    return {
      ...head,
      fragmentBytes: 0,
      message: judge(head, chain.payloads, false, path, bytes),
    }
  }
  return receiveProtected(connection, head, chain, bytes, path, nowMs)
}

type Head = Pick<Reception, 'association' | 'header' | 'exchange'>

function receiveProtected(
  connection: Connection,
  head: Head,
  chain: PayloadChain,
  bytes: Uint8Array,
  path: Path,
  nowMs: number,
): Reception | undefined {
  const { association, header } = head
  const cipher = association.receiverOf(header.messageId, header.isResponse)
  const last = chain.payloads[chain.payloads.length - 1]
  if (cipher === undefined || (last?.type !== 'SK' && last?.type !== 'SKF')) {
    connection.unexpected(cipher ? 'cleartext-in-protected-exchange' : 'protected-before-keys')
    return undefined
  }
  if (chain.payloads.length !== 1) {
    connection.unexpected('cleartext-beside-encrypted')
    return undefined
  }
  if (!header.isResponse && !isExpectedRequest(connection, association, header)) return undefined
  const isFragment = last.type === 'SKF'
  if (isFragment && !connection.peer.fragments) {
    connection.unexpected('fragment-not-agreed')
    return undefined
  }
  const opened = openMessage(cipher, bytes, chain.encryptedAt, isFragment)
  if (opened.fault === WireFault['bad-checksum'] || opened.fault === WireFault.truncated) {
    connection.emit({ type: 'malformed', fault: opened.fault })
    return undefined
  }
  if (!header.isResponse && header.messageId !== association.expectedRequestId) {
    // Authentic and already answered: only the first fragment calls for the answer (RFC 7383 §2.6.1).
    if (!isFragment || last.fragmentNumber === 1) repeatReply(connection, association, header, path)
    return undefined
  }
  let plaintext = opened.plaintext
  let innerType = chain.innerType
  let fragmentBytes = 0
  if (isFragment && !opened.fault) {
    const set = association.fragments(header.messageId, header.isResponse)
    connection.timers.set(`fragments:${association.index}`, nowMs + FRAGMENTS_LIFETIME_MS)
    const { fragmentNumber, totalFragments } = last
    const outcome = set.add(fragmentNumber, totalFragments, innerType, plaintext, bytes.length)
    if (outcome !== 'complete') {
      if (outcome !== 'stored') connection.unexpected(`fragment-${outcome}`)
      return undefined
    }
    plaintext = set.join()
    innerType = set.innerType
    fragmentBytes = set.largestBytes
    association.dropFragments()
    connection.timers.clear(`fragments:${association.index}`)
  }
  const inner = opened.fault
    ? { fault: opened.fault, payloads: [] }
    : parseInner(plaintext, innerType)
  if (inner.fault) connection.emit({ type: 'malformed', fault: inner.fault })
  const message = inner.fault
    ? ({ type: 'invalid-syntax', fault: inner.fault } as const)
    : judge(head, inner.payloads, true, path, bytes)
  if (head.exchange === 'IKE_INTERMEDIATE') {
    coverReceived(connection, association, bytes, plaintext, innerType)
  }
  return { ...head, fragmentBytes, message }
}

/** RFC 7296 §2.2, §2.3: the next request, or the one just answered. */
function isExpectedRequest(
  connection: Connection,
  association: Association,
  header: Header,
): boolean {
  const { messageId } = header
  if (messageId === association.expectedRequestId) {
    if (association.answering === undefined) return true
    connection.unexpected('request-while-answering')
    return false
  }
  if (association.hasReplyTo(messageId)) return true
  const isRepeated = association.answering?.messageId === messageId
  connection.unexpected(isRepeated ? 'request-repeated-while-answering' : 'message-id')
  return false
}

/** The identical bytes, to where the repetition came from (RFC 7296 §2.1). */
export function repeatReply(
  connection: Connection,
  association: Association,
  header: Header,
  path: Path,
): void {
  const datagrams = association.replyTo(header.messageId)
  if (datagrams === undefined) return
  connection.unexpected('request-repeated')
  sendDatagrams(connection, path, datagrams)
}

function judge(
  head: Head,
  payloads: readonly Payload[],
  isProtected: boolean,
  path: Path,
  bytes: Uint8Array,
): IncomingMessage | MessageRefusal {
  const { exchange, header } = head
  const critical = unknownCritical(payloads)
  if (critical !== undefined) return { type: 'unsupported-critical', payloadType: critical }
  const direction = header.isResponse ? 'response' : 'request'
  const { fault, form } = legality(exchange, direction, isProtected, payloads)
  if (form === undefined) return { type: 'invalid-syntax', fault }
  return { exchange, form, payloads, path, bytes }
}

export function isRefusal(message: IncomingMessage | MessageRefusal): message is MessageRefusal {
  return 'type' in message
}

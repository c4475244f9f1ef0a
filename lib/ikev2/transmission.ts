/** Requests, responses and their repetition: RFC 7296 §2.1 to §2.3, RFC 7383. */
import type { Association, Outstanding } from './association.ts'
import type { Connection } from './connection.ts'
import { coverSent } from './intermediate-auth.ts'
import type { Path } from './path.ts'
import { addressBytes } from './path.ts'
import { messageRoomBytes, sealFragments, sealMessage } from './protection.ts'
import type { Task } from './task.ts'
import { type ExchangeName, ExchangeType } from './wire/exchange-type.ts'
import { encodeMessage, type MessageHead } from './wire/message.ts'
import type { Payload } from './wire/payload.ts'

const cleartext: ReadonlySet<ExchangeName> = new Set(['IKE_SA_INIT', 'IKE_SESSION_RESUME'])

export function isCleartext(exchange: ExchangeName): boolean {
  return cleartext.has(exchange)
}

function headOf(
  association: Association,
  exchange: ExchangeName,
  messageId: number,
  isResponse: boolean,
): MessageHead {
  return {
    ...association.spis,
    exchangeType: ExchangeType[exchange],
    isFromInitiator: association.isInitiator,
    isResponse,
    canHigherVersion: false,
    messageId,
  }
}

/** The datagrams of a message: one in clear, one protected, or several fragments. */
function datagramsOf(
  connection: Connection,
  association: Association,
  head: MessageHead,
  exchange: ExchangeName,
  payloads: readonly Payload[],
  packetBytes: number,
): Uint8Array[] {
  const { random } = connection.host
  const cipher = association.sender
  if (isCleartext(exchange) || cipher === undefined) return [encodeMessage(head, payloads)]
  // A stream needs no fragments (RFC 9329 §7.3).
  const isWhole = !connection.peer.fragments || connection.path.peer.isTcp === true
  if (isWhole) return [sealMessage(cipher, head, payloads, random)]
  const isIpv6 = addressBytes(connection.path.peer.address).length === 16
  return sealFragments(cipher, head, payloads, messageRoomBytes(packetBytes, isIpv6), random)
}

export function sendDatagrams(
  connection: Connection,
  path: Path,
  datagrams: readonly Uint8Array[],
): void {
  // copied: the driver may keep what it is handed, and we repeat ours
  for (const bytes of datagrams) connection.emit({ type: 'datagram', path, bytes: bytes.slice() })
}

/** Sends the next request of the queue when none is out (window 1, RFC 7296 §2.3). */
export function sendNext(connection: Connection, association: Association, nowMs: number): void {
  while (association.outstanding === undefined) {
    const task = association.queue.shift()
    if (task === undefined) return
    const payloads = task.build(connection, association, nowMs)
    if (payloads !== undefined) sendRequest(connection, association, task, payloads, nowMs)
    if (connection.state === 'closed') return
  }
}

function sendRequest(
  connection: Connection,
  association: Association,
  task: Task,
  payloads: readonly Payload[],
  nowMs: number,
): void {
  const { exchange } = task
  // IKE_SA_INIT is message 0 however often it is tried (RFC 7296 §2.6).
  const messageId = isCleartext(exchange) ? 0 : association.nextRequestId++
  const head = headOf(association, exchange, messageId, false)
  const packetBytes = connection.options.features.fragmentPacketBytes
  const datagrams = datagramsOf(connection, association, head, exchange, payloads, packetBytes)
  association.outstanding = { task, messageId, exchange, payloads, datagrams, tries: 0 }
  if (exchange === 'IKE_INTERMEDIATE') coverSent(connection, association, head, payloads)
  if (isCleartext(exchange)) {
    association.nextRequestId = 1
    connection.setup.initiatorMessage = datagrams[0] ?? connection.setup.initiatorMessage
  }
  connection.timers.set(`retransmit:${association.index}`, nowMs + delayMs(connection, 0))
  sendDatagrams(connection, connection.path, datagrams)
}

function delayMs(connection: Connection, tries: number): number {
  const { firstMs, factor, capMs } = connection.options.timing.retransmit
  return Math.min(firstMs * factor ** tries, capMs)
}

/** The answer has not come: repeat, smaller after a while, and give up in the end. */
export function retransmit(connection: Connection, association: Association, nowMs: number): void {
  const { outstanding } = association
  if (outstanding === undefined) return
  outstanding.tries++
  const { features, timing } = connection.options
  const tries = connection.isClosing
    ? Math.min(2, timing.retransmit.tries)
    : timing.retransmit.tries
  if (outstanding.tries > tries) {
    connection.giveUp(association)
    return
  }
  if (outstanding.tries === features.fallbackAfterTries && !isCleartext(outstanding.exchange)) {
    recut(connection, association, outstanding)
  }
  connection.timers.set(
    `retransmit:${association.index}`,
    nowMs + delayMs(connection, outstanding.tries),
  )
  sendDatagrams(connection, connection.path, outstanding.datagrams)
}

/** RFC 7383 §2.5.2: a request may be cut anew, into more fragments than before. */
function recut(connection: Connection, association: Association, outstanding: Outstanding): void {
  const smaller = datagramsOf(
    connection,
    association,
    headOf(association, outstanding.exchange, outstanding.messageId, false),
    outstanding.exchange,
    outstanding.payloads,
    connection.options.features.fallbackPacketBytes,
  )
  if (smaller.length > outstanding.datagrams.length) outstanding.datagrams = smaller
}

/** Answers the request that is being answered, and remembers the answer for repetitions. */
export function sendReply(
  connection: Connection,
  association: Association,
  payloads: readonly Payload[],
): void {
  const { answering } = association
  if (answering === undefined) return
  const { exchange, messageId, path, fragmentBytes } = answering
  const { fragmentPacketBytes } = connection.options.features
  // What the peer cuts its own messages to is what its path carries (RFC 7383 §2.5.1).
  const packetBytes =
    fragmentBytes === 0 ? fragmentPacketBytes : Math.min(fragmentPacketBytes, fragmentBytes + 52)
  const head = headOf(association, exchange, messageId, true)
  const datagrams = datagramsOf(connection, association, head, exchange, payloads, packetBytes)
  if (exchange === 'IKE_INTERMEDIATE') coverSent(connection, association, head, payloads)
  association.answering = undefined
  association.keepReply(messageId, datagrams)
  if (isCleartext(exchange)) {
    connection.setup.responderMessage = datagrams[0] ?? connection.setup.responderMessage
  }
  sendDatagrams(connection, path, datagrams)
}

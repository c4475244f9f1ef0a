/** Changing addresses, RFC 4555, and following a NAT that changed its mapping, RFC 7296 §2.23. */
import { copyBytes, equalBytes, u32 } from '../../core/bytes.ts'
import { formatIpv4, formatIpv6 } from '../../core/ip-address.ts'
import { randomBytes } from '../../core/random.ts'
import type { Association } from '../association.ts'
import type { Connection } from '../connection.ts'
import { detectNat, type NatState, natNotifies } from '../nat-detection.ts'
import { isSamePath, type Path } from '../path.ts'
import type { IncomingMessage, Task } from '../task.ts'
import { allPayloads, findNotify } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { NotifyType } from '../wire/notify-type.ts'
import type { Payload } from '../wire/payload.ts'

/** RFC 4555 §3.7: 8 to 64 bytes. */
const COOKIE2_BYTES = 16

/** Other addresses of a peer that we remember. */
const ADDRESSES_MAX = 8

/** Initiator: tells the responder of the path that the connection has taken. */
export class UpdateAddresses implements Task {
  readonly name = 'update-addresses'
  readonly survivesRekey = true
  readonly exchange = 'INFORMATIONAL'
  #path: Path | undefined

  build(connection: Connection, association: Association): readonly Payload[] {
    this.#path = connection.path
    return [
      notify(NotifyType.UPDATE_SA_ADDRESSES),
      ...natNotifies(
        association.spis,
        connection.path,
        connection.options.features.forcesEncapsulation,
      ),
    ]
  }

  process(connection: Connection, association: Association, response: IncomingMessage): void {
    for (const notifyType of [
      NotifyType.UNACCEPTABLE_ADDRESSES,
      NotifyType.UNEXPECTED_NAT_DETECTED,
    ]) {
      if (findNotify(response.payloads, notifyType)) {
        connection.unexpected('mobike-addresses-refused')
        return
      }
    }
    // Moved again while this was on its way: the answer is about a path that is no more.
    if (this.#path !== undefined && !isSamePath(this.#path, connection.path)) {
      connection.enqueue(new UpdateAddresses())
      return
    }
    const nat = detectNat(response.payloads, association.spis, response.path)
    if (nat !== undefined) connection.nat = nat
    connection.emit({
      type: 'moved',
      path: connection.path,
      isUdpEncapsulated: connection.isUdpEncapsulated,
    })
  }
}

/** Responder: the peer must show that it receives at its new address before ESP goes there. */
export class ReturnRoutability implements Task {
  readonly name = 'return-routability'
  readonly survivesRekey = true
  readonly exchange = 'INFORMATIONAL'
  readonly #path: Path
  readonly #nat: NatState | undefined
  #cookie: Uint8Array | undefined

  constructor(path: Path, nat: NatState | undefined) {
    this.#path = path
    this.#nat = nat
  }

  build(connection: Connection): readonly Payload[] | undefined {
    // Superseded by another move.
    if (!isSamePath(connection.path, this.#path)) return undefined
    this.#cookie = randomBytes(connection.host.random, COOKIE2_BYTES)
    return [notify(NotifyType.COOKIE2, this.#cookie)]
  }

  process(connection: Connection, _association: Association, response: IncomingMessage): void {
    const echoed = findNotify(response.payloads, NotifyType.COOKIE2)?.data
    const isEchoed =
      echoed !== undefined && this.#cookie !== undefined && equalBytes(echoed, this.#cookie)
    if (!isEchoed) {
      // RFC 4555 §3.7: somebody answers who did not see the request.
      connection.close('protocol-error', 'cookie2-mismatch')
      return
    }
    if (!isSamePath(connection.path, this.#path)) return
    if (this.#nat !== undefined) connection.nat = this.#nat
    connection.emit({
      type: 'moved',
      path: this.#path,
      isUdpEncapsulated: connection.isUdpEncapsulated,
    })
  }
}

/** The notifications of RFC 4555 in a request, and what they call for in the answer. */
export function answerMobike(
  connection: Connection,
  association: Association,
  request: IncomingMessage,
): Payload[] {
  const { payloads, path } = request
  const answer: Payload[] = []
  const cookie2 = findNotify(payloads, NotifyType.COOKIE2)
  if (cookie2 !== undefined && cookie2.data.length <= 64) {
    answer.push(notify(NotifyType.COOKIE2, copyBytes(cookie2.data)))
  }
  if (!connection.peer.mobike) return answer
  learnAddresses(connection, payloads)
  const nat = detectNat(payloads, association.spis, path)
  if (nat !== undefined) {
    answer.push(
      ...natNotifies(association.spis, path, connection.options.features.forcesEncapsulation),
    )
  }
  // Only who initiated the first IKE SA decides on addresses (RFC 4555 §3.5).
  if (connection.options.role !== 'responder') return answer
  if (findNotify(payloads, NotifyType.UPDATE_SA_ADDRESSES) === undefined) return answer
  const forbidsNat = findNotify(payloads, NotifyType.NO_NATS_ALLOWED) !== undefined
  if (forbidsNat && nat?.isPeerBehindNat === true) {
    return [...answer, notify(NotifyType.UNEXPECTED_NAT_DETECTED)]
  }
  if (connection.options.features.checksReturnRoutability && !isSamePath(path, connection.path)) {
    connection.path = path
    connection.enqueue(new ReturnRoutability(path, nat))
  } else {
    connection.move(path, nat)
  }
  return answer
}

function learnAddresses(connection: Connection, payloads: readonly Payload[]): void {
  if (findNotify(payloads, NotifyType.NO_ADDITIONAL_ADDRESSES)) connection.peerAddresses = []
  const addresses: string[] = []
  for (const note of allPayloads(payloads, 'N')) {
    if (note.notifyType === NotifyType.ADDITIONAL_IP4_ADDRESS && note.data.length === 4) {
      addresses.push(formatIpv4(u32(note.data, 0)))
    }
    if (note.notifyType === NotifyType.ADDITIONAL_IP6_ADDRESS && note.data.length === 16) {
      addresses.push(formatIpv6(note.data))
    }
  }
  if (addresses.length > 0) connection.peerAddresses = addresses.slice(0, ADDRESSES_MAX)
}

/**
 * A NAT before the peer has changed its mapping: what is authentic and new tells where it is now. Only
 * when the peer is behind a NAT and we are not (RFC 7296 §2.23); a client does not notice such a change
 * itself, so this holds with MOBIKE too. A peer that lost its TCP connection goes on over its next one
 * (RFC 9329 §6.1).
 */
export function followNat(connection: Connection, path: Path): void {
  const { nat, state } = connection
  if (state !== 'established' || isSamePath(connection.path, path)) return
  const isNextStream = connection.path.peer.isTcp === true && path.peer.isTcp === true
  const isMovedByNat = nat?.isPeerBehindNat === true && !nat.isLocalBehindNat
  if (!isNextStream && !isMovedByNat) return
  connection.move(path, undefined)
}

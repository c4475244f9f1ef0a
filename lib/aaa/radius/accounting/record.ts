/** One accounting record as it is kept and sent: RFC 2866 §5, RFC 2869 §5. */
import { fromHex, toHex } from '../../../core/bytes.ts'
import type { DisconnectCause } from '../../../core/disconnect-cause.ts'
import { parseIpv4, parseIpv6Network } from '../../../core/ip-address.ts'
import type { Authorization } from '../../authenticator.ts'
import type { SessionStatus } from '../../session.ts'
import { terminateCause } from '../../session-registry.ts'
import { callAttributes, type NasIdentity, nasAttributes } from '../nas.ts'
import { AttributeList } from '../wire/attributes.ts'
import type { RadiusAttribute } from '../wire/packet.ts'

/** Name -> Acct-Status-Type (RFC 2866 §5.1). */
const statusTypes = { start: 1, stop: 2, interim: 3, on: 7, off: 8 } as const

export type RecordKind = keyof typeof statusTypes

export interface AccountingRecord {
  readonly kind: RecordKind
  /** Acct-Session-Id; records of one session are sent in their order. */
  readonly sessionId: string
  /** Wall time, ms since 1970. */
  readonly atMs: number
  /** All but Acct-Delay-Time, which depends on when it is sent. */
  readonly attributes: readonly RadiusAttribute[]
}

/** RFC 2866 §5.6: who had judged the user. */
export type Authentic = 'radius' | 'local'
const authenticValues = { radius: 1, local: 2 } as const

export interface SessionFacts {
  readonly status: SessionStatus
  readonly peerAddress: string
  readonly authorization: Authorization | undefined
  readonly authentic: Authentic
}

const gigaword = 2 ** 32

export function sessionRecord(
  kind: 'start' | 'interim' | 'stop',
  nas: NasIdentity,
  facts: SessionFacts,
  atMs: number,
  cause?: DisconnectCause,
): AccountingRecord {
  const { status, authorization, peerAddress } = facts
  const call = { protocol: status.protocol, peerAddress, sessionId: status.id }
  const list = new AttributeList()
    .u32('Acct-Status-Type', statusTypes[kind])
    .text('User-Name', status.userName ?? '')
    .all(callAttributes(nas, call))
    .u32('NAS-Port', status.number)
    .u32('Acct-Authentic', authenticValues[facts.authentic])
    .u32('Event-Timestamp', Math.floor(atMs / 1000))
  if (status.bundle !== undefined) {
    // RFC 2866 §5.11, §5.12: a bundle is one session here, and named after its first link.
    list.text('Acct-Multi-Session-Id', status.id).u32('Acct-Link-Count', status.bundle.linkCount)
  }
  const ipv4 = status.ipv4 === undefined ? undefined : parseIpv4(status.ipv4)
  const ipv6 = status.ipv6 === undefined ? undefined : parseIpv6Network(status.ipv6)
  if (ipv4 !== undefined) list.ipv4('Framed-IP-Address', ipv4)
  if (ipv6 !== undefined) list.prefix('Framed-IPv6-Prefix', ipv6)
  const { delegatedIpv6Prefix, accountingClass = [] } = authorization ?? {}
  if (delegatedIpv6Prefix !== undefined) list.prefix('Delegated-IPv6-Prefix', delegatedIpv6Prefix)
  for (const value of accountingClass) list.bytes('Class', value)
  if (kind !== 'start') addUsage(list, status)
  if (cause !== undefined) list.u32('Acct-Terminate-Cause', terminateCause(cause))
  return { kind, sessionId: status.id, atMs, attributes: list.attributes }
}

/** RFC 2866 §5.1: the server begins, or ends; no session of before lives on. */
export function serverRecord(
  kind: 'on' | 'off',
  nas: NasIdentity,
  instance: string,
  atMs: number,
): AccountingRecord {
  const { attributes } = new AttributeList()
    .u32('Acct-Status-Type', statusTypes[kind])
    .text('Acct-Session-Id', instance)
    .all(nasAttributes(nas))
    .u32('Event-Timestamp', Math.floor(atMs / 1000))
  return { kind, sessionId: instance, atMs, attributes }
}

/** Input is what came from the user (RFC 2866 §5.3); what 32 bits do not hold goes into Gigawords. */
function addUsage(list: AttributeList, status: SessionStatus): void {
  const { receivedBytes, sentBytes, receivedPackets, sentPackets } = status
  list
    .u32('Acct-Session-Time', status.durationSeconds)
    .u32('Acct-Input-Octets', receivedBytes % gigaword)
    .u32('Acct-Output-Octets', sentBytes % gigaword)
    .u32('Acct-Input-Packets', receivedPackets % gigaword)
    .u32('Acct-Output-Packets', sentPackets % gigaword)
    .u32('Acct-Input-Gigawords', Math.floor(receivedBytes / gigaword))
    .u32('Acct-Output-Gigawords', Math.floor(sentBytes / gigaword))
}

/** As JSON. */
export function recordText(record: AccountingRecord): string {
  const { kind, sessionId, atMs, attributes } = record
  return JSON.stringify({
    kind,
    sessionId,
    atMs,
    attributes: attributes.map(({ vendor, type, value }) => [vendor, type, toHex(value)]),
  })
}

/** Undefined when it is not what `recordText` writes. */
export function recordOf(json: unknown): AccountingRecord | undefined {
  if (!isObject(json)) return undefined
  const { kind, sessionId, atMs, attributes } = json
  if (typeof kind !== 'string' || !isKind(kind)) return undefined
  if (typeof sessionId !== 'string' || typeof atMs !== 'number') return undefined
  if (!Array.isArray(attributes)) return undefined
  const read = attributes.map(attributeOf)
  const whole = read.filter(one => one !== undefined)
  if (whole.length < read.length) return undefined
  return { kind, sessionId, atMs, attributes: whole }
}

function attributeOf(json: unknown): RadiusAttribute | undefined {
  if (!Array.isArray(json)) return undefined
  const [vendor, type, hex]: unknown[] = json
  if (typeof vendor !== 'number' || typeof type !== 'number' || typeof hex !== 'string') {
    return undefined
  }
  return /^(?:[0-9a-f]{2})*$/.test(hex) ? { vendor, type, value: fromHex(hex) } : undefined
}

function isKind(text: string): text is RecordKind {
  return Object.hasOwn(statusTypes, text)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object'
}

/**
 * Data of TICKET_LT_OPAQUE, RFC 5723 §7.2: how long the ticket is good for, in seconds from now, and
 * the ticket.
 */
import { copyBytes, putBytes, putU32, u32 } from '../../core/bytes.ts'

const LIFETIME_BYTES = 4

export interface TicketWithLifetime {
  readonly lifetimeSeconds: number
  readonly ticket: Uint8Array
}

export function encodeTicketLifetime({ lifetimeSeconds, ticket }: TicketWithLifetime): Uint8Array {
  const out = new Uint8Array(LIFETIME_BYTES + ticket.length)
  putBytes(out, putU32(out, 0, lifetimeSeconds), ticket)
  return out
}

/** Undefined when there is no ticket in it, or one that is good for no time. */
export function parseTicketLifetime(data: Uint8Array): TicketWithLifetime | undefined {
  const lifetimeSeconds = u32(data, 0)
  if (data.length <= LIFETIME_BYTES || lifetimeSeconds === 0) return undefined
  return { lifetimeSeconds, ticket: copyBytes(data, LIFETIME_BYTES) }
}

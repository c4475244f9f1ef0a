/**
 * What goes over the control socket: one JSON document per line, a request with an id and an answer
 * with the same id. Several requests may be under way on one connection; answers come as they are
 * ready. The version is that of this framing; commands are added without changing it.
 */
import { z } from 'zod'

export const protocolVersion = 1

/** Longest line, either way, bytes. */
export const maxLineBytes = 1024 * 1024

export const requestSchema = z.strictObject({
  version: z.literal(protocolVersion),
  id: z.int().nonnegative(),
  command: z.string().min(1).max(64),
  arguments: z.unknown().optional(),
})

export const replySchema = z.union([
  z.strictObject({ version: z.literal(protocolVersion), id: z.int(), result: z.unknown() }),
  z.strictObject({
    version: z.literal(protocolVersion),
    /** Null when the request was too broken to have one. */
    id: z.int().nullable(),
    error: z.strictObject({ code: z.string(), message: z.string() }),
  }),
])

export type Request = z.infer<typeof requestSchema>
export type Reply = z.infer<typeof replySchema>

/** What is wrong with a value, with the place of each problem, on one line. */
export function describeIssues(error: z.ZodError): string {
  return error.issues
    .map(({ path, message }) => (path.length === 0 ? message : `${path.join('.')}: ${message}`))
    .join('; ')
}

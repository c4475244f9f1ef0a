/** Leases of DHCP servers, kept over restarts: what a killed server had is asked for again, or given back. */
import { z } from 'zod'
import { readPrivateFile, writeFileAtomically } from '../../config/state-directory.ts'
import { utf8Text } from '../../core/bytes.ts'

/** Addresses in host order. */
export interface JournalEntry {
  /** What the server knows the client by. */
  readonly client: string
  readonly address: number
  readonly server: number
}

const address = z.int().min(1).max(0xffff_ffff)
const schema = z.object({
  version: z.literal(1),
  leases: z.array(z.object({ client: z.string().max(1024), address, server: address })),
})

/** A file that cannot be understood is an empty journal: the leases in it run out by themselves. */
export function readJournal(path: string): readonly JournalEntry[] {
  const bytes = readPrivateFile(path)
  if (bytes === undefined) return []
  try {
    const content: unknown = JSON.parse(utf8Text(bytes))
    return schema.safeParse(content).data?.leases ?? []
  } catch {
    return []
  }
}

export function writeJournal(path: string, leases: readonly JournalEntry[]): void {
  writeFileAtomically(path, `${JSON.stringify({ version: 1, leases })}\n`)
}

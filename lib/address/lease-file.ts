/** Who had which address, kept over restarts so that users find their address again. */
import { readPrivateFile, writeFileAtomically } from '../config/state-directory.ts'
import { utf8Text } from '../core/bytes.ts'
import type { AddressHistory } from './ipv4-pool.ts'

export interface LeaseHistory {
  readonly ipv4: readonly AddressHistory[]
  readonly ipv6: readonly AddressHistory[]
}

const formatVersion = 1

/** A file that cannot be understood is an empty history: nothing depends on it but convenience. */
export function readLeases(path: string): LeaseHistory {
  const bytes = readPrivateFile(path)
  if (bytes === undefined) return { ipv4: [], ipv6: [] }
  try {
    const content: unknown = JSON.parse(utf8Text(bytes))
    if (!isRecord(content)) return { ipv4: [], ipv6: [] }
    const { version, ipv4, ipv6 } = content
    if (version !== formatVersion) return { ipv4: [], ipv6: [] }
    return { ipv4: historyOf(ipv4), ipv6: historyOf(ipv6) }
  } catch {
    return { ipv4: [], ipv6: [] }
  }
}

export function writeLeases(path: string, history: LeaseHistory): void {
  writeFileAtomically(path, `${JSON.stringify({ version: formatVersion, ...history })}\n`)
}

function historyOf(value: unknown): AddressHistory[] {
  if (!Array.isArray(value)) return []
  return value.flatMap((entry: unknown) => {
    if (!isRecord(entry)) return []
    const { address, owner } = entry
    return typeof address === 'string' && typeof owner === 'string' ? [{ address, owner }] : []
  })
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object'
}

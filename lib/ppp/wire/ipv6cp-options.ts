/** IPV6CP options (RFC 5072 §4) as one table. */
import type { OptionRow } from './option.ts'

export const ipv6cpOptions = {
  interfaceIdentifier: { type: 1, dataBytes: 8 },
} as const satisfies Record<string, OptionRow>

/** Known by name and rejected (RFC 5172). */
export const rejectedIpv6cpOptions = { ipv6Compression: 2 } as const

/** IPCP options (RFC 1332 §3, RFC 1877 §1) as one table. */
import type { OptionRow } from './option.ts'

export const ipcpOptions = {
  ipAddress: { type: 3, dataBytes: 4 },
  primaryDns: { type: 129, dataBytes: 4 },
  primaryWins: { type: 130, dataBytes: 4 },
  secondaryDns: { type: 131, dataBytes: 4 },
  secondaryWins: { type: 132, dataBytes: 4 },
} as const satisfies Record<string, OptionRow>

/** Known by name and rejected: RFC 1172's two addresses, Van Jacobson compression, Mobile IPv4. */
export const rejectedIpcpOptions = { ipAddresses: 1, ipCompression: 2, mobileIpv4: 4 } as const

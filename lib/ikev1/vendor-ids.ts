/** Vendor IDs: what peers say of themselves, and what we say. Values: MD5 of the text unless noted. */
import { concatBytes, equalBytes, fromHex, toHex } from '../core/bytes.ts'

interface VendorIdRow {
  readonly bytes: Uint8Array
  /** Further bytes may follow: versions, capabilities. */
  readonly isPrefix: boolean
}

const whole = (hex: string): VendorIdRow => ({ bytes: fromHex(hex), isPrefix: false })
const prefix = (hex: string): VendorIdRow => ({ bytes: fromHex(hex), isPrefix: true })

// biome-ignore format: a table
export const vendorIds = {
  'RFC 3947':                          whole('4A131C81070358455C5728F20E95452F'),
  'draft-ietf-ipsec-nat-t-ike-03':     whole('7D9419A65310CA6F2C179D9215529D56'),
  // The text ends with a line feed; this is the one that Windows lists.
  'draft-ietf-ipsec-nat-t-ike-02-lf':  whole('90CB80913EBB696E086381B5EC427B1F'),
  'draft-ietf-ipsec-nat-t-ike-02':     whole('CD60464335DF21F87CFDB2FC68B6A448'),
  'draft-ietf-ipsec-nat-t-ike-00':     whole('4485152D18B6BBCD0BE8A8469579DDCC'),
  'MS NT5 ISAKMPOAKLEY':               prefix('1E2B516905991C7D7C96FCBFB587E461'),
  'FRAGMENTATION':                     prefix('4048B7D56EBCE88525E7DE7F00D6C2D3'),
  'MS-Negotiation Discovery Capable':  whole('FB1DE3CDF341B7EA16B7E5BE0855F120'),
  'Vid-Initial-Contact':               whole('26244D38EDDB61B3172A36E3D0CFB819'),
  'IKE CGA version 1':                 whole('E3A5966A76379FE707228231E5CE8652'),
  'strongSwan':                        whole('882FE56D6FD20DBC2251613B2EBE5BEB'),
  // Not a digest: RFC 3706 §5.1; the last two bytes are a version.
  'DPD':                               prefix('AFCAD71368A1F1C96B8696FC7757'),
  'Cisco Unity':                       prefix('12F5F28C457168A9702D9FE274CC'),
  // draft-beaulieu-ike-xauth-02.
  'XAUTH':                             whole('09002689DFD6B712'),
} as const satisfies Record<string, VendorIdRow>

export type VendorIdName = keyof typeof vendorIds

/** The name of a vendor ID, undefined when we do not know it. */
export function vendorIdName(data: Uint8Array): VendorIdName | undefined {
  for (const [name, row] of Object.entries(vendorIds) as [VendorIdName, VendorIdRow][]) {
    const head = row.isPrefix ? data.subarray(0, row.bytes.length) : data
    if (equalBytes(head, row.bytes)) return name
  }
  return undefined
}

/** For logs: the name, or the bytes. */
export function describeVendorId(data: Uint8Array): string {
  return vendorIdName(data) ?? toHex(data.subarray(0, 32))
}

/** NAT traversal as a side has announced it, the newest first: payload numbers follow it. */
export const natTraversalVersions = [
  'RFC 3947',
  'draft-ietf-ipsec-nat-t-ike-03',
  'draft-ietf-ipsec-nat-t-ike-02-lf',
  'draft-ietf-ipsec-nat-t-ike-02',
] as const satisfies readonly VendorIdName[]

export type NatTraversalVersion = (typeof natTraversalVersions)[number]

/** The newest version that both sides know, undefined when the peer knows none. */
export function newestNatTraversal(
  announced: ReadonlySet<VendorIdName>,
): NatTraversalVersion | undefined {
  return natTraversalVersions.find(version => announced.has(version))
}

/** DPD with version 1.0, FRAGMENTATION with the capability to reassemble in main mode. */
export const dpdVendorId = concatBytes(vendorIds.DPD.bytes, fromHex('0100'))
export const fragmentationVendorId = concatBytes(vendorIds.FRAGMENTATION.bytes, fromHex('80000000'))

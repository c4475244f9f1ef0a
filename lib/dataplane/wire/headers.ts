/**
 * Where the fields of IP, TCP, UDP and ICMP headers stand, in bytes from the start of the header.
 *
 *   IPv4  RFC 791 §3.1     IPv6    RFC 8200 §3      TCP  RFC 9293 §3.1
 *   UDP   RFC 768          ICMPv4  RFC 792          ICMPv6  RFC 4443 §2.1
 */

export const IPV4_HEADER_BYTES = 20
export const IPV4_TOS_AT = 1
export const IPV4_TOTAL_LENGTH_AT = 2
export const IPV4_ID_AT = 4
/** Flags in the upper three bits, fragment offset in units of 8 bytes below them. */
export const IPV4_FRAGMENT_AT = 6
export const IPV4_TTL_AT = 8
export const IPV4_PROTOCOL_AT = 9
export const IPV4_CHECKSUM_AT = 10
export const IPV4_SOURCE_AT = 12
export const IPV4_DESTINATION_AT = 16

export const IPV4_DONT_FRAGMENT = 0x4000
export const IPV4_MORE_FRAGMENTS = 0x2000
export const IPV4_FRAGMENT_OFFSET_MASK = 0x1fff
export const IPV4_LIMITED_BROADCAST = 0xffffffff

export const IPV6_HEADER_BYTES = 40
export const IPV6_PAYLOAD_LENGTH_AT = 4
export const IPV6_NEXT_HEADER_AT = 6
export const IPV6_HOP_LIMIT_AT = 7
export const IPV6_SOURCE_AT = 8
export const IPV6_DESTINATION_AT = 24
/** RFC 8200 §5. */
export const IPV6_MINIMUM_MTU_BYTES = 1280

export const TCP_HEADER_BYTES = 20
export const TCP_SEQUENCE_AT = 4
export const TCP_ACKNOWLEDGMENT_AT = 8
/** Upper four bits: header length in 32-bit words. */
export const TCP_DATA_OFFSET_AT = 12
export const TCP_FLAGS_AT = 13
export const TCP_WINDOW_AT = 14
export const TCP_CHECKSUM_AT = 16

export const TCP_FIN = 0x01
export const TCP_SYN = 0x02
export const TCP_PSH = 0x08
export const TCP_ACK = 0x10
export const TCP_ECE = 0x40
export const TCP_CWR = 0x80

export const UDP_HEADER_BYTES = 8
export const UDP_DESTINATION_PORT_AT = 2
export const UDP_LENGTH_AT = 4
export const UDP_CHECKSUM_AT = 6
/** RFC 2131 §4.1. */
export const DHCP_SERVER_PORT = 67

/** IANA protocol numbers. */
export const Protocol = {
  icmp: 1,
  tcp: 6,
  udp: 17,
  'ipv6-fragment': 44,
  icmpv6: 58,
} as const

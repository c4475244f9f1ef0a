/**
 * The bit codes of MPPC (RFC 2118 §4.1, §4.2), as data that both directions share.
 *
 * Offsets:  0-63     `1111` + 6 bits      Lengths:  3           `0`
 *           64-319   `1110` + 8 bits                4-7         `10` + 2 bits
 *           320-8191 `110` + 13 bits                8-15        `110` + 3 bits
 * Literals: 0-127    `0` + 7 bits                   ... 2^n to 2^(n+1) - 1: n-1 ones, a zero, n bits
 *           128-255  `10` + 7 bits                  4096-8191   eleven ones, a zero, 12 bits
 */

export const historyBytes = 8192
export const minMatchBytes = 3

/** The first offsets of the second and of the third kind. */
export const mediumOffset = 64
export const largeOffset = 320

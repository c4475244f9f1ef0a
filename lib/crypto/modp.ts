/**
 * MODP groups: RFC 2409 §6.2 (1024 bits), RFC 3526 (1536 to 4096 bits). All are safe primes with
 * generator 2, so RFC 6989 §2.1 asks of a peer's value only that it lies between 1 and p-1.
 */
import { createDiffieHellman, type DiffieHellman, getDiffieHellman } from 'node:crypto'
import { WireFault } from '../core/faults.ts'
import { randomBytes } from '../core/random.ts'
import type { DhGroup } from './key-exchange.ts'
import { KeyExchangeId } from './transforms.ts'

interface ModpParameters {
  /** The name that node:crypto has for the group. */
  readonly nodeName: string
  /** Exponent length for at least the strength of the prime: RFC 3526 §8, second column. */
  readonly exponentBytes: number
}

export type ModpGroupId =
  | typeof KeyExchangeId.modp1024
  | typeof KeyExchangeId.modp1536
  | typeof KeyExchangeId.modp2048
  | typeof KeyExchangeId.modp3072
  | typeof KeyExchangeId.modp4096

const parametersOf: Readonly<Record<ModpGroupId, ModpParameters>> = {
  [KeyExchangeId.modp1024]: { nodeName: 'modp2', exponentBytes: 30 },
  [KeyExchangeId.modp1536]: { nodeName: 'modp5', exponentBytes: 30 },
  [KeyExchangeId.modp2048]: { nodeName: 'modp14', exponentBytes: 40 },
  [KeyExchangeId.modp3072]: { nodeName: 'modp15', exponentBytes: 53 },
  [KeyExchangeId.modp4096]: { nodeName: 'modp16', exponentBytes: 60 },
}

const generator = Uint8Array.of(2)
const harmlessPrivateValue = Uint8Array.of(2)

export function createModpGroup(id: ModpGroupId): DhGroup {
  const { nodeName, exponentBytes } = parametersOf[id]
  const prime = Uint8Array.from(getDiffieHellman(nodeName).getPrime())
  const largest = predecessor(prime)
  // One engine for all exchanges: creating it costs a primality test (53 ms for 1024 bits).
  let engine: DiffieHellman | undefined

  /** Runs with a private value in the engine and takes it out again. */
  function withPrivateValue<T>(privateValue: Uint8Array, run: (dh: DiffieHellman) => T): T {
    engine ??= createDiffieHellman(prime, generator)
    engine.setPrivateKey(privateValue)
    try {
      return run(engine)
    } finally {
      engine.setPrivateKey(harmlessPrivateValue)
    }
  }

  return {
    publicBytes: prime.length,
    drawPrivateValue: random => {
      const value = randomBytes(random, exponentBytes)
      // Never 0, and always of full length.
      value[0] = (value[0] ?? 0) | 0x80
      return value
    },
    keyPair: privateValue => ({
      publicValue: () =>
        withPrivateValue(privateValue, dh => leftPadded(dh.generateKeys(), prime.length)),
      agree: peerValue => {
        if (!isAboveOne(peerValue) || compare(peerValue, largest) >= 0) {
          return WireFault['bad-value']
        }
        return withPrivateValue(privateValue, dh =>
          leftPadded(dh.computeSecret(peerValue), prime.length),
        )
      },
    }),
  }
}

/** RFC 7296 §2.14: g^ir is as long as the modulus, with zeros in front if need be. */
function leftPadded(value: Uint8Array, lengthBytes: number): Uint8Array {
  const out = new Uint8Array(lengthBytes)
  out.set(value, lengthBytes - value.length)
  return out
}

/** p - 1 of an odd p. */
function predecessor(odd: Uint8Array): Uint8Array {
  const out = Uint8Array.from(odd)
  out[out.length - 1] = (out[out.length - 1] ?? 0) & 0xfe
  return out
}

/** Big-endian numbers of equal length; public values, so the time may differ. */
function compare(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

function isAboveOne(value: Uint8Array): boolean {
  for (let i = 0; i < value.length - 1; i++) if (value[i] !== 0) return true
  return (value[value.length - 1] ?? 0) > 1
}

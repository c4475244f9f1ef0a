/**
 * ECP groups: RFC 5903. A public value is x | y, both as long as the field; the secret is the x
 * coordinate of the common point (§9). A peer's point is checked to be on the curve (RFC 6989 §2.3).
 */
import { createECDH } from 'node:crypto'
import { fromHex } from '../core/bytes.ts'
import { WireFault } from '../core/faults.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import type { DhGroup } from './key-exchange.ts'
import { KeyExchangeId } from './transforms.ts'

interface CurveParameters {
  /** The name that OpenSSL has for the curve. */
  readonly opensslName: string
  readonly fieldBytes: number
  /** Order of the base point: private values lie between 0 and it. */
  readonly order: Uint8Array
  /** Mask of the first byte of a private value: 521 bits do not fill 66 bytes. */
  readonly topMask: number
}

export type EcpGroupId =
  | typeof KeyExchangeId.ecp256
  | typeof KeyExchangeId.ecp384
  | typeof KeyExchangeId.ecp521

const parametersOf: Readonly<Record<EcpGroupId, CurveParameters>> = {
  [KeyExchangeId.ecp256]: {
    opensslName: 'prime256v1',
    fieldBytes: 32,
    order: fromHex('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551'),
    topMask: 0xff,
  },
  [KeyExchangeId.ecp384]: {
    opensslName: 'secp384r1',
    fieldBytes: 48,
    order: fromHex(`ffffffffffffffffffffffffffffffffffffffffffffffff
      c7634d81f4372ddf581a0db248b0a77aecec196accc52973`),
    topMask: 0xff,
  },
  [KeyExchangeId.ecp521]: {
    opensslName: 'secp521r1',
    fieldBytes: 66,
    order: fromHex(`01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
      fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409`),
    topMask: 0x01,
  },
}

/** SEC 1 §2.3.3: an uncompressed point is this byte, x and y. */
const uncompressed = 4

export function createEcpGroup(id: EcpGroupId): DhGroup {
  const { opensslName, fieldBytes, order, topMask } = parametersOf[id]

  function drawPrivateValue(random: RandomSource): Uint8Array {
    // RFC 5903 §9: from 1 to order - 1. Almost every draw is; the next one will do.
    for (;;) {
      const value = randomBytes(random, fieldBytes)
      value[0] = (value[0] ?? 0) & topMask
      if (isPrivateValue(value, order)) return value
    }
  }

  return {
    publicBytes: 2 * fieldBytes,
    drawPrivateValue,
    keyPair: privateValue => {
      // Computes the public value too; OpenSSL wipes its copy when the engine is collected.
      const engine = createECDH(opensslName)
      engine.setPrivateKey(privateValue)
      return {
        publicValue: () => Uint8Array.from(engine.getPublicKey()).subarray(1),
        agree: peerValue => {
          const point = new Uint8Array(1 + 2 * fieldBytes)
          point[0] = uncompressed
          point.set(peerValue, 1)
          try {
            return Uint8Array.from(engine.computeSecret(point))
          } catch (_notOnCurve) {
            return WireFault['bad-value']
          }
        },
      }
    },
  }
}

/** Whether 0 < value < order, for big-endian numbers of one length, without a branch on the value. */
function isPrivateValue(value: Uint8Array, order: Uint8Array): boolean {
  let borrow = 0
  let anyBit = 0
  for (let i = value.length - 1; i >= 0; i--) {
    const byte = value[i] ?? 0
    borrow = ((byte - (order[i] ?? 0) - borrow) >> 8) & 1
    anyBit |= byte
  }
  return borrow === 1 && anyBit !== 0
}

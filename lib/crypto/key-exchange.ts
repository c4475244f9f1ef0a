/**
 * What a key exchange method of IKE is: Diffie-Hellman groups and KEMs behind one interface: the initiator offers a value, the responder answers with one, both hold a secret.
 */
import { WireFault } from '../core/faults.ts'
import type { RandomSource } from '../core/random.ts'
import { Secret, wipe } from '../core/secret.ts'
import type { KeyExchangeId } from './transforms.ts'

/** The responder's half of an exchange, finished. */
export interface KeyExchangeAnswer {
  readonly publicValue: Uint8Array
  readonly sharedSecret: Secret
}

/** The initiator's half of an exchange; `finish` and `destroy` wipe the private value. */
export interface KeyExchangeOffer {
  readonly publicValue: Uint8Array
  /** The shared secret, or what is wrong with the peer's value. */
  finish(peerValue: Uint8Array): Secret | WireFault
  destroy(): void
}

export interface KeyExchange {
  readonly id: KeyExchangeId
  /** Length of the initiator's value, bytes. */
  readonly offerBytes: number
  /** Length of the responder's value, bytes: differs from the offer for KEMs only. */
  readonly answerBytes: number
  offer(random: RandomSource): KeyExchangeOffer
  /** Never throws on a peer's bytes: a bad value is a fault (RFC 6989 §2). */
  answer(peerValue: Uint8Array, random: RandomSource): KeyExchangeAnswer | WireFault
}

/** A private value of a group, with whatever the library keeps for it. */
export interface DhKeyPair {
  /** As RFC 7296 §3.4 sends it. */
  publicValue(): Uint8Array
  /**
   * The shared secret in the length that the group's RFC gives, or a fault. `peerValue` has the
   * group's `publicBytes`.
   */
  agree(peerValue: Uint8Array): Uint8Array | WireFault
}

/** A Diffie-Hellman group: private values are bytes. */
export interface DhGroup {
  readonly publicBytes: number
  /** A fresh private value. */
  drawPrivateValue(random: RandomSource): Uint8Array
  /** `privateValue` is not copied: it must stay as it is while the pair is used. */
  keyPair(privateValue: Uint8Array): DhKeyPair
}

/** RFC 7296 §3.4: the length of a value must be that of its group. */
export function checkValueLength(value: Uint8Array, expectedBytes: number): WireFault {
  if (value.length < expectedBytes) return WireFault.truncated
  return value.length > expectedBytes ? WireFault.oversize : WireFault.none
}

function agreed(group: DhGroup, pair: DhKeyPair, peerValue: Uint8Array): Secret | WireFault {
  const fault = checkValueLength(peerValue, group.publicBytes)
  if (fault) return fault
  const result = pair.agree(peerValue)
  if (typeof result === 'number') return result
  const secret = new Secret(result)
  wipe(result)
  return secret
}

/** A key exchange out of a group. Exported for tests that bring a group of their own. */
export function dhKeyExchange(id: KeyExchangeId, group: DhGroup): KeyExchange {
  return {
    id,
    offerBytes: group.publicBytes,
    answerBytes: group.publicBytes,
    offer: random => {
      const privateValue = group.drawPrivateValue(random)
      const pair = group.keyPair(privateValue)
      return {
        publicValue: pair.publicValue(),
        finish: peerValue => {
          const result = agreed(group, pair, peerValue)
          wipe(privateValue)
          return result
        },
        destroy: () => wipe(privateValue),
      }
    },
    answer: (peerValue, random) => {
      const privateValue = group.drawPrivateValue(random)
      const pair = group.keyPair(privateValue)
      try {
        const sharedSecret = agreed(group, pair, peerValue)
        if (typeof sharedSecret === 'number') return sharedSecret
        return { publicValue: pair.publicValue(), sharedSecret }
      } finally {
        wipe(privateValue)
      }
    },
  }
}

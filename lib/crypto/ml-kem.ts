/**
 * ML-KEM (FIPS 203) as an additional key exchange of IKEv2: RFC 9370, draft-ietf-ipsecme-ikev2-mlkem.
 * The initiator sends an encapsulation key, the responder a ciphertext. @noble/post-quantum computes.
 */
import { ml_kem512, ml_kem768, ml_kem1024 } from '@noble/post-quantum/ml-kem.js'
import { WireFault } from '../core/faults.ts'
import { randomBytes } from '../core/random.ts'
import { Secret, wipe } from '../core/secret.ts'
import { checkValueLength, type KeyExchange } from './key-exchange.ts'
import { KeyExchangeId } from './transforms.ts'

export type MlKemId =
  | typeof KeyExchangeId.mlKem512
  | typeof KeyExchangeId.mlKem768
  | typeof KeyExchangeId.mlKem1024

const parametersOf = {
  [KeyExchangeId.mlKem512]: { kem: ml_kem512, keyBytes: 800, ciphertextBytes: 768 },
  [KeyExchangeId.mlKem768]: { kem: ml_kem768, keyBytes: 1184, ciphertextBytes: 1088 },
  [KeyExchangeId.mlKem1024]: { kem: ml_kem1024, keyBytes: 1568, ciphertextBytes: 1568 },
} as const

/** FIPS 203 §7.1: the two 32-byte seeds d and z; §7.2: the message m. */
const seedBytes = 64
const messageBytes = 32

export function createMlKem(id: MlKemId): KeyExchange {
  const { kem, keyBytes, ciphertextBytes } = parametersOf[id]
  return {
    id,
    offerBytes: keyBytes,
    answerBytes: ciphertextBytes,
    offer: random => {
      const seed = randomBytes(random, seedBytes)
      const { publicKey, secretKey } = kem.keygen(seed)
      wipe(seed)
      return {
        publicValue: publicKey,
        finish: ciphertext => {
          const fault = checkValueLength(ciphertext, ciphertextBytes)
          if (fault) return fault
          // A wrong ciphertext yields a secret that nobody shares (FIPS 203 §6.3): no fault here.
          const shared = kem.decapsulate(ciphertext, secretKey)
          const secret = new Secret(shared)
          wipe(shared, secretKey)
          return secret
        },
        destroy: () => wipe(secretKey),
      }
    },
    answer: (key, random) => {
      const fault = checkValueLength(key, keyBytes)
      if (fault) return fault
      const message = randomBytes(random, messageBytes)
      try {
        const { cipherText, sharedSecret } = kem.encapsulate(key, message)
        const secret = new Secret(sharedSecret)
        wipe(sharedSecret)
        return { publicValue: cipherText, sharedSecret: secret }
      } catch (_coefficientOutOfRange) {
        // FIPS 203 §7.2: the modulus check of the encapsulation key.
        return WireFault['bad-value']
      } finally {
        wipe(message)
      }
    },
  }
}

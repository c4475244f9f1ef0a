/**
 * The key exchange methods by transform number.
 *
 * Everything runs on the calling thread: node:crypto of Node 20 has no asynchronous agreement. Cost of
 * an answer (key pair and secret), µs, on one core of a small virtual machine (`bench/crypto`):
 * X25519 300, ECP-256 220, ECP-384 4,000, ECP-521 9,000, MODP-1024 220, MODP-1536 430, MODP-2048 830,
 * MODP-3072 2,300, MODP-4096 4,600, ML-KEM-512 to 1024 470 to 900. Answer strangers only after a
 * cookie when many are waiting.
 */
import { createEcpGroup } from './ecp.ts'
import { dhKeyExchange, type KeyExchange } from './key-exchange.ts'
import { createMlKem } from './ml-kem.ts'
import { createModpGroup } from './modp.ts'
import { KeyExchangeId } from './transforms.ts'
import { createX25519Group } from './x25519.ts'

const factories: Readonly<Record<KeyExchangeId, (() => KeyExchange) | undefined>> = {
  [KeyExchangeId.none]: undefined,
  [KeyExchangeId.modp1024]: modp(KeyExchangeId.modp1024),
  [KeyExchangeId.modp1536]: modp(KeyExchangeId.modp1536),
  [KeyExchangeId.modp2048]: modp(KeyExchangeId.modp2048),
  [KeyExchangeId.modp3072]: modp(KeyExchangeId.modp3072),
  [KeyExchangeId.modp4096]: modp(KeyExchangeId.modp4096),
  [KeyExchangeId.ecp256]: ecp(KeyExchangeId.ecp256),
  [KeyExchangeId.ecp384]: ecp(KeyExchangeId.ecp384),
  [KeyExchangeId.ecp521]: ecp(KeyExchangeId.ecp521),
  [KeyExchangeId.x25519]: () => dhKeyExchange(KeyExchangeId.x25519, createX25519Group()),
  [KeyExchangeId.mlKem512]: () => createMlKem(KeyExchangeId.mlKem512),
  [KeyExchangeId.mlKem768]: () => createMlKem(KeyExchangeId.mlKem768),
  [KeyExchangeId.mlKem1024]: () => createMlKem(KeyExchangeId.mlKem1024),
}

function modp(id: Parameters<typeof createModpGroup>[0]): () => KeyExchange {
  return () => dhKeyExchange(id, createModpGroup(id))
}

function ecp(id: Parameters<typeof createEcpGroup>[0]): () => KeyExchange {
  return () => dhKeyExchange(id, createEcpGroup(id))
}

const made = new Map<number, KeyExchange>()

/** The method of a transform number; undefined for `none` and for numbers that we do not know. */
export function keyExchange(id: number): KeyExchange | undefined {
  const known = made.get(id)
  if (known !== undefined) return known
  const fresh = (factories as Readonly<Record<number, (() => KeyExchange) | undefined>>)[id]?.()
  if (fresh !== undefined) made.set(id, fresh)
  return fresh
}

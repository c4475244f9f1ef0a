/** What the crypto and ESP benches share: memory, suites, interleaved timing, bytes allocated. */

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { InvariantError } from '../lib/core/errors.ts'
import { libcrypto } from '../lib/crypto/libcrypto.ts'
import type { PacketKeys, PacketSuite } from '../lib/crypto/packet-cipher.ts'
import {
  EncryptionId,
  encryptionKeyBytes,
  encryptionTransform,
  IntegrityId,
  integrityTransform,
} from '../lib/crypto/transforms.ts'
import { PacketMemory } from '../lib/dataplane/pinned-memory.ts'

export const packetSizes = [64, 576, 1400] as const
/** Packets per timed run: a burst of the dataplane. */
export const burstPackets = 64
export const slotBytes = 2048

/** Memory of the kind that packets live in, with room for a burst. */
export function packetMemory(): PacketMemory {
  return new PacketMemory({
    sizeBytes: (burstPackets + 2) * slotBytes,
    addressOf: bytes => libcrypto()?.addressOf(bytes) ?? 0,
  })
}

function suite(encryptionId: number, keyBits: number, integrityId = 0): PacketSuite {
  const encryption = encryptionTransform(encryptionId)
  if (encryption === undefined) throw new InvariantError(`no encryption ${encryptionId}`)
  return { encryption, keyBits, integrity: integrityTransform(integrityId), hasEsn: false }
}

export const benchSuites: readonly PacketSuite[] = [
  suite(EncryptionId.aesGcm16, 128),
  suite(EncryptionId.aesGcm16, 256),
  suite(EncryptionId.chacha20Poly1305, 256),
  suite(EncryptionId.aesCbc, 128, IntegrityId.hmacSha1_96),
  suite(EncryptionId.aesCbc, 256, IntegrityId.hmacSha1_96),
  suite(EncryptionId.aesCbc, 256, IntegrityId.hmacSha256_128),
  suite(EncryptionId.aesCtr, 256, IntegrityId.hmacSha256_128),
  suite(EncryptionId.aesCbc, 256, IntegrityId.hmacSha512_256),
  suite(EncryptionId.tripleDes, 192, IntegrityId.hmacSha1_96),
]

export function benchKeys(of: PacketSuite): PacketKeys {
  return {
    encryptionKey: new Uint8Array(encryptionKeyBytes(of.encryption, of.keyBits)).map((_, i) => i),
    integrityKey: new Uint8Array(of.integrity?.keyBytes ?? 0).map((_, i) => i + 99),
  }
}

/** Something that is run in turn with its rivals; one sample is one `run`. */
export interface Contender {
  readonly name: string
  readonly samples: number[]
  /** Work of one sample; returns ns per operation. */
  run(): number
}

/** Rounds that are not counted: the compiler needs a thousand packets or so. */
const warmUpRounds = 30

/** Runs all contenders in turn, `rounds` times after warming up. */
export function interleave(contenders: readonly Contender[], rounds: number): void {
  for (let round = -warmUpRounds; round < rounds; round++) {
    for (const contender of contenders) {
      const sample = contender.run()
      if (round >= 0) contender.samples.push(sample)
    }
  }
}

/** ns per operation of `work`, which does `operations`. */
export function nsPer(operations: number, work: () => void): number {
  const start = process.hrtime.bigint()
  work()
  return Number(process.hrtime.bigint() - start) / operations
}

let collect: (() => void) | undefined

/** Heap bytes that one operation of `work` allocates, garbage included; `work` does `operations`. */
export function allocatedBytesPer(operations: number, work: () => void): number {
  setFlagsFromString('--expose-gc')
  collect ??= runInNewContext('gc') as () => void
  work()
  collect()
  const before = process.memoryUsage().heapUsed
  work()
  return Math.max(0, process.memoryUsage().heapUsed - before) / operations
}

/** Gbit/s of `bytes` every `ns`. */
export function gbitPerSecond(bytes: number, ns: number): number {
  return (bytes * 8) / ns
}

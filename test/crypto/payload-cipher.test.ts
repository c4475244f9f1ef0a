import fc from 'fast-check'
import t from 'tap'
import { InvariantError } from '../../lib/core/errors.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { integrityCheckValue } from '../../lib/crypto/integrity.ts'
import { PayloadCipher, PayloadRefusal } from '../../lib/crypto/payload-cipher.ts'
import {
  EncryptionId,
  encryptionKeyBytes,
  encryptionTransform,
  encryptionTransforms,
  IntegrityId,
  integrityTransform,
  keyExchangeTransform,
  negotiatedKeyBits,
  prfTransform,
} from '../../lib/crypto/transforms.ts'
import { allSuites, encryptionOf, integrityOf, keysOf, suiteOf } from './suites.ts'

const suites = allSuites().filter(suite => !suite.hasEsn)

function cipherOf(suite = suiteOf(EncryptionId.aesCbc, 128, IntegrityId.hmacSha256_128), seed = 1) {
  return new PayloadCipher({ ...suite, ...keysOf(suite, seed) })
}

/** A sealed message: `bodyAt` bytes of header, then the body of a counting plaintext. */
function sealed(cipher: PayloadCipher, bodyAt: number, plaintextBytes: number): Uint8Array {
  const message = new Uint8Array(bodyAt + cipher.bodyBytes(plaintextBytes)).fill(0xa5)
  for (let i = 0; i < plaintextBytes; i++) message[bodyAt + cipher.ivBytes + i] = i
  cipher.seal(message, bodyAt, plaintextBytes, new SeededRandom(8))
  return message
}

t.test('every suite opens what it sealed, whatever the length', async t => {
  for (const suite of suites) {
    const sealer = cipherOf(suite)
    const opener = cipherOf(suite)
    for (const length of [0, 1, 7, 8, 14, 15, 16, 17, 255, 256, 1200]) {
      const message = sealed(sealer, 32, length)
      const textAt = 32 + opener.ivBytes
      if (opener.open(message, 32) !== length) t.fail(`${suite.encryption.name} ${length}`)
      const text = message.subarray(textAt, textAt + length)
      if (!text.every((byte, i) => byte === (i & 0xff)))
        t.fail(`${suite.encryption.name} ${length}`)
    }
    sealer.destroy()
    opener.destroy()
  }
  t.pass(`${suites.length} suites`)
})

t.test('a changed bit anywhere, header included, is refused and changes nothing', async t => {
  for (const suite of suites) {
    if (suite.keyBits !== suite.encryption.keyBits[0]) continue
    const cipher = cipherOf(suite)
    const message = sealed(cipher, 32, 21)
    for (let at = 0; at < message.length; at++) {
      const changed = Uint8Array.from(message)
      changed[at] = (changed[at] ?? 0) ^ (1 << (at & 7))
      const before = Uint8Array.from(changed)
      const result = cipher.open(changed, 32)
      if (result !== PayloadRefusal.notAuthentic) t.fail(`${suite.encryption.name} at ${at}`)
      if (!changed.every((byte, i) => byte === before[i])) t.fail('the message was touched')
    }
    t.equal(cipherOf(suite, 2).open(Uint8Array.from(message), 32), PayloadRefusal.notAuthentic)
  }
})

t.test('a message cut anywhere is refused', async t => {
  for (const suite of suites) {
    if (suite.keyBits !== suite.encryption.keyBits[0]) continue
    const cipher = cipherOf(suite)
    const message = sealed(cipher, 32, 40)
    for (let length = 32; length < message.length; length++) {
      if (cipher.open(message.slice(0, length), 32) >= 0) t.fail(`opened at ${length}`)
    }
    t.equal(cipher.open(message.slice(0, 32), 32), PayloadRefusal.malformed)
  }
})

t.test('an authentic pad length that reaches past the start is refused', async t => {
  // A CBC text whose last byte is changed by way of the block before it, then signed anew.
  const suite = suiteOf(EncryptionId.aesCbc, 128, IntegrityId.hmacSha256_128)
  const cipher = cipherOf(suite)
  const message = sealed(cipher, 32, 15)
  const ivLastAt = 32 + 15
  message[ivLastAt] = (message[ivLastAt] ?? 0) ^ 0x10
  const icvAt = message.length - 16
  const key = keysOf(suite).integrityKey
  const icv = integrityCheckValue(
    integrityOf(IntegrityId.hmacSha256_128),
    key,
    message.subarray(0, icvAt),
  )
  message.set(icv, icvAt)
  t.equal(cipher.open(message, 32), PayloadRefusal.badPadding)
})

t.test('the IV of counter modes never repeats, that of CBC is random', async t => {
  for (const id of [EncryptionId.aesGcm16, EncryptionId.aesCtr, EncryptionId.aesCbc]) {
    const integrityId = id === EncryptionId.aesGcm16 ? 0 : IntegrityId.hmacSha256_128
    const cipher = cipherOf(suiteOf(id, 256, integrityId))
    const random = new SeededRandom(1)
    const seen = new Set<string>()
    for (let i = 0; i < 500; i++) {
      const message = new Uint8Array(28 + cipher.bodyBytes(3))
      cipher.seal(message, 28, 3, random)
      seen.add(message.subarray(28, 28 + cipher.ivBytes).join())
    }
    t.equal(seen.size, 500)
  }
})

t.test('arbitrary bytes never throw and never open', async t => {
  const ciphers = suites
    .filter(suite => suite.keyBits === suite.encryption.keyBits[0])
    .map(suite => cipherOf(suite))
  fc.assert(
    fc.property(
      fc.constantFrom(...ciphers),
      fc.uint8Array({ maxLength: 200 }),
      fc.nat({ max: 60 }),
      (cipher, message, bodyAt) => cipher.open(message, bodyAt) < 0,
    ),
    { seed: 11, numRuns: 2000 },
  )
  t.pass('no exception')
})

t.test('keys and parts that do not fit are our own mistake', async t => {
  const gcm = encryptionOf(EncryptionId.aesGcm16)
  const cbc = encryptionOf(EncryptionId.aesCbc)
  const sha = integrityOf(IntegrityId.hmacSha256_128)
  const none = new Uint8Array(0)
  const make =
    (encryption: typeof gcm, integrity: typeof sha | undefined, key: number, mac: number) => () =>
      new PayloadCipher({
        encryption,
        integrity,
        encryptionKey: new Uint8Array(key),
        integrityKey: mac === 0 ? none : new Uint8Array(mac),
      })
  t.throws(make(gcm, sha, 20, 32), InvariantError, 'an AEAD with integrity')
  t.throws(make(cbc, undefined, 16, 0), InvariantError, 'CBC without')
  t.throws(make(gcm, undefined, 16, 0), InvariantError, 'no salt')
  t.throws(make(cbc, sha, 17, 32), InvariantError, 'an odd key')
  t.throws(make(cbc, sha, 16, 20), InvariantError, 'a short integrity key')
  t.throws(() => cipherOf().seal(new Uint8Array(10), 0, 10, new SeededRandom(1)), InvariantError)
})

t.test('transforms: key lengths as proposals give them', async t => {
  const cbc = encryptionOf(EncryptionId.aesCbc)
  t.equal(negotiatedKeyBits(cbc, 256), 256)
  t.equal(negotiatedKeyBits(cbc, undefined), undefined, 'AES needs the attribute')
  t.equal(negotiatedKeyBits(cbc, 512), undefined)
  t.equal(negotiatedKeyBits(encryptionOf(EncryptionId.tripleDes), undefined), 192)
  const chacha = encryptionOf(EncryptionId.chacha20Poly1305)
  t.equal(negotiatedKeyBits(chacha, undefined), 256)
  t.equal(negotiatedKeyBits(chacha, 256), 256, 'a needless attribute that is right')
  t.equal(negotiatedKeyBits(chacha, 128), undefined)
  t.equal(encryptionKeyBytes(encryptionOf(EncryptionId.aesGcm16), 128), 20, 'RFC 4106 §8.1')
  t.equal(encryptionKeyBytes(chacha, 256), 36, 'RFC 7634 §4')
})

t.test('transforms: unknown numbers are undefined, weak ones are legacy', async t => {
  for (const id of [0, 1, 2, 7, 11, 14, 23, 99]) t.equal(encryptionTransform(id), undefined)
  for (const id of [0, 1, 3, 99]) t.equal(prfTransform(id), undefined)
  for (const id of [0, 1, 3, 99]) t.equal(integrityTransform(id), undefined)
  t.equal(encryptionOf(EncryptionId.tripleDes).isLegacy, true)
  t.equal(integrityOf(IntegrityId.hmacSha1_96).isLegacy, true)
  t.equal(prfTransform(2)?.isLegacy, true)
  t.equal(keyExchangeTransform(2)?.isLegacy, true)
  t.equal(keyExchangeTransform(36)?.isAdditionalOnly, true)
  for (const transform of encryptionTransforms) {
    t.equal(transform.isAead, transform.icvBytes > 0, transform.name)
    t.equal(transform.blockBytes > 1, transform.mode === 'cbc', transform.name)
  }
})

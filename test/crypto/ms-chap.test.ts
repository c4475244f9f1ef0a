/** MD4, DES, RC4, MS-CHAPv2 and its keys against published vectors. */
import fc from 'fast-check'
import t from 'tap'
import { copyBytes, fromHex, toHex, utf8 } from '../../lib/core/bytes.ts'
import { desDecrypt, desEncrypt, expandDesKey } from '../../lib/crypto/des.ts'
import { md4 } from '../../lib/crypto/md4.ts'
import {
  higherLayerKey,
  masterKey,
  serverKeysOf,
  serverStartKeys,
} from '../../lib/crypto/mppe-keys.ts'
import {
  challengeHash,
  challengeResponse,
  checkAuthenticatorResponse,
  checkEncryptedHash,
  checkNtResponse,
  decryptNewPassword,
  decryptOldNtHash,
  encryptNewPassword,
  encryptOldNtHash,
  generateAuthenticatorResponse,
  generateNtResponse,
  hashNtPasswordHash,
  ntPasswordHash,
  withoutDomain,
} from '../../lib/crypto/ms-chap.ts'
import { Rc4 } from '../../lib/crypto/rc4.ts'

const upper = (bytes: Uint8Array) => toHex(bytes).toUpperCase()
const seeded = { seed: 2759, numRuns: 200 }

/** RFC 2759 §9.2. */
const exchange = {
  userName: 'User',
  authenticatorChallenge: fromHex('5B5D7C7D7B3F2F3E3C2C602132262628'),
  peerChallenge: fromHex('21402324255E262A28295F2B3A337C7E'),
}
const ntHash = ntPasswordHash('clientPass')
const ntResponse = fromHex('82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF')

t.test('MD4 gives the digests of RFC 1320 §A.5', async t => {
  const digests = {
    '': '31d6cfe0d16ae931b73c59d7e0c089c0',
    a: 'bde52cb31de33e46245e05fbdbd6fb24',
    abc: 'a448017aaf21d8525fc10ae87aa6729d',
    'message digest': 'd9130a8164549fe818874806e1c7014b',
    abcdefghijklmnopqrstuvwxyz: 'd79e1c308aa5bbcdeea8ed63df412da9',
    ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:
      '043f8582f241db351ce627e153e7f0e4',
    '12345678901234567890123456789012345678901234567890123456789012345678901234567890':
      'e33b4ddc9c38f2199c3e7b164fcc0536',
  }
  for (const [message, digest] of Object.entries(digests)) {
    t.equal(toHex(md4(utf8(message))), digest, message)
  }
})

t.test('MD4 leaves its message alone, at every length around a block', async t => {
  for (let length = 50; length <= 130; length++) {
    const message = new Uint8Array(length).fill(length)
    t.equal(md4(message).length, 16)
    t.ok(message.every(byte => byte === length))
  }
})

t.test('a DES key is spread over eight bytes of odd parity', async t => {
  t.equal(upper(expandDesKey(new Uint8Array(7))), '0101010101010101')
  t.equal(upper(expandDesKey(new Uint8Array(7).fill(0xff))), 'FEFEFEFEFEFEFEFE')
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 7, maxLength: 7 }), raw => {
      const key = expandDesKey(raw)
      const isOdd = (byte: number) => byte.toString(2).replaceAll('0', '').length % 2 === 1
      const bits = (bytes: Uint8Array, width: number) =>
        [...bytes].map(byte => byte.toString(2).padStart(8, '0').slice(0, width)).join('')
      return [...key].every(isOdd) && bits(key, 7) === bits(raw, 8)
    }),
    seeded,
  )
})

t.test('DES is undone by DES, and gives the classic vector', async t => {
  // FIPS 81 table B1: key 0123456789abcdef, here without its parity bits, and "Now is t".
  const rawKey = fromHex('00451338957377')
  t.equal(toHex(expandDesKey(rawKey)), '0123456789abcdef')
  t.equal(toHex(desEncrypt(rawKey, utf8('Now is t'))), '3fa40e8a984d4815')
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 7, maxLength: 7 }),
      fc.uint8Array({ minLength: 8, maxLength: 8 }),
      (key, block) => toHex(desDecrypt(key, desEncrypt(key, block))) === toHex(block),
    ),
    seeded,
  )
  t.throws(() => desEncrypt(new Uint8Array(8), new Uint8Array(8)), { code: 'ERR_INVARIANT' })
})

t.test('RC4 gives the key streams of RFC 6229', async t => {
  const streamOf = (key: string) => {
    const stream = new Uint8Array(16)
    new Rc4(fromHex(key)).process(stream)
    return toHex(stream)
  }
  t.equal(streamOf('0102030405'), 'b2396305f03dc027ccc3524a0a1118a8')
  t.equal(streamOf('0102030405060708090a0b0c0d0e0f10'), '9ac7cc9a609d1ef7b2932899cde41b97')
})

t.test('RC4 in pieces is RC4 in one, and forgets its key when told', async t => {
  const key = fromHex('0102030405060708')
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(300), (bytes, cut) => {
      const whole = copyBytes(bytes)
      new Rc4(key).process(whole)
      const pieces = copyBytes(bytes)
      const rc4 = new Rc4(key)
      const at = Math.min(cut, bytes.length)
      rc4.process(pieces, 0, at)
      rc4.process(pieces, at)
      const again = new Rc4(fromHex('ff'))
      again.rekey(key)
      again.process(whole)
      new Rc4(key).process(pieces)
      return toHex(whole) === toHex(bytes) && toHex(pieces) === toHex(bytes)
    }),
    seeded,
  )
  const destroyed = new Rc4(key)
  destroyed.destroy()
  const stream = new Uint8Array(8)
  destroyed.process(stream)
  t.equal(toHex(stream), '0000000000000000')
  t.throws(() => new Rc4(new Uint8Array(0)), { code: 'ERR_INVARIANT' })
})

t.test('MS-CHAPv2 gives the values of RFC 2759 §9.2', async t => {
  t.equal(upper(challengeHash(exchange)), 'D02E4386BCE91226')
  t.equal(upper(ntHash), '44EBBA8D5312B8D611474411F56989AE')
  t.equal(upper(hashNtPasswordHash(ntHash)), '41C00C584BD2D91C4017A2A12FA59F3F')
  t.same(generateNtResponse(exchange, ntHash), ntResponse)
  const response = generateAuthenticatorResponse(exchange, ntHash, ntResponse)
  t.equal(response, 'S=407A5589115FD0D6209F510FE9C04566932CDA56')
})

t.test('MS-CHAPv1 gives the NT response of RFC 2433 appendix B', async t => {
  const hash = ntPasswordHash('MyPw')
  t.equal(upper(hash), 'FC156AF7EDCD6C0EDDE3337D427F4EAC')
  t.equal(
    upper(challengeResponse(fromHex('102DB5DF085D3041'), hash)),
    '4E9D3C8F9CFD385D5BF4D3246791956CA4C351AB409A3D61',
  )
})

t.test('the domain before a name is not hashed', async t => {
  t.equal(withoutDomain('DOMAIN\\User'), 'User')
  t.equal(withoutDomain('A\\B\\User'), 'User')
  t.equal(withoutDomain('user@realm'), 'user@realm')
  t.same(
    challengeHash({ ...exchange, userName: 'CORP\\User' }),
    challengeHash({ ...exchange, userName: 'User' }),
  )
})

t.test('a response is right for one password only', async t => {
  t.ok(checkNtResponse(exchange, ntHash, ntResponse))
  t.notOk(checkNtResponse(exchange, ntPasswordHash('clientPasS'), ntResponse))
  t.notOk(checkNtResponse(exchange, ntHash, ntResponse.slice(1)))
  for (let i = 0; i < ntResponse.length; i++) {
    const wrong = copyBytes(ntResponse)
    wrong[i] = (wrong[i] ?? 0) ^ 1
    t.notOk(checkNtResponse(exchange, ntHash, wrong))
  }
})

t.test('a server proof is taken as RFC 2759 and as Windows Server 2019 write it', async t => {
  const proof = generateAuthenticatorResponse(exchange, ntHash, ntResponse)
  const check = (text: string) => checkAuthenticatorResponse(exchange, ntHash, ntResponse, text)
  t.ok(check(proof))
  t.ok(check(`${proof} M=Welcome`))
  t.ok(check(`${proof}M=Welcome`), 'the missing space of Windows Server 2019')
  t.ok(check(proof.toLowerCase()))
  t.notOk(check(proof.slice(0, -1)))
  t.notOk(check(proof.replace('S=', 'S:')))
  t.notOk(check(''))
  t.notOk(check(proof.replace('6', '7')))
})

t.test('a changed password comes out of its encryption under the old hash', async t => {
  const padding = new Uint8Array(512).fill(0x5a)
  for (const text of ['p', 'n€w pässwörd', 'x'.repeat(256)]) {
    const encrypted = encryptNewPassword(text, ntHash, padding)
    t.equal(encrypted.length, 516)
    t.equal(decryptNewPassword(encrypted, ntHash)?.exposeText(), text)
    const wrong = decryptNewPassword(encrypted, ntPasswordHash('other'))
    t.not(wrong?.exposeText(), text)
  }
  t.equal(decryptNewPassword(new Uint8Array(515), ntHash), undefined)
  t.equal(decryptNewPassword(encryptNewPassword('', ntHash, padding), ntHash), undefined)
  t.throws(() => encryptNewPassword('x'.repeat(257), ntHash, padding), { code: 'ERR_INVARIANT' })
})

t.test('decrypting a changed password never throws, whatever the bytes', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 516, maxLength: 516 }), bytes => {
      decryptNewPassword(bytes, ntHash)
    }),
    seeded,
  )
})

t.test('the old hash under the new one is checked both ways (RFC 2759 §8.12)', async t => {
  const newHash = ntPasswordHash('newPass')
  const encrypted = encryptOldNtHash(ntHash, newHash)
  t.equal(encrypted.length, 16)
  t.same(decryptOldNtHash(encrypted, newHash), ntHash)
  t.ok(checkEncryptedHash(encrypted, ntHash, newHash))
  t.notOk(checkEncryptedHash(encrypted, newHash, newHash))
  t.notOk(checkEncryptedHash(encrypted, ntHash, ntHash))
})

t.test('the keys are those of RFC 3079 §3.5', async t => {
  const master = masterKey(hashNtPasswordHash(ntHash), ntResponse)
  t.equal(upper(master), 'FDECE3717A8C838CB388E527AE3CDD31')
  const keys = serverStartKeys(master)
  t.equal(upper(keys.send), '8B7CDC149B993A1BA118CB153F56DCCB')
  t.equal(upper(keys.receive), 'D5F0E9521E3EA9589645E86051C82226', 'derived')
  t.same(serverKeysOf(ntHash, ntResponse), keys)
  t.equal(
    upper(higherLayerKey(keys)),
    'D5F0E9521E3EA9589645E86051C822268B7CDC149B993A1BA118CB153F56DCCB',
  )
})

t.test('RC4 under the 128-bit session key gives the ciphertext of RFC 3079 §3.5.3', async t => {
  const text = utf8('test message')
  new Rc4(fromHex('405CB2247A7956E6E211007AE27B22D4')).process(text)
  t.equal(upper(text), '81848317DF68846272FB5ABE')
})

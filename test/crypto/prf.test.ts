import fc from 'fast-check'
import t from 'tap'
import { concatBytes, fromHex, toHex, utf8 } from '../../lib/core/bytes.ts'
import { aesCmac, aesXcbc } from '../../lib/crypto/aes-mac.ts'
import {
  digest,
  type HashName,
  hashBytes,
  hmac,
  nobleHashes,
  nodeHashes,
} from '../../lib/crypto/hash.ts'
import { integrityCheckValue, verifyIntegrity } from '../../lib/crypto/integrity.ts'
import { createPrf, prfPlus } from '../../lib/crypto/prf.ts'
import {
  IntegrityId,
  type IntegrityTransform,
  integrityTransform,
  integrityTransforms,
  PrfId,
  prfTransforms,
} from '../../lib/crypto/transforms.ts'

function counting(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i)
}

function transformOf(id: number): IntegrityTransform {
  const found = integrityTransform(id)
  if (found === undefined) throw new Error(`no integrity ${id}`)
  return found
}

const hashNames = Object.keys(hashBytes) as HashName[]

t.test('node:crypto and noble agree on every hash and HMAC', async t => {
  fc.assert(
    fc.property(
      fc.constantFrom(...hashNames),
      fc.uint8Array({ maxLength: 200 }),
      fc.uint8Array({ maxLength: 300 }),
      fc.uint8Array({ maxLength: 40 }),
      (hash, key, a, b) => {
        t.same(nodeHashes.digest(hash, a, b), nobleHashes.digest(hash, concatBytes(a, b)))
        t.same(nodeHashes.hmac(hash, key, a, b), nobleHashes.hmac(hash, key, concatBytes(a, b)))
        t.equal(digest(hash, a).length, hashBytes[hash])
      },
    ),
    { seed: 1, numRuns: 60 },
  )
})

t.test('HMAC: RFC 2202 §3 and RFC 4231 §4.2, "Hi There"', async t => {
  const key = new Uint8Array(20).fill(0x0b)
  const expected = {
    sha1: 'b617318655057264e28bc0b6fb378c8ef146be00',
    sha256: 'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7',
    sha384: `afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c
      faea9ea9076ede7f4af152e8b2fa9cb6`,
    sha512: `87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde
      daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854`,
  } as const
  for (const [hash, hex] of Object.entries(expected)) {
    t.same(hmac(hash as HashName, key, utf8('Hi There')), fromHex(hex), hash)
  }
})

t.test('NAT detection hash: SHA-1 over SPIs, address and port (RFC 7296 §2.23)', async t => {
  const spis = fromHex('0102030405060708 1112131415161718')
  const value = digest('sha1', spis, fromHex('C0000201'), fromHex('01F4'))
  t.equal(toHex(value).toUpperCase(), 'D798D986143F878F70765E0E869C80BBC375F701')
})

t.test('AES-XCBC-MAC: RFC 3566 §4.6', async t => {
  const expected = [
    [0, '75f0251d528ac01c4573dfd584d79f29'],
    [3, '5b376580ae2f19afe7219ceef172756f'],
    [16, 'd2a246fa349b68a79998a4394ff7a263'],
    [20, '47f51b4564966215b8985c63055ed308'],
    [32, 'f54f0ec8d2b9f3d36807734bd5283fd4'],
  ] as const
  for (const [length, mac] of expected) {
    t.equal(toHex(aesXcbc(counting(16), counting(length))), mac, `${length} bytes`)
  }
})

t.test('AES-CMAC: RFC 4493 §4', async t => {
  const key = fromHex('2b7e151628aed2a6abf7158809cf4f3c')
  const message = fromHex(`6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51
    30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710`)
  const expected = [
    [0, 'bb1d6929e95937287fa37d129b756746'],
    [16, '070a16b46b4d4144f79bdd9dd04a287c'],
    [40, 'dfa66747de9ae63030ca32611497c827'],
    [64, '51f0bebf7e3b9d92fc49741779363cfe'],
  ] as const
  for (const [length, mac] of expected) {
    t.equal(toHex(aesCmac(key, message.subarray(0, length))), mac, `${length} bytes`)
  }
})

t.test('AES PRFs take keys of any length: RFC 4434 §3, RFC 4615 §4', async t => {
  const long = concatBytes(counting(16), fromHex('edcb'))
  const expected = [
    [PrfId.aesXcbc, counting(16), '47f51b4564966215b8985c63055ed308'],
    [PrfId.aesXcbc, counting(10), '0fa087af7d866e7653434e602fdde835'],
    [PrfId.aesXcbc, long, '8cd3c93ae598a9803006ffb67c40e9e4'],
    [PrfId.aesCmac, counting(16), '980ae87b5f4c9c5214f5b6a8455e4c2d'],
    [PrfId.aesCmac, counting(10), '290d9e112edb09ee141fcf64c0b72f3d'],
    [PrfId.aesCmac, long, '84a348a4a45d235babfffc0d2b4da09a'],
  ] as const
  for (const [id, key, output] of expected) {
    t.equal(toHex(createPrf(id).compute(key, counting(20))), output, `${id}, ${key.length} bytes`)
  }
})

t.test('integrity: RFC 2404, RFC 4868 §2.7.2, RFC 3566', async t => {
  const hi = utf8('Hi There')
  const expected = [
    [IntegrityId.hmacSha1_96, 'b617318655057264e28bc0b6'],
    [IntegrityId.hmacSha256_128, '198a607eb44bfbc69903a0f1cf2bbdc5'],
    [IntegrityId.hmacSha384_192, 'b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973'],
    [
      IntegrityId.hmacSha512_256,
      '637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8',
    ],
  ] as const
  for (const [id, icv] of expected) {
    const transform = transformOf(id)
    const key = new Uint8Array(transform.keyBytes).fill(0x0b)
    t.equal(toHex(integrityCheckValue(transform, key, hi)), icv, transform.name)
  }
  const xcbc = transformOf(IntegrityId.aesXcbc96)
  t.equal(toHex(integrityCheckValue(xcbc, counting(16), counting(3))), '5b376580ae2f19afe7219cee')
})

t.test('integrity: every bit of the value counts, and so does its length', async t => {
  for (const transform of integrityTransforms) {
    const key = counting(transform.keyBytes)
    const icv = Uint8Array.from(integrityCheckValue(transform, key, utf8('a'), utf8('b')))
    t.equal(icv.length, transform.icvBytes)
    t.ok(verifyIntegrity(transform, key, icv, utf8('ab')), transform.name)
    t.notOk(verifyIntegrity(transform, key, icv.subarray(1), utf8('ab')))
    for (let bit = 0; bit < 8 * icv.length; bit++) {
      const changed = Uint8Array.from(icv)
      changed[bit >>> 3] = (changed[bit >>> 3] ?? 0) ^ (1 << (bit & 7))
      if (verifyIntegrity(transform, key, changed, utf8('ab'))) t.fail(`bit ${bit}`)
    }
  }
})

t.test('prf+: NIST CAVP SP 800-135, IKEv2 with HMAC-SHA2-256', async t => {
  const prf = createPrf(PrfId.hmacSha256)
  const secret = fromHex(`42968E5D0CCC3CFC5A3E4BC1BBA370CEA1FAE0D54C49CCBA34B2BEE804BEEB2E
    9E8C57A4E01BD45102CF2433AACC6CFEC06792F363E5170E6AA6650274E906648E449D27A8F00B5B44261982
    C9835C748A751EC5138EAACC5E025661339538A61BF418E454699E19C32DB8D9CE5DD86B220F1E89AFC5872E
    68BE36CB1A0C8866`)
  const nonces = fromHex('ED80DC79912C32A935FB6D1A3FEAC078')
  const spis = fromHex('47C1858EFC932EA4606FD05609624002')
  const skeyseed = prf.compute(nonces, secret)
  t.equal(toHex(skeyseed), '37fde90b81d63692620f67367b62092e3efdc6a03509137d731004767ff35010')
  const stream = `63D018A08F7A29DAA7D1F92CB63F45FA39BBAF5E5F1A78139613BB891E3E6BF9D0448F7C74E05B4C
    1A25C0B61E62C875E852F287E192D4AE536112DB5197216400BD5E123470EFC15F53161865FE8B19A1416518
    A157D651ECD2CADDAB6A9EAE6A27A55AF088218D5156EDAA9789F934D9836ED43EDFFDA553822202FF9F7D48
    60CA72E0`
  t.same(prfPlus(prf, skeyseed, concatBytes(nonces, spis), 132), fromHex(stream))
})

t.test('the key pad of a pre-shared key (RFC 7296 §2.15)', async t => {
  const value = createPrf(PrfId.hmacSha256).compute(utf8('secret'), utf8('Key Pad for IKEv2'))
  t.equal(toHex(value), '5fd8819cd79c7d1470058863cddc51ba31b4b8c876e6a7a803c3c95aaf71c10d')
})

t.test('prf+ is a prefix of itself and ends at 255 blocks', async t => {
  for (const { id, name } of prfTransforms) {
    const prf = createPrf(id)
    t.equal(prf.compute(counting(5), counting(9)).length, prf.outputBytes, name)
    const long = prfPlus(prf, counting(16), counting(7), 3 * prf.outputBytes + 1)
    for (const length of [0, 1, prf.outputBytes, prf.outputBytes + 1]) {
      t.same(prfPlus(prf, counting(16), counting(7), length), long.subarray(0, length))
    }
    t.equal(
      prfPlus(prf, counting(16), counting(7), 255 * prf.outputBytes).length,
      255 * prf.outputBytes,
    )
    t.throws(() => prfPlus(prf, counting(16), counting(7), 255 * prf.outputBytes + 1), RangeError)
  }
  t.equal(createPrf(PrfId.aesXcbc).fixedKeyBytes, 16)
  t.equal(createPrf(PrfId.hmacSha256).fixedKeyBytes, undefined)
})

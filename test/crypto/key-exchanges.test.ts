import { createECDH, getDiffieHellman } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { concatBytes, fromHex, toHex } from '../../lib/core/bytes.ts'
import { WireFault } from '../../lib/core/faults.ts'
import { type RandomSource, SeededRandom } from '../../lib/core/random.ts'
import type { Secret } from '../../lib/core/secret.ts'
import { createEcpGroup } from '../../lib/crypto/ecp.ts'
import { type DhGroup, dhKeyExchange, type KeyExchange } from '../../lib/crypto/key-exchange.ts'
import { keyExchange } from '../../lib/crypto/key-exchanges.ts'
import { createModpGroup } from '../../lib/crypto/modp.ts'
import { KeyExchangeId, keyExchangeTransforms } from '../../lib/crypto/transforms.ts'
import { createX25519Group } from '../../lib/crypto/x25519.ts'

function method(id: number): KeyExchange {
  const found = keyExchange(id)
  if (found === undefined) throw new Error(`no key exchange ${id}`)
  return found
}

function numberOf(bytes: Uint8Array): bigint {
  return BigInt(`0x${toHex(bytes)}`)
}

function bytesOf(value: bigint, length: number): Uint8Array {
  return fromHex(value.toString(16).padStart(2 * length, '0'))
}

/** The slow, plain way: square and multiply. */
function powerModulo(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n
  let square = base % modulus
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % modulus
    square = (square * square) % modulus
  }
  return result
}

type Point = { readonly x: bigint; readonly y: bigint } | undefined

/** Affine arithmetic on y² = x³ - 3x + b, for which b need not be known. */
function add(p: bigint, a: Point, b: Point): Point {
  if (a === undefined) return b
  if (b === undefined) return a
  if (a.x === b.x && (a.y + b.y) % p === 0n) return undefined
  const inverse = (value: bigint) => powerModulo(((value % p) + p) % p, p - 2n, p)
  const slope =
    a.x === b.x ? (3n * a.x * a.x - 3n) * inverse(2n * a.y) : (b.y - a.y) * inverse(b.x - a.x)
  const x = (((slope * slope - a.x - b.x) % p) + p) % p
  return { x, y: (((slope * (a.x - x) - a.y) % p) + p) % p }
}

function multiply(p: bigint, scalar: bigint, point: Point): Point {
  let result: Point
  let doubled = point
  for (let rest = scalar; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = add(p, result, doubled)
    doubled = add(p, doubled, doubled)
  }
  return result
}

const modpGroups = [
  { id: KeyExchangeId.modp1024, nodeName: 'modp2', bits: 1024 },
  { id: KeyExchangeId.modp1536, nodeName: 'modp5', bits: 1536 },
  { id: KeyExchangeId.modp2048, nodeName: 'modp14', bits: 2048 },
  { id: KeyExchangeId.modp3072, nodeName: 'modp15', bits: 3072 },
  { id: KeyExchangeId.modp4096, nodeName: 'modp16', bits: 4096 },
] as const

const curves = [
  {
    id: KeyExchangeId.ecp256,
    name: 'prime256v1',
    bytes: 32,
    p: 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n,
  },
  {
    id: KeyExchangeId.ecp384,
    name: 'secp384r1',
    bytes: 48,
    p: 2n ** 384n - 2n ** 128n - 2n ** 96n + 2n ** 32n - 1n,
  },
  { id: KeyExchangeId.ecp521, name: 'secp521r1', bytes: 66, p: 2n ** 521n - 1n },
] as const

t.test('both sides of every method hold one secret', async t => {
  for (const transform of keyExchangeTransforms) {
    const random = new SeededRandom(transform.id)
    const exchange = method(transform.id)
    const offer = exchange.offer(random)
    t.equal(offer.publicValue.length, exchange.offerBytes, transform.name)
    const answer = exchange.answer(offer.publicValue, random)
    if (typeof answer === 'number') throw new Error(`${transform.name}: fault ${answer}`)
    t.equal(answer.publicValue.length, exchange.answerBytes, transform.name)
    const secret = offer.finish(answer.publicValue)
    if (typeof secret === 'number') throw new Error(`${transform.name}: fault ${secret}`)
    t.ok(secret.equals(answer.sharedSecret), transform.name)
    t.ok(secret.length >= 32, `${transform.name} is not empty`)
  }
})

t.test('an unknown number and "none" have no method', async t => {
  for (const id of [0, 1, 22, 24, 32, 38, 65535]) t.equal(keyExchange(id), undefined, String(id))
})

t.test('MODP groups agree with plain modular arithmetic', async t => {
  for (const { id, nodeName, bits } of modpGroups) {
    const prime = numberOf(getDiffieHellman(nodeName).getPrime())
    t.equal(prime.toString(2).length, bits, `${bits} bits`)
    t.equal(prime & (2n ** 64n - 1n), 2n ** 64n - 1n, 'the low 64 bits are ones (RFC 3526)')
    const group = createModpGroup(id)
    const random = new SeededRandom(bits)
    const mine = group.drawPrivateValue(random)
    const theirs = group.drawPrivateValue(random)
    const theirValue = group.keyPair(theirs).publicValue()
    t.same(theirValue, bytesOf(powerModulo(2n, numberOf(theirs), prime), bits / 8))
    const expected = powerModulo(numberOf(theirValue), numberOf(mine), prime)
    t.same(
      group.keyPair(mine).agree(theirValue),
      bytesOf(expected, bits / 8),
      `${bits}: the secret`,
    )
  }
})

t.test('a MODP secret with leading zeros keeps its length (RFC 7296 §2.14)', async t => {
  const group = createModpGroup(KeyExchangeId.modp1024)
  const two = bytesOf(2n, 128)
  t.same(group.keyPair(Uint8Array.of(9)).agree(two), bytesOf(512n, 128))
  t.same(group.keyPair(Uint8Array.of(10)).publicValue(), bytesOf(1024n, 128))
})

t.test('MODP values 0, 1, p-1, p and above are refused (RFC 6989 §2.1)', async t => {
  for (const { id, nodeName, bits } of modpGroups) {
    const prime = numberOf(getDiffieHellman(nodeName).getPrime())
    const all = 2n ** BigInt(bits) - 1n
    for (const value of [0n, 1n, prime - 1n, prime, prime + 1n, all]) {
      const bytes = bytesOf(value, bits / 8)
      t.equal(method(id).answer(bytes, new SeededRandom(1)), WireFault['bad-value'])
      t.equal(method(id).offer(new SeededRandom(1)).finish(bytes), WireFault['bad-value'])
    }
    for (const value of [2n, prime - 2n]) {
      const answer = method(id).answer(bytesOf(value, bits / 8), new SeededRandom(1))
      t.not(typeof answer, 'number', 'the values next to them are not')
    }
  }
})

t.test('a value of another length is refused before any arithmetic', async t => {
  for (const transform of keyExchangeTransforms) {
    const exchange = method(transform.id)
    for (const length of [0, 1, exchange.offerBytes - 1]) {
      t.equal(exchange.answer(new Uint8Array(length), new SeededRandom(2)), WireFault.truncated)
    }
    const long = new Uint8Array(exchange.offerBytes + 1).fill(5)
    t.equal(exchange.answer(long, new SeededRandom(2)), WireFault.oversize)
    const offer = exchange.offer(new SeededRandom(2))
    t.equal(offer.finish(new Uint8Array(exchange.answerBytes - 1)), WireFault.truncated)
    t.equal(offer.finish(new Uint8Array(exchange.answerBytes + 1)), WireFault.oversize)
  }
})

t.test('ECP-256: RFC 5903 §8.1', async t => {
  const group = createEcpGroup(KeyExchangeId.ecp256)
  const i = fromHex('C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433')
  const r = fromHex('C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53')
  const keI = fromHex(`DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180
    5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3`)
  const keR = fromHex(`D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63
    56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB`)
  const secret = fromHex('D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE')
  t.same(group.keyPair(i).publicValue(), keI)
  t.same(group.keyPair(r).publicValue(), keR)
  t.same(group.keyPair(i).agree(keR), secret)
  t.same(group.keyPair(r).agree(keI), secret)
})

t.test('ECP groups agree with plain affine arithmetic', async t => {
  for (const { id, name, bytes, p } of curves) {
    const one = createECDH(name)
    one.setPrivateKey(bytesOf(1n, bytes))
    const base = one.getPublicKey()
    const g = { x: numberOf(base.subarray(1, 1 + bytes)), y: numberOf(base.subarray(1 + bytes)) }
    const group = createEcpGroup(id)
    const random = new SeededRandom(bytes)
    const mine = group.drawPrivateValue(random)
    const theirs = group.drawPrivateValue(random)
    const theirPoint = multiply(p, numberOf(theirs), g)
    const theirValue = group.keyPair(theirs).publicValue()
    t.ok(theirPoint, 'not the point at infinity')
    if (theirPoint === undefined) return
    t.same(theirValue, concatBytes(bytesOf(theirPoint.x, bytes), bytesOf(theirPoint.y, bytes)))
    const common = multiply(p, numberOf(mine), theirPoint)
    t.same(
      group.keyPair(mine).agree(theirValue),
      bytesOf(common?.x ?? 0n, bytes),
      `${name}: x alone`,
    )
  }
})

t.test('ECP values that are no point are refused (RFC 6989 §2.3)', async t => {
  for (const { id, bytes, p } of curves) {
    const random = new SeededRandom(3)
    const good = createEcpGroup(id)
      .keyPair(createEcpGroup(id).drawPrivateValue(random))
      .publicValue()
    const x = good.subarray(0, bytes)
    const y = good.subarray(bytes)
    const offCurve = Uint8Array.from(good)
    offCurve[offCurve.length - 1] = (offCurve[offCurve.length - 1] ?? 0) ^ 1
    const bad = {
      'off the curve': offCurve,
      'x and y exchanged': concatBytes(y, x),
      'all zero': new Uint8Array(2 * bytes),
      'all ones': new Uint8Array(2 * bytes).fill(0xff),
      'x = p': concatBytes(bytesOf(p, bytes), y),
      'y = p': concatBytes(x, bytesOf(p, bytes)),
    }
    for (const [name, value] of Object.entries(bad)) {
      t.equal(method(id).answer(value, random), WireFault['bad-value'], name)
    }
    const negative = concatBytes(x, bytesOf(p - numberOf(y), bytes))
    t.not(typeof method(id).answer(negative, random), 'number', 'the other y of an x is a point')
  }
})

t.test('private values of 0 and from the group order up are drawn again', async t => {
  const draws = [
    new Uint8Array(32),
    fromHex('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551'),
    new Uint8Array(32).fill(0xff),
    fromHex('ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550'),
  ]
  let draw = 0
  const random: RandomSource = { fill: out => out.set(draws[draw++] ?? out) }
  const value = createEcpGroup(KeyExchangeId.ecp256).drawPrivateValue(random)
  t.same(value, draws[3], 'order - 1 is the largest')
  t.equal(draw, 4)
})

t.test('X25519: RFC 7748 §6.1', async t => {
  const group = createX25519Group()
  const alice = fromHex('77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a')
  const bob = fromHex('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb')
  const aliceValue = fromHex('8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a')
  const bobValue = fromHex('de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f')
  const secret = fromHex('4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742')
  t.same(group.keyPair(alice).publicValue(), aliceValue)
  t.same(group.keyPair(bob).publicValue(), bobValue)
  t.same(group.keyPair(alice).agree(bobValue), secret)
  t.same(group.keyPair(bob).agree(aliceValue), secret)
})

t.test('X25519 values of low order are refused (RFC 7748 §6.1, RFC 8031 §3.2)', async t => {
  const lowOrder = [
    '00',
    '01',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
    '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  ]
  for (const hex of lowOrder) {
    const value = fromHex(hex.padEnd(64, '0'))
    t.equal(method(31).answer(value, new SeededRandom(4)), WireFault['bad-value'], hex)
  }
})

t.test('ML-KEM: a changed ciphertext gives another secret, a changed key is refused', async t => {
  for (const id of [KeyExchangeId.mlKem512, KeyExchangeId.mlKem768, KeyExchangeId.mlKem1024]) {
    const random = new SeededRandom(id)
    const offer = method(id).offer(random)
    const answer = method(id).answer(offer.publicValue, random)
    if (typeof answer === 'number') throw new Error('a good key is refused')
    const changed = Uint8Array.from(answer.publicValue)
    changed[7] = (changed[7] ?? 0) ^ 1
    const secret = offer.finish(changed) as Secret
    t.equal(secret.length, 32)
    t.notOk(secret.equals(answer.sharedSecret), 'FIPS 203 §6.3: implicit rejection')
    const badKey = Uint8Array.from(offer.publicValue).fill(0xff, 0, 3)
    t.equal(method(id).answer(badKey, random), WireFault['bad-value'], 'coefficients of 4095')
    t.same(
      method(id).offer(new SeededRandom(9)).publicValue,
      method(id).offer(new SeededRandom(9)).publicValue,
      'the random source decides everything',
    )
  }
})

t.test('a finished or dropped offer has wiped its private value', async t => {
  const seen: Uint8Array[] = []
  const group: DhGroup = {
    publicBytes: 1,
    drawPrivateValue: () => {
      const value = Uint8Array.of(1, 2, 3)
      seen.push(value)
      return value
    },
    keyPair: () => ({ publicValue: () => Uint8Array.of(1), agree: () => Uint8Array.of(4) }),
  }
  const exchange = dhKeyExchange(KeyExchangeId.x25519, group)
  exchange.offer(new SeededRandom(1)).finish(Uint8Array.of(7))
  exchange.offer(new SeededRandom(1)).destroy()
  exchange.answer(Uint8Array.of(7), new SeededRandom(1))
  t.same(seen, [new Uint8Array(3), new Uint8Array(3), new Uint8Array(3)])
})

t.test('arbitrary bytes of the right length never throw', async t => {
  const cheap = [KeyExchangeId.modp1024, KeyExchangeId.ecp256, KeyExchangeId.x25519]
  for (const id of [...cheap, KeyExchangeId.mlKem512]) {
    const exchange = method(id)
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: exchange.offerBytes, maxLength: exchange.offerBytes }),
        fc.uint8Array({ minLength: exchange.answerBytes, maxLength: exchange.answerBytes }),
        (request, response) => {
          exchange.answer(request, new SeededRandom(5))
          exchange.offer(new SeededRandom(6)).finish(response)
        },
      ),
      { seed: id, numRuns: 30 },
    )
  }
  t.pass('no exception')
})

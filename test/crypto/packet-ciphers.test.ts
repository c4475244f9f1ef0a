import fc from 'fast-check'
import t from 'tap'
import { fromHex, toHex, u32 } from '../../lib/core/bytes.ts'
import { nobleCiphers, nodeCiphers } from '../../lib/crypto/cipher.ts'
import { EvpAeadOpener, EvpAeadSealer } from '../../lib/crypto/evp-aead-cipher.ts'
import { evpPacketCiphers } from '../../lib/crypto/evp-packet-cipher.ts'
import { libcrypto } from '../../lib/crypto/libcrypto.ts'
import {
  isWholeSuite,
  type PacketCipherProvider,
  type PacketSuite,
  suiteIcvBytes,
  suiteName,
} from '../../lib/crypto/packet-cipher.ts'
import {
  packetCipherProvider,
  packetCipherProviders,
  passesSelfTest,
} from '../../lib/crypto/packet-ciphers.ts'
import { noblePacketCiphers, nodePacketCiphers } from '../../lib/crypto/portable-packet-cipher.ts'
import { EncryptionId, IntegrityId } from '../../lib/crypto/transforms.ts'
import { allSuites, encryptionOf, keysOf, suiteOf, testMemory } from './suites.ts'

const suites = allSuites()
const memory = testMemory(8192)
const at = 1024

function providersOf(suite: PacketSuite): PacketCipherProvider[] {
  return packetCipherProviders.filter(provider => provider.supports(suite, memory))
}

function bodyOffset(suite: PacketSuite): number {
  return 8 + suite.encryption.ivBytes
}

/** Puts a header and a body at `at`; everything else is 0xa5. */
function place(suite: PacketSuite, sequence: number, body: Uint8Array): void {
  memory.bytes.fill(0xa5)
  memory.view.setUint32(at, 0xc0ffee01)
  memory.view.setUint32(at + 4, sequence)
  memory.bytes.set(body, at + bodyOffset(suite))
}

t.test('every provider opens what every other sealed', async t => {
  let pairs = 0
  for (const suite of suites) {
    const providers = providersOf(suite)
    const block = Math.max(4, suite.encryption.blockBytes)
    const high = suite.hasEsn ? 0x1ff : 0
    for (const from of providers) {
      for (const to of providers) {
        const sealer = from.sealer(suite, keysOf(suite), memory)
        const opener = to.opener(suite, keysOf(suite), memory)
        for (const [sequence, blocks] of [
          [1, 1],
          [2, 5],
          [0xffffffff, 3],
        ] as const) {
          const body = Uint8Array.from({ length: blocks * block }, (_, i) => i * 7 + sequence)
          place(suite, sequence, body)
          const name = `${suiteName(suite)} ${from.name} -> ${to.name} ${body.length} bytes`
          if (!sealer.seal(at, body.length, high)) t.fail(`${name} was not sealed`)
          const end = at + bodyOffset(suite) + body.length + suiteIcvBytes(suite)
          if (!memory.bytes.subarray(0, at).every(byte => byte === 0xa5)) t.fail(`${name}: before`)
          if (!memory.bytes.subarray(end).every(byte => byte === 0xa5)) t.fail(`${name}: behind`)
          if (!opener.open(at, body.length, high)) t.fail(`${name} was not opened`)
          const opened = memory.bytes.subarray(at + bodyOffset(suite))
          if (!body.every((byte, i) => byte === opened[i])) t.fail(`${name} is another text`)
          pairs++
        }
        sealer.destroy()
        opener.destroy()
      }
    }
  }
  t.ok(pairs > 1000, `${pairs} packets`)
})

t.test('every provider writes one ciphertext in counter modes', async t => {
  for (const suite of suites.filter(suite => suite.encryption.mode !== 'cbc')) {
    const seen = new Set<string>()
    for (const provider of providersOf(suite)) {
      const sealer = provider.sealer(suite, keysOf(suite), memory)
      place(suite, 77, new Uint8Array(64))
      sealer.seal(at, 64, suite.hasEsn ? 9 : 0)
      seen.add(toHex(memory.bytes))
      sealer.destroy()
    }
    t.equal(seen.size, 1, suiteName(suite))
  }
})

t.test('a changed bit anywhere, or another high half, is refused by every provider', async t => {
  for (const suite of suites) {
    if (suite.keyBits !== suite.encryption.keyBits[0]) continue
    for (const provider of providersOf(suite)) {
      if (provider.name === 'noble' && suite.hasEsn) continue
      const opener = provider.opener(suite, keysOf(suite), memory)
      const sealer = nodePacketCiphers.sealer(suite, keysOf(suite), memory)
      const bodyBytes = 16
      place(suite, 5, new Uint8Array(bodyBytes))
      sealer.seal(at, bodyBytes, suite.hasEsn ? 3 : 0)
      const end = at + bodyOffset(suite) + bodyBytes + suiteIcvBytes(suite)
      const packet = memory.bytes.slice(at, end)
      for (let i = 0; i < packet.length; i++) {
        memory.bytes.set(packet, at)
        memory.bytes[at + i] = (packet[i] ?? 0) ^ (1 << (i & 7))
        if (opener.open(at, bodyBytes, suite.hasEsn ? 3 : 0)) {
          t.fail(`${suiteName(suite)} ${provider.name} at ${i}`)
        }
      }
      memory.bytes.set(packet, at)
      if (suite.hasEsn && opener.open(at, bodyBytes, 4)) t.fail('another high half was accepted')
      memory.bytes.set(packet, at)
      // A failure leaves nothing behind: the next good packet is opened.
      if (!opener.open(at, bodyBytes, suite.hasEsn ? 3 : 0)) t.fail(`${provider.name} is stuck`)
      sealer.destroy()
      opener.destroy()
    }
  }
  t.pass('all refused')
})

t.test('contexts carry from packet to packet, whatever lies between', async t => {
  const names = suites.filter(suite => suite.keyBits === suite.encryption.keyBits[0])
  fc.assert(
    fc.property(
      fc.constantFrom(...names),
      fc.array(
        fc.tuple(fc.integer({ min: 1, max: 90 }), fc.constantFrom('good', 'lost', 'forged')),
      ),
      (suite, packets) => {
        const [fast = nodePacketCiphers] = providersOf(suite)
        const sealer = fast.sealer(suite, keysOf(suite), memory)
        const opener = fast.opener(suite, keysOf(suite), memory)
        const oracle = nodePacketCiphers.opener(suite, keysOf(suite), memory)
        const block = Math.max(4, suite.encryption.blockBytes)
        let sequence = 0
        for (const [blocks, fate] of packets) {
          sequence++
          const body = Uint8Array.from({ length: blocks * block }, (_, i) => i + sequence)
          place(suite, sequence, body)
          t.ok(sealer.seal(at, body.length, 0))
          const copy = Uint8Array.from(memory.bytes)
          if (!oracle.open(at, body.length, 0)) return false
          memory.bytes.set(copy)
          if (fate === 'lost') continue
          if (fate === 'forged') memory.bytes[at + 9] = (memory.bytes[at + 9] ?? 0) ^ 128
          if (opener.open(at, body.length, 0) !== (fate === 'good')) return false
          const opened = memory.bytes.subarray(at + bodyOffset(suite))
          if (fate === 'good' && !body.every((byte, i) => byte === opened[i])) return false
        }
        for (const cipher of [sealer, opener, oracle]) cipher.destroy()
        return true
      },
    ),
    { seed: 21, numRuns: 120 },
  )
})

interface PacketVector {
  readonly source: string
  readonly suite: PacketSuite
  readonly key: string
  readonly integrityKey?: string
  readonly sequenceHigh: number
  /** SPI, sequence number, IV. */
  readonly head: string
  readonly body: string
  /** Ciphertext and ICV. */
  readonly sealed: string
}

const vectors: readonly PacketVector[] = [
  {
    source: 'draft-mcgrew-gcm-test-01 case 1 (RFC 4106 with ESN)',
    suite: suiteOf(EncryptionId.aesGcm16, 128, 0, true),
    key: '4C80CDEFBB5D10DA906AC73C3613A634 2E443B68',
    sequenceHigh: 0x87654321,
    head: '00004321 00000000 4956ED7E3B244CFE',
    body: `45000048699A000080114DB7C0A80102C0A801010A9BF15638D3010000010000000000
      00045F736970045F756470037369700963796265726369747902646B000021000101020201`,
    sealed: `FECF537E729D5B07DC30DF528DD22B768D1B98736696A6FD348509FA13CEAC34CFA2436F
      14A3F3CF65925BF1F4A13C5D15B21E1884F5FF6247AEABB786B93BCE61BC17D768FD973245901814
      8F6CBE722FD04796562DFDB4`,
  },
  {
    source: 'RFC 7634 appendix A',
    suite: suiteOf(EncryptionId.chacha20Poly1305, 256),
    key: `808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3`,
    sequenceHigh: 0,
    head: '01020304 00000005 1011121314151617',
    body: `45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10
      0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
      2425262728292a2b2c2d2e2f3031323334353637 01020204`,
    sealed: `24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6
      14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3
      cbec163fac469b502773f6fb94e664da9165b82829f641e0 76aaa8266b7fb0f7b11b369907e1ad43`,
  },
]

t.test('known packets: they open, and counter modes write them again', async t => {
  for (const vector of vectors) {
    const { suite } = vector
    const keys = {
      encryptionKey: fromHex(vector.key),
      integrityKey: fromHex(vector.integrityKey ?? ''),
    }
    const [head, body, sealed] = [vector.head, vector.body, vector.sealed].map(fromHex)
    if (head === undefined || body === undefined || sealed === undefined) continue
    for (const provider of providersOf(suite)) {
      memory.bytes.set(head, at)
      memory.bytes.set(sealed, at + head.length)
      const opener = provider.opener(suite, keys, memory)
      t.ok(opener.open(at, body.length, vector.sequenceHigh), `${vector.source} ${provider.name}`)
      const opened = memory.bytes.slice(at + head.length, at + head.length + body.length)
      t.same(opened, body, provider.name)
      opener.destroy()
    }
  }
})

t.test('known blocks: RFC 3602 §4, RFC 3686 §6', async t => {
  const counting = Uint8Array.from({ length: 32 }, (_, i) => i)
  const single = new TextEncoder().encode('Single block msg')
  const none = new Uint8Array(0)
  const cases = [
    {
      id: EncryptionId.aesCbc,
      key: '06A9214036B8A15B512E03D534120006',
      iv: '3DAFBA429D9EB430B422DA802C9FAC41',
      text: single,
      expected: 'E353779C1079AEB82708942DBE77181A',
    },
    {
      id: EncryptionId.aesCbc,
      key: 'c286696d887c9aa0611bbb3e2025a45a',
      iv: '562e17996d093d28ddb3ba695a2e6f58',
      text: counting,
      expected: 'd296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1',
    },
    {
      id: EncryptionId.aesCtr,
      key: 'ae6852f8121067cc4bf7a5765577f39e 00000030',
      iv: '0000000000000000',
      text: single,
      expected: 'e4095d4fb7a7b3792d6175a3261311b8',
    },
    {
      id: EncryptionId.aesCtr,
      key: '7e24067817fae0d743d6ce1f32539163 006cb6db',
      iv: 'c0543b59da48d90b',
      text: counting,
      expected: '5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28',
    },
  ] as const
  for (const { id, key, iv, text, expected } of cases) {
    for (const provider of [nodeCiphers, nobleCiphers]) {
      const transform = encryptionOf(id)
      const sealed = provider.encrypt(transform, fromHex(key), fromHex(iv), text, none)
      t.equal(toHex(sealed), expected.toLowerCase(), `${transform.name} ${provider.name}`)
      t.same(provider.decrypt(transform, fromHex(key), fromHex(iv), sealed, none), text)
    }
  }
})

t.test('no packet of a CBC sealer has the IV of another', async t => {
  const suite = suiteOf(EncryptionId.aesCbc, 128, IntegrityId.hmacSha1_96)
  for (const provider of providersOf(suite)) {
    const sealer = provider.sealer(suite, keysOf(suite), memory)
    const ivs = new Set<string>()
    for (let i = 0; i < 1000; i++) {
      // The same header and text every time: only the IV can differ.
      place(suite, 1, new Uint8Array(16))
      sealer.seal(at, 16, 0)
      ivs.add(toHex(memory.bytes.subarray(at + 8, at + 24)))
    }
    t.equal(ivs.size, 1000, provider.name)
    sealer.destroy()
  }
})

const hasNoEvp = libcrypto() === undefined && 'no EVP in this process'

t.test('AES-GCM through EVP follows sequences with gaps', { skip: hasNoEvp }, async t => {
  const library = libcrypto()
  if (library === undefined) return
  for (const id of [EncryptionId.aesGcm8, EncryptionId.aesGcm12, EncryptionId.aesGcm16]) {
    for (const hasEsn of [false, true]) {
      const suite = { ...suiteOf(id, 128), hasEsn }
      const sealer = evpPacketCiphers.sealer(suite, keysOf(suite), memory)
      const opener = evpPacketCiphers.opener(suite, keysOf(suite), memory)
      // The other way to do it with EVP, for OpenSSL before 3.
      const plainSealer = new EvpAeadSealer(library, suite, keysOf(suite), memory)
      const plainOpener = new EvpAeadOpener(library, suite, keysOf(suite), memory)
      const text = Uint8Array.from({ length: 32 }, (_, i) => i)
      for (const [high, sequence] of [
        [0, 1],
        [0, 2],
        [0, 5],
        [0, 0xffff_ffff],
        [1, 0],
        [1, 1],
        [7, 3],
      ] as const) {
        const pairs = [
          [sealer, plainOpener],
          [plainSealer, opener],
        ] as const
        for (const [from, to] of pairs) {
          place(suite, sequence, text)
          t.ok(from.seal(at, text.length, high), `${id} seals ${high}:${sequence}`)
          const iv = memory.bytes.slice(at + 8, at + 16)
          t.same([u32(iv, 0), u32(iv, 4)], [high, sequence], 'the IV is the sequence number')
          t.ok(to.open(at, text.length, high), `${id} opens ${high}:${sequence}`)
          t.same(memory.bytes.slice(at + 16, at + 16 + text.length), text)
        }
      }
      for (const cipher of [sealer, opener, plainSealer, plainOpener]) cipher.destroy()
    }
  }
})

t.test('after destroy nothing is sealed or opened, and destroy may be repeated', async t => {
  for (const suite of [
    suiteOf(EncryptionId.aesGcm16, 128),
    suiteOf(EncryptionId.aesCbc, 256, IntegrityId.hmacSha256_128),
    suiteOf(EncryptionId.aesCtr, 256, IntegrityId.hmacSha1_96),
  ]) {
    if (!evpPacketCiphers.supports(suite, memory)) continue
    const sealer = evpPacketCiphers.sealer(suite, keysOf(suite), memory)
    const opener = evpPacketCiphers.opener(suite, keysOf(suite), memory)
    for (const cipher of [sealer, opener, sealer, opener]) cipher.destroy()
    t.notOk(sealer.seal(at, 16, 0))
    t.notOk(opener.open(at, 16, 0))
  }
})

t.test('the fastest provider that works is chosen', async t => {
  const suite = suiteOf(EncryptionId.aesGcm16, 256)
  const chosen = packetCipherProvider(suite, memory)?.name
  t.equal(chosen, libcrypto() === undefined ? 'node' : 'evp-record')
  t.equal(packetCipherProvider(suiteOf(EncryptionId.aesGcm8, 256), memory)?.name, 'evp')
  t.equal(packetCipherProvider(suite, memory, 'noble')?.name, 'noble')
  const unaddressed = { ...memory, address: 0 }
  t.equal(packetCipherProvider(suite, unaddressed)?.name, 'node', 'no address, no direct calls')
  const xcbc = suiteOf(EncryptionId.aesCbc, 256, IntegrityId.aesXcbc96)
  t.equal(packetCipherProvider(xcbc, memory)?.name, 'node', 'EVP has no XCBC')
  const odd: PacketSuite = { ...suite, keyBits: 100 }
  t.equal(packetCipherProvider(odd, memory), undefined)
  t.notOk(isWholeSuite({ ...suite, integrity: xcbc.integrity }), 'an AEAD with integrity')
  t.throws(() => nodePacketCiphers.sealer(odd, keysOf(suite), memory))
})

t.test('a provider that computes wrongly fails the self-test', async t => {
  const suite = suiteOf(EncryptionId.aesGcm16, 128)
  t.ok(passesSelfTest(nodePacketCiphers, suite))
  const inner = nodePacketCiphers
  const wrong: Record<string, PacketCipherProvider> = {
    'accepts everything': {
      ...inner,
      opener: (...args) => {
        const opener = inner.opener(...args)
        return {
          provider: 'node',
          open: (...place) => opener.open(...place) || true,
          destroy: () => opener.destroy(),
        }
      },
    },
    'encrypts with another key': {
      ...inner,
      sealer: (of, keys, where) =>
        inner.sealer(of, { ...keys, encryptionKey: keys.encryptionKey.map(b => b ^ 1) }, where),
    },
    'seals nothing': {
      ...inner,
      sealer: () => ({ provider: 'node', seal: () => true, destroy: () => undefined }),
    },
    throws: {
      ...inner,
      sealer: () => {
        throw new Error('no such cipher')
      },
    },
  }
  for (const [name, provider] of Object.entries(wrong)) {
    t.notOk(passesSelfTest(provider, suite), name)
  }
  t.ok(passesSelfTest(noblePacketCiphers, suite))
})

import t from 'tap'
import { fromHex, toHex } from '../../lib/core/bytes.ts'
import {
  callConnectedBytes,
  certificateHash,
  checkBinding,
  compoundMac,
  compoundMacKey,
  hashBitmask,
  hashOfBit,
  isCompoundMacRight,
  strongestHash,
} from '../../lib/sstp/crypto-binding.ts'
import type { CryptoBinding, HashName } from '../../lib/sstp/wire/attribute.ts'
import { parseMessage } from '../../lib/sstp/wire/message.ts'

interface Vector {
  readonly hash: HashName
  readonly higherLayerKey: string
  /** Computed from the seed with a little-endian length; big-endian does not give the MAC. */
  readonly compoundMacKey: string
  readonly callConnected: string
}

/** [MS-SSTP] §4.7, both examples. */
const vectors: Vector[] = [
  {
    hash: 'sha256',
    higherLayerKey: '2A1BB40D55AB0F5EF32F06F2B3CC73C48FD3FAC41D7A1315A19228D9024CA164',
    compoundMacKey: 'ECF59AC9FE155CF0A9E7D66ADC1B363C1AD7BA91A9217F0CEC2A534298828DF6',
    callConnected: `10010070 00040001 00030068 00000002
      412B489AEBD7ECC7D08966F26BE7CD72 B231A0E9210D7C91B308862B0344C435
      7993EF314C493DACE9F02D60E7E61C84 B6690AAFE9D7AEEA92CBBE8AD599422D
      52A68EFD8CFFBF52770B8F0FE8EC7371 6583AF6D611EB6D179B3B20840985449`,
  },
  {
    hash: 'sha1',
    higherLayerKey: '4B3128F43925D9006EEFB1C4E86515A1D88E56BAB3CA2BDF0373B7F5A8A13B19',
    compoundMacKey: 'A98B862A38CC7E224B42CD128586ACB22F0BD1E9',
    callConnected: `10010070 00040001 00030068 00000001
      0F1A2D58D4A3E3000FAD3CE4906E07B7 07AA9E441CCEAC5CBD7B2CC1C9D86CDF
      5826B629BDA59B8E6FD8DCD2622FD34C 534805A5 000000000000000000000000
      69915DD583D8062FEF16F61DB2F03290 EC27CB6C 000000000000000000000000`,
  },
]

const bindingOf = (message: Uint8Array): CryptoBinding => {
  const [attribute] = parseMessage(message, 0).attributes
  if (attribute?.type !== 'crypto-binding') throw new Error('no crypto binding')
  return attribute
}

t.test('the examples of [MS-SSTP] 4.7 verify, and no bit of them may change', async t => {
  for (const vector of vectors) {
    const key = fromHex(vector.higherLayerKey)
    const message = fromHex(vector.callConnected)
    const binding = bindingOf(message)
    t.equal(toHex(compoundMacKey(vector.hash, key)), vector.compoundMacKey.toLowerCase())
    t.same(compoundMac(vector.hash, key, message), binding.compoundMac)
    t.equal(isCompoundMacRight(vector.hash, key, message, binding), true)
    for (let at = 0; at < message.length; at++) {
      const forged = Uint8Array.from(message)
      forged[at] = (forged[at] ?? 0) ^ 0x01
      const isMac = at >= 80
      const claimed = isMac ? { ...binding, compoundMac: forged.subarray(80) } : binding
      t.equal(isCompoundMacRight(vector.hash, key, forged, claimed), false, `byte ${at}`)
    }
    const wrongKey = Uint8Array.from(key)
    wrongKey[31] = (wrongKey[31] ?? 0) ^ 0x80
    t.equal(isCompoundMacRight(vector.hash, wrongKey, message, binding), false)
  }
})

t.test('what the client makes is what the server expects', async t => {
  const certificate = fromHex('3082 0102 0304')
  const nonce = new Uint8Array(32).fill(7)
  const key = new Uint8Array(32).fill(9)
  for (const hash of ['sha1', 'sha256'] as const) {
    const message = callConnectedBytes(hash, nonce, certificate, key)
    t.equal(message.length, 112)
    const binding = bindingOf(message)
    const expected = { nonce, offered: ['sha1', 'sha256'], certificate } as const
    t.equal(checkBinding(binding, expected), hash)
    t.equal(isCompoundMacRight(hash, key, message, binding), true)
    const other = hash === 'sha1' ? 'sha256' : 'sha1'
    t.equal(checkBinding(binding, { ...expected, offered: [other] }), 'binding-hash-not-offered')
    const stale = { ...expected, nonce: new Uint8Array(32).fill(8) }
    t.equal(checkBinding(binding, stale), 'binding-nonce')
    const renewed = { ...expected, certificate: fromHex('3082 0102 0305') }
    t.equal(checkBinding(binding, renewed), 'binding-certificate')
    for (const hashProtocol of [0, 3, 4, 255]) {
      t.equal(checkBinding({ ...binding, hashProtocol }, expected), 'binding-hash-not-offered')
    }
  }
  t.same(certificateHash('sha1', certificate).subarray(20), new Uint8Array(12))
})

t.test('hashes have bits', async t => {
  t.equal(hashBitmask(['sha1', 'sha256']), 3)
  t.equal(hashBitmask(['sha256']), 2)
  t.same([0, 1, 2, 3, 4].map(strongestHash), [undefined, 'sha1', 'sha256', 'sha256', undefined])
  t.same([0, 1, 2, 3, 4].map(hashOfBit), [undefined, 'sha1', 'sha256', undefined, undefined])
})

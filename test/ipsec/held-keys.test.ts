import t from 'tap'
import { HeldKeys } from '../../lib/ipsec/held-keys.ts'

const keys = (encryptionBytes: number, integrityBytes: number, from: number) => ({
  encryptionKey: Uint8Array.from({ length: encryptionBytes }, (_, i) => from + i),
  integrityKey: Uint8Array.from({ length: integrityBytes }, (_, i) => from + 100 + i),
})

t.test('keys are copied, and wiped without those that they were made with', async t => {
  for (const [encryptionBytes, integrityBytes] of [
    [20, 0],
    [32, 32],
  ] as const) {
    const [first, second] = [keys(encryptionBytes, integrityBytes, 1), keys(20, 0, 51)]
    const [a, b] = HeldKeys.pair(first, second)
    const alone = HeldKeys.of(first)
    first.encryptionKey.fill(0)
    const expected = keys(encryptionBytes, integrityBytes, 1)
    for (const held of [a, alone]) {
      t.same(held.encryptionKey, expected.encryptionKey)
      t.same(held.integrityKey, expected.integrityKey)
    }
    const shown = a.encryptionKey
    a.destroy()
    t.ok([...shown, ...a.integrityKey].every(byte => byte === 0))
    t.same(b.encryptionKey, second.encryptionKey)
    t.equal(b.integrityKey.length, 0)
    b.destroy()
    t.ok(b.encryptionKey.every(byte => byte === 0))
  }
})

/** SHA-1 over whole blocks against OpenSSL's. */
import { createHash } from 'node:crypto'
import t from 'tap'
import { putU16, toHex } from '../../lib/core/bytes.ts'
import { randomBytes, SeededRandom } from '../../lib/core/random.ts'
import { sha1BlockBytes, sha1DigestBytes, sha1OfBlocks } from '../../lib/crypto/sha1.ts'

t.test('blocks that end with the padding of RFC 3174 §4 give what OpenSSL gives', async t => {
  const random = new SeededRandom(31)
  for (let length = 0; length < 183; length++) {
    const message = randomBytes(random, length)
    const count = Math.ceil((length + 9) / sha1BlockBytes)
    const blocks = new Uint8Array(count * sha1BlockBytes)
    blocks.set(message)
    blocks[length] = 0x80
    putU16(blocks, blocks.length - 2, length * 8)
    const out = new Uint8Array(sha1DigestBytes).fill(0xa5)
    sha1OfBlocks(blocks, count, out)
    t.equal(toHex(out), createHash('sha1').update(message).digest('hex'), `${length} bytes`)
  }
})

import t from 'tap'
import { serialAdd16, serialDistance16, serialDistance32 } from '../../lib/core/serial.ts'

t.test('distances wrap at the end of the number space (RFC 1982 3.2)', async t => {
  t.equal(serialDistance16(0, 1), 1)
  t.equal(serialDistance16(1, 0), -1)
  t.equal(serialDistance16(65_535, 0), 1)
  t.equal(serialDistance16(0, 65_535), -1)
  t.equal(serialDistance16(0, 32_767), 32_767)
  t.equal(serialDistance16(0, 32_768), -32_768)
  t.equal(serialDistance32(0xffffffff, 0), 1)
  t.equal(serialDistance32(0, 0xffffffff), -1)
  t.equal(serialAdd16(65_535, 2), 1)
})

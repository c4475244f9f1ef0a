import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import {
  createFileAtomically,
  ensureStateDirectory,
  octal,
  readPrivateFile,
  writeFileAtomically,
} from '../../lib/config/state-directory.ts'
import { utf8, utf8Text } from '../../lib/core/bytes.ts'

const folder = mkdtempSync(join(tmpdir(), 'openras-state-'))
t.teardown(() => rmSync(folder, { recursive: true }))
const modeOf = (path: string) => statSync(path).mode & 0o777

t.test(
  'a state directory is its owner’s alone, or refused with the command that mends it',
  async t => {
    const path = join(folder, 'a', 'b')
    ensureStateDirectory(path)
    t.equal(modeOf(path), 0o700)
    ensureStateDirectory(path)
    chmodSync(path, 0o750)
    t.throws(() => ensureStateDirectory(path), { code: 'ERR_STORE', message: /0750.*chmod 700/ })
    const file = join(folder, 'file')
    writeFileSync(file, '')
    t.throws(() => ensureStateDirectory(join(file, 'below')), { code: 'ERR_STORE' })
  },
)

t.test('a file is replaced as a whole and leaves no draft behind', async t => {
  const path = join(folder, 'whole')
  const umask = process.umask(0o077)
  t.teardown(() => process.umask(umask))
  writeFileAtomically(path, 'one')
  t.equal(modeOf(path), 0o600)
  writeFileAtomically(path, utf8('two'), 0o644)
  t.equal(modeOf(path), 0o644, 'whatever the umask is')
  writeFileAtomically(path, 'three')
  t.equal(utf8Text(readPrivateFile(path) ?? new Uint8Array(0)), 'three')
  t.throws(() => writeFileAtomically(join(folder, 'none', 'x'), ''), { code: 'ERR_STORE' })
  const isTaken = join(folder, 'directory')
  ensureStateDirectory(join(isTaken, 'full'))
  t.throws(() => writeFileAtomically(isTaken, ''), { code: 'ERR_STORE' })
  t.notOk(readdirSync(folder).some(name => name.endsWith('.new')))
})

t.test('of two who make a file at once one wins, and the other learns it', async t => {
  const path = join(folder, 'once')
  t.equal(createFileAtomically(path, 'first'), true)
  t.equal(createFileAtomically(path, 'second'), false)
  t.equal(utf8Text(readPrivateFile(path) ?? new Uint8Array(0)), 'first')
  t.throws(() => createFileAtomically(join(folder, 'none', 'x'), ''), { code: 'ERR_STORE' })
})

t.test('a secret that others can read is not used', async t => {
  const path = join(folder, 'secret')
  t.equal(readPrivateFile(path), undefined)
  t.notOk(existsSync(path))
  writeFileAtomically(path, 'x', 0o640)
  t.ok(readPrivateFile(path), 'the group may read')
  for (const mode of [0o604, 0o620, 0o660]) {
    chmodSync(path, mode)
    t.throws(() => readPrivateFile(path), { code: 'ERR_STORE', message: /chmod 600/ }, octal(mode))
  }
  t.throws(() => readPrivateFile(folder), { code: 'ERR_STORE' })
})

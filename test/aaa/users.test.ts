import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { KeyVault } from '../../lib/aaa/key-vault.ts'
import { SqliteFile } from '../../lib/aaa/sqlite-file.ts'
import { ConfigUserStore } from '../../lib/aaa/users/config-user-store.ts'
import { SqliteUserStore } from '../../lib/aaa/users/sqlite-user-store.ts'
import {
  createFileAtomically,
  ensureStateDirectory,
  readPrivateFile,
  writeFileAtomically,
} from '../../lib/config/state-directory.ts'
import { parseConfig } from '../../lib/config.ts'
import { toHex, utf8 } from '../../lib/core/bytes.ts'
import { StoreError } from '../../lib/core/errors.ts'
import { parseIpv4 } from '../../lib/core/ip-address.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'

/** RFC 2759 §9.2: the NT hash of `clientPass`. */
const clientPassHash = '44ebba8d5312b8d611474411f56989ae'
const address = (text: string) => parseIpv4(text) ?? 0
const secret = (text: string) => Secret.fromText(text)
const modeOf = (path: string) => statSync(path).mode & 0o777

t.test('a user is added, found whatever the case, changed, listed and deleted', async t => {
  const directory = join(t.testdir({}), 'state')
  const store = SqliteUserStore.open(directory)
  t.equal(store.find('alice'), undefined)
  const alice = store.add({ name: 'Alice', password: secret('clientPass') })
  t.match(alice, { name: 'Alice', dialIn: 'permit', groups: [], isDisabled: false })
  t.same(store.find('aLICE'), alice)
  t.equal(toHex(store.secretsOf(alice).ntHash.expose()), clientPassHash)
  t.equal(store.secretsOf(alice).password, undefined)

  const changed = store.set('alice', {
    dialIn: 'deny',
    ipv4Address: address('10.87.0.9'),
    groups: ['staff', 'ops'],
    isDisabled: true,
    expires: new Date('2027-01-31T00:00:00Z'),
    passwordExpires: new Date('2027-01-01T00:00:00Z'),
    mustChangePassword: true,
    maxSessions: 2,
    idleTimeoutMs: Number.POSITIVE_INFINITY,
    sessionTimeoutMs: 3_600_000,
  })
  t.same(SqliteUserStore.open(directory).find('alice'), changed, 'another process sees the same')
  t.same([...store.fixedAddresses()], [address('10.87.0.9')])
  const cleared = store.set('alice', { ipv4Address: undefined, maxSessions: undefined })
  t.notOk('ipv4Address' in cleared)
  t.equal(cleared.idleTimeoutMs, Number.POSITIVE_INFINITY, 'what is not named stays')

  store.add({ name: 'bob', password: secret('x') })
  t.same(
    store.list().map(user => user.name),
    ['Alice', 'bob'],
  )
  t.ok(store.delete('ALICE'))
  t.notOk(store.delete('ALICE'))
  t.equal(store.find('alice'), undefined)
  t.throws(() => store.secretsOf(alice), StoreError)
})

t.test('names and addresses belong to one user, and what is not allowed is refused', async t => {
  const store = SqliteUserStore.open(join(t.testdir({}), 'state'))
  store.add({ name: 'alice', password: secret('x'), ipv4Address: address('10.0.0.1') })
  t.throws(
    () => store.add({ name: 'ALICE', password: secret('x') }),
    /there is a user ALICE already/,
  )
  t.throws(
    () => store.add({ name: 'bob', password: secret('x'), ipv4Address: address('10.0.0.1') }),
    /10\.0\.0\.1 belongs to user alice/,
  )
  t.throws(() => store.add({ name: 'a/b', password: secret('x') }), /a user name has/)
  t.throws(() => store.add({ name: 'bob', password: secret('') }), /a password has 1 to 256/)
  t.throws(() => store.set('bob', { isDisabled: true }), /there is no user bob/)
  t.throws(() => store.set('alice', { isReversible: true }), /needs the password/)
  t.same(
    store.list().map(user => user.name),
    ['alice'],
    'nothing of it happened',
  )
})

t.test(
  'the password itself is kept only when that is asked for, and forgotten when it is not',
  async t => {
    const store = SqliteUserStore.open(join(t.testdir({}), 'state'))
    const bob = store.add({ name: 'bob', password: secret('clear'), isReversible: true })
    t.equal(store.secretsOf(bob).password?.exposeText(), 'clear')
    t.equal(store.set('bob', { groups: ['a'] }).isReversible, true)
    t.equal(store.secretsOf(bob).password?.exposeText(), 'clear')
    const safe = store.set('bob', { isReversible: false })
    t.equal(store.secretsOf(safe).password, undefined)
  },
)

t.test('no file of the state directory shows a secret, and all are private', async t => {
  const directory = join(t.testdir({}), 'state')
  const store = SqliteUserStore.open(directory)
  store.add({ name: 'bob', password: secret('clientPass'), isReversible: true })
  t.equal(modeOf(directory), 0o700)
  for (const name of readdirSync(directory)) {
    t.equal(modeOf(join(directory, name)), 0o600, name)
    const content = readFileSync(join(directory, name))
    t.notOk(content.includes('clientPass'), name)
    t.notOk(content.includes(Buffer.from(clientPassHash, 'hex')), name)
  }
})

t.test(
  'a change by another process is seen, and what did not change is not read again',
  async t => {
    const directory = join(t.testdir({}), 'state')
    const server = SqliteUserStore.open(directory)
    const command = SqliteUserStore.open(directory)
    server.add({ name: 'alice', password: secret('x') })
    t.ok(command.find('alice'))
    t.equal(server.find('alice'), server.find('alice'), 'the same object: from memory')
    command.set('alice', { isDisabled: true })
    t.equal(server.find('alice')?.isDisabled, true)
    command.delete('alice')
    t.equal(server.find('alice'), undefined)
  },
)

t.test('a failed transaction changes nothing and leaves the file usable', async t => {
  const path = join(t.testdir({}), 'x.db')
  const file = new SqliteFile(path, ['CREATE TABLE t (a INTEGER)'])
  t.throws(
    () =>
      file.transaction(transaction => {
        transaction.run('INSERT INTO t VALUES (1)')
        throw new StoreError('no')
      }),
    /no/,
  )
  t.throws(
    () => file.transaction(transaction => transaction.all('SELECT * FROM nowhere')),
    StoreError,
  )
  t.equal(
    file.transaction(transaction => transaction.run('INSERT INTO t VALUES (2)')),
    1,
  )
  t.same(
    file.transaction(transaction => transaction.all('SELECT a FROM t')),
    [{ a: 2 }],
  )
})

t.test('a schema is brought up to date once, and a newer one is refused', async t => {
  const path = join(t.testdir({}), 'x.db')
  const first = ['CREATE TABLE t (a INTEGER)', 'INSERT INTO t VALUES (1)']
  new SqliteFile(path, first).transaction(() => undefined)
  const second = [...first, 'ALTER TABLE t ADD COLUMN b INTEGER DEFAULT 7']
  for (let i = 0; i < 2; i++) {
    const rows = new SqliteFile(path, second).transaction(({ all }) => all('SELECT * FROM t'))
    t.same(rows, [{ a: 1, b: 7 }])
  }
  t.throws(() => new SqliteFile(path, first).transaction(() => undefined), /newer version/)
})

/** A process that opens the database like the server does, starts to write, and says so. */
async function writerThatHangs(directory: string, statement: string): Promise<ChildProcess> {
  const script = join(directory, 'writer.ts')
  const library = new URL('../../lib/aaa/sqlite-file.ts', import.meta.url).href
  writeFileSync(
    script,
    `import { SqliteFile } from ${JSON.stringify(library)}
const file = new SqliteFile(${JSON.stringify(join(directory, 'x.db'))}, ['CREATE TABLE t (a INTEGER)'])
file.transaction(({ run }) => {
  run(${JSON.stringify(statement)})
  console.log('written')
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 30_000)
})`,
  )
  const child = spawn(process.execPath, [...process.execArgv, script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(child.stdout ?? child, 'data')
  return child
}

t.test('a process killed in the middle of a write leaves no lock and no half of it', async t => {
  const directory = t.testdir({})
  const path = join(directory, 'x.db')
  const file = new SqliteFile(path, ['CREATE TABLE t (a INTEGER)'])
  file.transaction(({ run }) => run('INSERT INTO t VALUES (1)'))
  const child = await writerThatHangs(
    directory,
    'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 200000) INSERT INTO t SELECT x FROM c',
  )
  t.ok(existsSync(`${path}.lock`), "SQLite's own lock is there")
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.ok(existsSync(`${path}.lock`), 'and stays after the kill')
  t.same(
    file.transaction(({ all }) => all('SELECT count(*) AS n FROM t')),
    [{ n: 1 }],
  )
  t.same(
    file.transaction(({ all }) => all('PRAGMA integrity_check')),
    [{ integrity_check: 'ok' }],
  )
})

t.test('a lock whose holder lives is waited for, then reported', { timeout: 30_000 }, async t => {
  const directory = t.testdir({})
  const file = new SqliteFile(join(directory, 'x.db'), ['CREATE TABLE t (a INTEGER)'])
  const child = await writerThatHangs(directory, 'INSERT INTO t VALUES (1)')
  t.throws(() => file.transaction(() => undefined), /held by another process/)
  child.kill('SIGKILL')
  await once(child, 'exit')
  file.transaction(() => undefined)
})

t.test('a sealed secret opens only with its key, its context and whole', async t => {
  const path = join(t.testdir({}), 'secrets.key')
  const vault = KeyVault.open(path)
  const sealed = vault.seal(secret('hunter2'), 'user 1')
  t.equal(KeyVault.open(path).open(sealed, 'user 1').exposeText(), 'hunter2')
  t.notSame(vault.seal(secret('hunter2'), 'user 1'), sealed, 'a nonce of its own')
  t.throws(() => vault.open(sealed, 'user 2'), /does not open/)
  for (let i = 0; i < sealed.length; i++) {
    const broken = Uint8Array.from(sealed)
    broken[i] = (broken[i] ?? 0) ^ 1
    t.throws(() => vault.open(broken, 'user 1'), StoreError, `byte ${i}`)
  }
  t.throws(() => vault.open(sealed.slice(0, 20), 'user 1'), /known format/)
  const other = new KeyVault(new Secret(new Uint8Array(32)), new SeededRandom(1))
  t.throws(() => other.open(sealed, 'user 1'), /does not open/)
  writeFileAtomically(path, 'short')
  t.throws(() => KeyVault.open(path), /does not hold a key/)
})

t.test('files are replaced whole, and what others can read is refused', async t => {
  const directory = join(t.testdir({}), 'a', 'b')
  ensureStateDirectory(directory)
  ensureStateDirectory(directory)
  const path = join(directory, 'file')
  t.equal(readPrivateFile(path), undefined)
  writeFileAtomically(path, 'one')
  writeFileAtomically(path, utf8('two'))
  t.equal(readFileSync(path, 'utf8'), 'two')
  t.equal(modeOf(path), 0o600)
  t.notOk(createFileAtomically(path, 'three'))
  t.equal(readFileSync(path, 'utf8'), 'two')
  t.same(readdirSync(directory), ['file'], 'no temporary stays')
  chmodSync(path, 0o640)
  t.ok(readPrivateFile(path))
  chmodSync(path, 0o644)
  t.throws(() => readPrivateFile(path), /chmod 600/)
  chmodSync(directory, 0o755)
  t.throws(() => ensureStateDirectory(directory), /chmod 700/)
  t.throws(() => ensureStateDirectory(path), StoreError)
  mkdirSync(join(directory, 'sub'))
  t.throws(() => writeFileAtomically(join(directory, 'sub'), 'x'), StoreError)
  t.throws(() => writeFileAtomically(join(directory, 'none', 'x'), 'x'), StoreError)
})

t.test(
  'users of the configuration are read like those of the database, and not written',
  async t => {
    const { users = [] } = parseConfig(
      'users: [{name: Bob, password: clientPass, address: 10.0.0.7, maxSessions: 3}, {name: al, password: x}]',
      'x',
    )
    const store = new ConfigUserStore(users)
    const bob = store.find('bOB')
    t.match(bob, { name: 'Bob', ipv4Address: address('10.0.0.7'), maxSessions: 3 })
    t.same(
      store.list().map(user => user.name),
      ['al', 'Bob'],
    )
    t.same([...store.fixedAddresses()], [address('10.0.0.7')])
    if (bob === undefined) return
    const secrets = store.secretsOf(bob)
    t.equal(toHex(secrets.ntHash.expose()), clientPassHash)
    secrets.ntHash.destroy()
    secrets.password?.destroy()
    t.equal(store.secretsOf(bob).password?.exposeText(), 'clientPass', 'a copy each time')
    t.equal(store.find(store.decoy.name), undefined)
    t.equal(store.secretsOf(store.decoy).ntHash.length, 16)
    for (const write of [() => store.add(), () => store.set(), () => store.delete()]) {
      t.throws(write, /configuration document/)
    }
  },
)

import { execFile } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { parseConfig } from '../../lib/config.ts'
import { toHex } from '../../lib/core/bytes.ts'
import { BindError, CertificateError } from '../../lib/core/errors.ts'
import { createLogger } from '../../lib/core/log.ts'
import { checkServer } from '../../lib/server/check.ts'
import { insecureChoices } from '../../lib/server/insecure-choices.ts'
import {
  currentPrivileges,
  hasMoreThanNeeded,
  keptCapabilities,
  missingCapabilities,
} from '../../lib/server/privileges.ts'
import { Server } from '../../lib/server/server.ts'
import { serverAddresses, serverIpv6 } from '../../lib/server/server-addresses.ts'
import { productVersion } from '../../lib/server/version.ts'
import { persona } from '../personas/personas.ts'
import { dhcpInform, StockClient } from '../personas/stock-client.ts'
import { compileInto } from '../support/compiled.ts'
import { eventually, type LogLine, secretWord } from '../support/dial-in.ts'
import { ecdsaCertificate, rsaCertificate } from '../support/sstp-certificates.ts'

const linux = persona('sstp-client with pppd')
const certificates = { first: ecdsaCertificate(), second: rsaCertificate() }

/** The kernel names a port that is free now. */
function freePort(): Promise<number> {
  return new Promise(resolve => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' ? (address?.port ?? 0) : 0))
    })
  })
}

function writePair(directory: string, which: keyof typeof certificates): void {
  writeFileSync(join(directory, 'server.pem'), certificates[which].cert)
  writeFileSync(join(directory, 'server.key'), certificates[which].key.expose(), { mode: 0o600 })
}

interface Extras {
  readonly methods?: string
  readonly perUser?: number
  readonly users?: string
  readonly attempts?: number
  readonly mtu?: number
  readonly level?: string
}

async function setUp(t: Test) {
  // A short path: the control socket is in it.
  const directory = mkdtempSync(join(tmpdir(), 'ras-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const port = await freePort()
  writePair(directory, 'first')
  const state = join(directory, 'state')
  const config = (extras: Extras = {}) =>
    parseConfig(
      `
server: {name: vpn.example.net, listen: [127.0.0.1]}
tun: {backend: memory, mtu: ${extras.mtu ?? 1400}}
sstp: {port: ${port}, certificates: [{cert: ${directory}/server.pem, key: ${directory}/server.key}]}
ikev2: {enabled: false}
auth: {methods: [${extras.methods ?? 'mschapv2'}], lockout: {attempts: ${extras.attempts ?? 3}}}
users: [{name: alice, password: ${secretWord}}${extras.users ?? ''}]
addresses: {ipv4: [10.87.0.0/24], dns: [9.9.9.9], domain: corp.example, routes: [10.0.0.0/8], ipv6: 'fd87::/48'}
limits: {perUser: ${extras.perUser ?? 0}}
log: {level: ${extras.level ?? 'debug'}}
state: {directory: ${state}}
`,
      'test.yaml',
    )
  const lines: LogLine[] = []
  const log = createLogger('debug', { write: text => lines.push(JSON.parse(text)) })
  const make = () => new Server(config(), log, () => undefined)
  const dial = (userName = 'alice', password = secretWord) =>
    StockClient.dial(linux, { port, userName, password })
  const of = (event: string) => lines.filter(line => line.event === event)
  return { directory, state, port, config, make, dial, of, log }
}

t.test('starts, answers a call, shows it, reloads under it, and stops with nas-reboot', async t => {
  const { directory, config, make, dial, of, state } = await setUp(t)
  const server = make()
  t.teardown(() => server.stop())
  await server.start()
  t.match(server.status(), { name: 'vpn.example.net', version: productVersion, pid: process.pid })
  t.same(server.status().warnings, [])
  const client = await (await dial()).up()
  t.strictSame(client.call.certificate, certificates.first.leaf)
  await eventually(
    () => server.status().sstp?.established === 1,
    () => 'not established',
  )
  t.match(server.status().sessions, [{ userName: 'alice', state: 'up', ipv4: /^10\.87\.0\./ }])
  t.notOk(JSON.stringify(server.status()).includes(secretWord))

  client.send(dhcpInform(client.address))
  await client.until(one => one.packets.length === 1)
  const told = toHex(client.packets[0] ?? new Uint8Array(0))
  t.match(
    told,
    /0604090909090f0c636f72702e6578616d706c65f90f080a0a57000120090909090a570001ff/,
    'routes by DHCP',
  )

  writePair(directory, 'second')
  const users = `, {name: carol, password: ${secretWord}}`
  const result = await server.reload(
    config({ users, perUser: 1, methods: 'mschapv2, pap', mtu: 1300 }),
  )
  t.same(new Set(result.applied), new Set(['auth', 'certificates', 'limits', 'users']))
  t.same(result.needsRestart, ['tun'])
  t.match(server.status().warnings, [/pap/])
  t.equal(server.status().sessions.length, 1, 'the session stayed')
  const carol = await (await dial('carol')).up()
  t.strictSame(carol.call.certificate, certificates.second.leaf)
  const tooMany = await dial()
  await tooMany.until(one => one.failure !== undefined)
  t.match(tooMany.failure, /^E=649 /)
  tooMany.call.destroy()

  writeFileSync(join(directory, 'server.key'), 'no key')
  await t.rejects(server.reload(config({ level: 'error' })), CertificateError)
  t.equal(server.status().sessions.filter(one => one.state === 'up').length, 2)
  t.equal(of('reloaded').length, 1, 'nothing of it was applied')

  t.equal(server.disconnect('carol'), 1)
  await carol.until(one => one.messages.includes('call-disconnect'))
  carol.call.end()
  const stopped = server.stop()
  await client.until(one => one.messages.includes('call-disconnect'))
  client.call.end()
  await stopped
  await server.stop()
  t.same(
    of('session-down').map(line => line.cause),
    ['admin-reset', 'nas-reboot'],
  )
  t.equal(of('stopped').length, 1, 'stopping twice is stopping once')
  t.match(JSON.parse(readFileSync(join(state, 'leases.json'), 'utf8')), { version: 1 })
  t.equal(statSync(join(state, 'leases.json')).mode & 0o777, 0o600)
})

t.test('a reload keeps the lock-out, unless its own settings change', async t => {
  const { config, make, dial } = await setUp(t)
  const server = make()
  t.teardown(() => server.stop())
  await server.start()
  const attempt = async (password: string) => {
    const client = await dial('alice', password)
    await client.until(one => one.failure !== undefined || one.isUp)
    const { failure } = client
    client.call.destroy()
    return failure
  }
  for (let i = 0; i < 3; i++) await attempt('wrong')
  t.match(await attempt(secretWord), /^E=691 R=0/, 'locked')
  await server.reload(config({ perUser: 5 }))
  t.match(await attempt(secretWord), /^E=691 R=0/, 'still locked')
  await server.reload(config({ attempts: 4 }))
  t.equal(await attempt(secretWord), undefined, 'begun anew')
})

t.test('a start that fails undoes what was done, and says which address was taken', async t => {
  const { make, port, of } = await setUp(t)
  const first = make()
  await first.start()
  const second = make()
  await t.rejects(
    second.start(),
    new BindError(`cannot listen for SSTP on 127.0.0.1 port ${port}`, {}),
  )
  t.equal(of('stopped').length, 1, 'the second one')
  await first.stop()
  const third = make()
  await third.start()
  t.ok(third.status().sstp?.addresses.length === 1, 'the port is free again')
  await third.stop()
})

t.test('what can be told without starting: addresses, notes, insecure choices', async t => {
  const { config, directory } = await setUp(t)
  t.same(serverAddresses(config()), ['127.0.0.1'])
  const everywhere = parseConfig("server: {listen: ['::', 0.0.0.0, 192.0.2.1]}", 'x')
  t.same(serverAddresses(everywhere), ['::', '192.0.2.1'])
  t.equal(serverIpv6(everywhere), undefined)
  t.strictSame(serverIpv6(config()), Uint8Array.from([0xfd, 0x87, ...Array(13).fill(0), 1]))
  t.same(insecureChoices(config()), [])
  t.match(insecureChoices(config({ methods: 'pap, chap, mschapv2' })), [/pap/, /chap/])
  t.same(checkServer(config()), [])
  writeFileSync(join(directory, 'server.pem'), 'no certificate')
  t.throws(() => checkServer(config()), CertificateError)
  t.match(productVersion, /^\d+\.\d+\.\d+/)
})

const capabilities = (kept: readonly number[]) =>
  kept.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n)

t.test('privileges are read from the kernel, and what is missing is named', async t => {
  const kept = capabilities(Object.values(keptCapabilities))
  const status = (effective: bigint, noNew: number) =>
    `Uid:\t0\t0\t0\t0\nCapEff:\t${effective.toString(16)}\nCapBnd:\t${effective.toString(16)}\nNoNewPrivs:\t${noNew}\n`
  t.same(missingCapabilities(currentPrivileges(status(kept, 1))), [])
  t.same(missingCapabilities(currentPrivileges(status(1n << 12n, 1))), [
    'CAP_NET_BIND_SERVICE',
    'CAP_NET_RAW',
  ])
  t.notOk(hasMoreThanNeeded(currentPrivileges(status(kept, 1))))
  t.ok(hasMoreThanNeeded(currentPrivileges(status(kept, 0))))
  t.ok(hasMoreThanNeeded(currentPrivileges(status(kept | 1n, 1))))
})

const isRoot = process.getuid?.() === 0
const rootOnly = { skip: isRoot ? false : 'only root has something to give up' }

t.test(
  'a process that starts as root keeps three capabilities, in every thread, and still finds its files',
  rootOnly,
  async t => {
    const home = mkdtempSync(join(tmpdir(), 'ras-home-'))
    t.teardown(() => rmSync(home, { recursive: true }))
    const program = join(home, 'program')
    compileInto(program, ['lib/core', 'lib/server', 'test/server'])
    for (const name of ['koffi', '@koromix']) {
      const place = join('node_modules', name)
      if (existsSync(place)) cpSync(place, join(program, place), { recursive: true })
    }
    const script = join(program, 'test/server/privileges-process.js')
    const run = async (env: NodeJS.ProcessEnv) => {
      const args = [script, 'an argument']
      const { stdout } = await promisify(execFile)(process.execPath, args, { env, timeout: 60_000 })
      return JSON.parse(stdout)
    }
    const allowed = capabilities(Object.values(keptCapabilities))
    const dropsAll = (process: Awaited<ReturnType<typeof run>>) => {
      t.ok(process.threads.length > 1, 'Node has several threads')
      t.same(process.args, ['an argument'], 'it was started with the same arguments')
      for (const { effective, bounding, noNewPrivileges } of process.threads) {
        t.equal(BigInt(effective) & ~allowed, 0n)
        t.equal(BigInt(bounding) & ~allowed, 0n)
        t.equal(noNewPrivileges, true)
      }
    }
    chmodSync(home, 0o755)
    const [dropped, again] = await Promise.all([
      run(process.env),
      run({ ...process.env, OPENRAS_PRIVILEGES_DROPPED: '1' }),
    ])
    dropsAll(dropped)
    t.equal(again.threads[0].noNewPrivileges, currentPrivileges().noNewPrivileges)
    t.ok(
      again.pid > 0,
      'one that has executed itself does not do so again, whatever it still holds',
    )

    chownSync(home, 65_534, 65_534)
    chmodSync(home, 0o700)
    dropsAll(await run(process.env))

    chownSync(program, 65_534, 65_534)
    chmodSync(program, 0o700)
    await t.rejects(run(process.env), /run "chmod -R go\+rX .*program"/)
  },
)

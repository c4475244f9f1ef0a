import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { productVersion } from '../../lib/server/version.ts'
import { compileInto } from '../support/compiled.ts'

const program = t.testdir({})
compileInto(program, ['lib', 'bin'])
const script = join(program, 'bin/openras.js')

interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

function openras(args: readonly string[], input = ''): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, ...args])
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', chunk => {
      stdout += chunk
    })
    child.stderr.on('data', chunk => {
      stderr += chunk
    })
    child.once('error', reject)
    child.once('close', code => resolve({ code, stdout, stderr }))
    child.stdin.end(input)
  })
}

t.test('what needs no configuration: version, help, schema, and wrong command lines', async t => {
  const [version, help, schema, unknown, option] = await Promise.all([
    openras(['version']),
    openras([]),
    openras(['schema']),
    openras(['frobnicate']),
    openras(['status', '--frobnicate']),
  ])
  t.match(version, { code: 0, stdout: new RegExp(productVersion.replaceAll('.', '\\.')) })
  t.match(help, { code: 0, stdout: /openras serve/ })
  t.equal(schema.code, 0)
  t.match(JSON.parse(schema.stdout), { properties: { sstp: {}, users: {}, addresses: {} } })
  t.match(unknown, { code: 2, stdout: '', stderr: /there is no command "frobnicate"/ })
  t.match(option, { code: 2, stdout: '', stderr: /frobnicate/ })
})

t.test('init makes everything once; check, user and status work with what it made', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'ras-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const state = join(directory, 'state')
  const path = join(directory, 'openras.yaml')
  const config = ['--config', path]
  const first = await openras(['init', ...config, '--state', state])
  t.match(first, { code: 0, stderr: '' })
  const password = /password +(\S{20}) /.exec(first.stdout)?.[1] ?? ''
  t.not(password, '', 'the password is shown')
  const text = readFileSync(path, 'utf8')
  t.notOk(text.includes(password), 'and not kept in the configuration')
  t.ok(existsSync(state))

  const bad = join(directory, 'bad.yaml')
  writeFileSync(bad, 'sstp:\n  prot: 443\n  port: 70000\n')
  const word = 'Canary-of-the-commands'
  const [second, check, wrong, absent, status, add, longer] = await Promise.all([
    openras(['init', ...config]),
    openras(['check', ...config]),
    openras(['check', '--config', bad]),
    openras(['check', '--config', join(directory, 'absent.yaml')]),
    openras(['status', ...config]),
    openras(
      ['user', 'add', 'alice', '--password-stdin', '--address', '10.87.0.50', ...config],
      `${word}\r\n`,
    ),
    openras(['user', 'add', 'bob', 'eve', ...config]),
  ])
  t.match(second, { code: 2, stderr: /exists: it is left as it is/ })
  t.equal(readFileSync(path, 'utf8'), text)
  t.match(check, { code: 0, stdout: /openras\.yaml is good/ })
  t.match(wrong, { code: 2, stdout: '', stderr: /sstp\.port/ })
  t.match(wrong.stderr, /bad\.yaml:2.*prot/s, 'with the line')
  t.match(absent, { code: 2, stderr: /there is no configuration/ })
  t.match(status, { code: 3, stdout: '' })
  t.match(add, { code: 0, stderr: '' })
  t.match(longer, { code: 2, stderr: /unexpected argument "eve"/ })

  const listed = await openras(['user', 'list', '--json', ...config])
  t.match(JSON.parse(listed.stdout), [
    { name: 'alice', address: '10.87.0.50', state: 'enabled' },
    { name: 'vpn' },
  ])
  const [set, twice, empty, nobody] = await Promise.all([
    openras(['user', 'set', 'vpn', '--disable', ...config]),
    openras(['user', 'add', 'ALICE', '--password-stdin', ...config], 'x\n'),
    openras(['user', 'add', 'dora', '--password-stdin', ...config], '\n'),
    openras(['user', 'delete', 'nobody', ...config]),
  ])
  t.equal(set.code, 0, set.stderr)
  t.equal(twice.code, 1)
  t.match(twice.stderr, /alice/i)
  t.match(empty, { code: 2, stderr: /the password is empty/ })
  t.match(nobody, { code: 1, stderr: /there is no user "nobody"/ })
  t.equal((await openras(['user', 'delete', 'alice', ...config])).code, 0)
  const left = await openras(['user', 'list', '--json', ...config])
  t.match(JSON.parse(left.stdout), [{ name: 'vpn', state: 'disabled' }])
  const said = JSON.stringify([add, listed, left, status, twice])
  t.notOk(said.includes(word), 'nothing repeats a password')
})

/** What a server says that is ended once it has said all. */
async function greetingOf(t: Test, config: string): Promise<string> {
  const child = spawn(process.execPath, [script, 'serve', '--config', config])
  t.teardown(() => child.kill('SIGKILL'))
  const ended = new Promise(resolve => child.once('close', resolve))
  let stdout = ''
  for await (const chunk of child.stdout) {
    stdout += chunk
    if (stdout.includes('Stop with Ctrl-C')) child.kill('SIGTERM')
  }
  t.equal(await ended, 0)
  return stdout
}

t.test('a server without TLS and IKEv2 needs no certificate and offers what is on', async t => {
  if (process.getuid?.() !== 0) return
  const directory = mkdtempSync(join(tmpdir(), 'ras-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'openras.yaml')
  const text = `
server: {name: vpn.example.net, listen: [127.77.0.1]}
tun: {backend: memory}
sstp: {enabled: false}
ikev2: {enabled: false}
pptp: {enabled: PPTP}
addresses: {ipv4: [10.87.0.0/24]}
state: {directory: ${join(directory, 'state')}, controlSocket: ${join(directory, 'sock')}}
`
  writeFileSync(path, text.replace('PPTP', 'false'), { mode: 0o600 })
  const nothing = await greetingOf(t, path)
  t.match(nothing, /Warning +.* all off: nobody can dial in/)
  t.notMatch(nothing, /Dial|sstpc|rasdial/)
  writeFileSync(path, text.replace('PPTP', 'true'))
  const pptp = await greetingOf(t, path)
  t.match(pptp, /PPTP +127\.77\.0\.1 port 1723/)
  t.match(pptp, /Add-VpnConnection .*-TunnelType Pptp .*\n +rasdial 'vpn.example.net PPTP' USER/)
  t.notMatch(pptp, /Dial as|Import-Certificate|sstpc/)
})

t.test('serve says how to dial in, and ends with the signal TERM', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'ras-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'openras.yaml')
  const taken = createServer()
  await new Promise<void>(resolve => {
    taken.listen(0, '127.0.0.1', resolve)
  })
  const address = taken.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  const text = `
server: {name: vpn.example.net, listen: [127.0.0.1]}
tun: {backend: memory}
sstp: {port: ${port}}
ikev2: {enabled: false}
addresses: {ipv4: [10.87.0.0/24]}
state: {directory: ${join(directory, 'state')}, controlSocket: ${join(directory, 'sock')}}
`
  writeFileSync(path, text, { mode: 0o600 })
  const refused = await openras(['serve', '--config', path])
  taken.close()
  if (process.getuid?.() !== 0) {
    t.match(refused, { code: 1, stderr: /run this as root, or give the process CAP_/ })
    return
  }
  t.match(refused, { code: 1, stderr: new RegExp(`openras: .*${port}.*\n.*ss -ltunp shows`) })

  const stdout = await greetingOf(t, path)
  t.match(stdout, /Dial as +vpn\.example\.net/, 'the names of the certificate')
  t.match(stdout, new RegExp(`sstpc --ca-cert ca.pem --user USER .* vpn.example.net:${port} `))
  t.match(stdout, /Who is connected: openras status/)
})

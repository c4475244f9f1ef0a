#!/usr/bin/env node
// Gets a machine ready and then runs what was asked for: `npm start`, `npm test`, `npm run interop`
// and `npm run bench` come here. Plain JavaScript without dependencies, because it runs before the
// npm packages are installed and before anything is compiled. Every step looks first and does
// nothing when there is nothing to do, so the second run is quick.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { delimiter, dirname, join, relative } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const oldestNode = [20, 19]

/** Command -> Debian package that brings it, by what is going to run. */
const serverTools = { ip: 'iproute2', nft: 'nftables' }
const testTools = { ...serverTools, ping: 'iputils-ping' }
const tools = {
  start: serverTools,
  test: testTools,
  interop: {
    ...testTools,
    dnsmasq: 'dnsmasq-base',
    iperf3: 'iperf3',
    mmdebstrap: 'mmdebstrap',
    openssl: 'openssl',
    freeradius: 'freeradius',
    radclient: 'freeradius-utils',
    setsid: 'util-linux',
  },
  bench: { ...testTools, iperf3: 'iperf3', freeradius: 'freeradius' },
}

/** A sentence for people; no stack. */
class SetupError extends Error {}

const startedMs = performance.now()
let didWork = false

function say(text) {
  process.stderr.write(`openras: ${text}\n`)
}

/** Runs one step and prints how long it took. What it makes can be read by everybody, whatever our own files may. */
async function step(title, work) {
  didWork = true
  say(`${title} ...`)
  const beganMs = performance.now()
  const umask = process.umask(0o022)
  await work()
  process.umask(umask)
  say(`${title}: done in ${((performance.now() - beganMs) / 1000).toFixed(1)} s`)
}

/** Runs a command with its output on our standard error; resolves to its exit code. */
function run(command, args, env = {}, output = 2) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', output, output],
    })
    child.on('error', reject)
    child.on('exit', (code, signal) => resolve(signal === null ? code : 1))
  })
}

/** Runs a command without output; resolves to its exit code and what it said on standard error. */
function listenTo(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.setEncoding('utf8').on('data', text => {
      said += text
    })
    child.on('error', reject)
    child.on('close', code => resolve({ code, said }))
  })
}

/** What npm calls a registry that it cannot talk to. */
const networkFaults =
  /\b(EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH)\b/

function isRoot() {
  return process.getuid?.() === 0
}

/** CAP_NET_ADMIN is bit 12 of the effective set. */
function hasNetAdmin() {
  const line = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))
  return line !== null && ((BigInt(`0x${line[1]}`) >> 12n) & 1n) === 1n
}

function hasCommand(name) {
  const path = (process.env.PATH ?? '').split(delimiter)
  return [...path, '/usr/sbin', '/sbin', '/usr/bin', '/bin'].some(folder => {
    try {
      accessSync(join(folder, name), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

function checkMachine(command) {
  if (process.platform !== 'linux') {
    throw new SetupError(`OpenRAS runs on Linux only, and this is ${process.platform}.`)
  }
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < oldestNode[0] || (major === oldestNode[0] && minor < oldestNode[1])) {
    throw new SetupError(
      `Node ${oldestNode.join('.')} or newer is needed, and this is ${process.versions.node}: README.md, Start, says how to get it.`,
    )
  }
  if (command === 'start' && !isRoot() && !hasNetAdmin()) {
    throw new SetupError('Opening a TUN device needs root or CAP_NET_ADMIN: run "sudo npm start".')
  }
  if ((command === 'interop' || command === 'bench') && !isRoot()) {
    throw new SetupError(`Network namespaces need root: run "sudo npm run ${command}".`)
  }
}

async function needTun() {
  if (existsSync('/dev/net/tun')) return
  if (hasCommand('modprobe')) spawnSync('modprobe', ['tun'], { stdio: 'ignore' })
  if (existsSync('/dev/net/tun')) return
  throw new SetupError(
    'There is no /dev/net/tun: load the module with "modprobe tun", or give the container the device (docker: --device /dev/net/tun --cap-add NET_ADMIN).',
  )
}

async function needTools(command) {
  const wanted = Object.entries(tools[command])
  const packages = [...new Set(wanted.filter(([name]) => !hasCommand(name)).map(([, pkg]) => pkg))]
  if (packages.length === 0) return
  const list = packages.join(' ')
  if (!hasCommand('apt-get')) {
    throw new SetupError(
      `These Debian packages are missing and there is no apt-get here: ${list}. Install what brings the commands ${wanted.map(([name]) => name).join(', ')}.`,
    )
  }
  if (!isRoot()) {
    if (command === 'test') {
      say(`without root some tests are skipped; they also need: apt-get install ${list}`)
      return
    }
    throw new SetupError(`Debian packages are missing: run "sudo apt-get install ${list}".`)
  }
  const env = { DEBIAN_FRONTEND: 'noninteractive' }
  const apt = ['-o', 'DPkg::Lock::Timeout=600', '-qq', '-y']
  await step(`installing Debian packages ${list}`, async () => {
    // The package lists may be absent (containers) or too old; a first failure says so.
    const install = [...apt, 'install', '--no-install-recommends', ...packages]
    if (hasPackageLists() && (await run('apt-get', install, env)) === 0) return
    if (
      (await run('apt-get', [...apt, 'update'], env)) !== 0 ||
      (await run('apt-get', install, env)) !== 0
    ) {
      throw new SetupError(
        `apt-get could not install ${list}: check the network and /etc/apt/sources.list, then run it again.`,
      )
    }
  })
}

function hasPackageLists() {
  try {
    return readdirSync('/var/lib/apt/lists').some(
      name => name.endsWith('_Packages') || name.endsWith('.lz4'),
    )
  } catch {
    return false
  }
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(join(root, path), 'utf8'))
  } catch {
    return undefined
  }
}

function sameRecord(a = {}, b = {}) {
  const names = Object.keys(a)
  return names.length === Object.keys(b).length && names.every(name => a[name] === b[name])
}

/** Whether node_modules holds exactly what the lock file names, optional packages aside. */
function isInstalled(lock) {
  const installed = readJson('node_modules/.package-lock.json')?.packages
  if (installed === undefined) return false
  const wanted = lock?.packages ?? {}
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === '' || entry.optional || entry.devOptional) continue
    if (installed[path]?.version !== entry.version || !existsSync(join(root, path))) return false
  }
  return Object.keys(installed).every(path => wanted[path]?.version === installed[path].version)
}

async function needPackages() {
  const lock = readJson('package-lock.json')
  if (isInstalled(lock)) return
  const own = readJson('package.json')
  const locked = lock?.packages?.['']
  const matches =
    locked !== undefined &&
    sameRecord(locked.dependencies, own.dependencies) &&
    sameRecord(locked.devDependencies, own.devDependencies)
  if (!hasCommand('npm')) {
    throw new SetupError('npm is missing: apt-get install npm, or install Node from nodejs.org.')
  }
  await step('installing npm packages', async () => {
    const args = ['--include=dev', '--no-audit', '--no-fund', '--loglevel=error']
    // Without a network npm asks for every package thrice before it says so. Registries without `ping` refuse it.
    const ping = await listenTo('npm', ['ping', '--fetch-retries=0', '--loglevel=error'])
    const fault = networkFaults.exec(ping.said)
    if (fault !== null) {
      throw new SetupError(
        `npm cannot reach its registry (${fault[0]}): check the network with "npm ping", then run it again.`,
      )
    }
    // npm itself writes lock files that its `ci` refuses; `install` mends them.
    const isDone =
      (matches && (await run('npm', ['ci', ...args], {}, 'ignore')) === 0) ||
      (await run('npm', ['install', ...args])) === 0
    if (!isDone) {
      throw new SetupError('npm could not install the packages; what it says of it is above.')
    }
    await giveToOwner('node_modules')
  })
}

/** What root makes in a user's folder belongs to that user. */
async function giveToOwner(path) {
  const { uid, gid } = statSync(join(root, 'package.json'))
  if (isRoot() && uid !== 0) await run('chown', ['-R', `${uid}:${gid}`, path])
}

/** Every file below the folders that the compiler reads, with its age and size. */
function* sources() {
  const waiting = ['lib', 'bin', 'bench', 'test']
  for (let folder = waiting.pop(); folder !== undefined; folder = waiting.pop()) {
    if (!existsSync(join(root, folder))) continue
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = join(folder, entry.name)
      if (entry.isDirectory()) waiting.push(path)
      else if (path.endsWith('.ts')) yield path
    }
  }
}

function sourceStamp() {
  const hash = createHash('sha256').update(process.versions.node)
  const paths = [...sources(), 'tsconfig.json', 'package-lock.json']
  for (const path of paths.sort((a, b) => (a < b ? -1 : 1))) {
    const { mtimeMs, size } = statSync(join(root, path))
    hash.update(`${path}\0${mtimeMs}\0${size}\n`)
  }
  return hash.digest('hex')
}

/** Removes what was compiled from sources that are gone; the compiler leaves it lying. */
function pruneBuild() {
  const waiting = ['lib', 'bin', 'bench', 'test']
  for (let folder = waiting.pop(); folder !== undefined; folder = waiting.pop()) {
    const built = join(root, 'dist', folder)
    if (!existsSync(built)) continue
    for (const entry of readdirSync(built, { withFileTypes: true })) {
      const path = join(folder, entry.name)
      const source = join(root, path).replace(/\.js(\.map)?$/, '.ts')
      if (entry.isDirectory()) waiting.push(path)
      else if (!existsSync(source)) rmSync(join(built, entry.name))
    }
  }
}

async function needBuild() {
  const stampFile = join(root, 'dist/.stamp')
  const stamp = sourceStamp()
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return
  await step('compiling (tsc)', async () => {
    const tsc = join(root, 'node_modules/typescript/bin/tsc')
    if ((await run(process.execPath, [tsc, '-p', join(root, 'tsconfig.json')])) !== 0) {
      throw new SetupError('The sources do not compile; the errors are above.')
    }
    pruneBuild()
    mkdirSync(join(root, 'dist'), { recursive: true })
    writeFileSync(stampFile, stamp)
    await giveToOwner('dist')
  })
}

/** Runs a program with our terminal; resolves to its exit code. Signals reach it through us. */
function handOver(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: 'inherit', ...options })
    const pass = signal => child.kill(signal)
    // A terminal sends Ctrl-C to the child as well; then it only must not end us first.
    process.on('SIGINT', signal => process.stdin.isTTY || pass(signal))
    process.on('SIGTERM', pass)
    process.on('SIGHUP', pass)
    child.on('error', reject)
    child.on('exit', (code, signal) =>
      resolve(signal === null ? code : 128 + (signalNumbers[signal] ?? 0)),
    )
  })
}

/**
 * Runs a program that writes TAP, without a terminal: all of it goes into the file `path`, and one
 * line per test file, the skipped tests and the failures with their details to standard output.
 */
async function digest(command, args, path) {
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', (code, signal) => resolve(signal === null ? code : 1))
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  const file = openSync(path, 'w')
  let isFailure = false
  for await (const line of createInterface({ input: child.stdout })) {
    writeSync(file, `${line}\n`)
    if (/^ *not ok /.test(line) && !/# (SKIP|TODO)/.test(line)) isFailure = true
    else if (/^ *(# Subtest|ok |1\.\.)/.test(line)) isFailure = false
    if (isFailure || /^ok |^ *ok .*# SKIP|^Bail out!/.test(line)) process.stdout.write(`${line}\n`)
  }
  closeSync(file)
  return ended
}

/** The totals that tap writes below its results: `# { total: 4, pass: 3, skip: 1 }`. */
function countResults(path) {
  const text = existsSync(path) ? readFileSync(path, 'utf8') : ''
  const totals = [...text.matchAll(/^# (\{ total: .*\})$/gm)].at(-1)?.[1] ?? ''
  const number = name => Number(new RegExp(`\\b${name}: (\\d+)`).exec(totals)?.[1] ?? 0)
  return { passed: number('pass'), failed: number('fail') }
}

const signalNumbers = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGSEGV: 11, SIGTERM: 15 }

/** What each command does once the machine is ready; resolves to the exit code. */
const commands = {
  async start(args) {
    // In this very process: signals, terminal and exit code are the server's own, and nothing is
    // left running when the process is killed.
    const program = join(root, 'dist/bin/openras.js')
    if (!existsSync(program)) throw new SetupError(`${relative(root, program)} was not built.`)
    process.argv.splice(1, process.argv.length, program, 'serve', ...args)
    await import(pathToFileURL(program).href)
    return undefined
  },

  async test(args) {
    const biome = join(root, 'node_modules/@biomejs/biome/bin/biome')
    const colors = process.stdout.isTTY ? [] : ['--colors=off']
    const lint = [biome, 'ci', ...colors, '--diagnostic-level=warn', '.']
    const lintCode = await handOver(process.execPath, lint)
    if (lintCode !== 0) return lintCode
    const tap = [join(root, 'node_modules/tap/dist/esm/run.mjs'), '--disable-coverage']
    const results = join(root, '.tap/last-run.tap')
    mkdirSync(dirname(results), { recursive: true })
    rmSync(results, { force: true })
    const code = process.stdout.isTTY
      ? await handOver(process.execPath, [...tap, `--output-file=${results}`, ...args])
      : await digest(process.execPath, [...tap, '--reporter=tap', ...args], results)
    await giveToOwner('.tap')
    const { passed, failed } = countResults(results)
    process.stdout.write(`${passed} passed, ${failed} failed\n`)
    return code === 0 && failed > 0 ? 1 : code
  },

  interop: args => handOver(process.execPath, [join(root, 'dist/test/interop/run.js'), ...args]),

  bench: args =>
    handOver(process.execPath, ['--expose-gc', join(root, 'dist/bench/harness.js'), ...args]),
}

async function main() {
  const [command, ...args] = process.argv.slice(2)
  if (command === undefined || !Object.hasOwn(commands, command)) {
    throw new SetupError(`usage: prepare.mjs ${Object.keys(commands).join('|')} [arguments]`)
  }
  checkMachine(command)
  if (command !== 'test') await needTun()
  await needTools(command)
  await needPackages()
  await needBuild()
  if (didWork) say(`ready after ${((performance.now() - startedMs) / 1000).toFixed(1)} s`)
  const code = await commands[command](args)
  if (code !== undefined) process.exitCode = code
}

try {
  await main()
} catch (error) {
  if (!(error instanceof SetupError)) throw error
  say(error.message)
  process.exitCode = 69
}

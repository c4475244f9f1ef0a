/**
 * The house rules (ARCHITECTURE.md), as data and as tests: who may import whom, who may do I/O, what
 * files are called and how long they get.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** A room stands above all that it imports. */
const floors: Readonly<Record<string, number>> = {
  core: 1,
  crypto: 2,
  address: 2,
  certificates: 2,
  cluster: 2,
  config: 2,
  eap: 3,
  ipsec: 3,
  aaa: 3,
  dataplane: 3,
  ppp: 4,
  ikev1: 4,
  ikev2: 4,
  routing: 4,
  sstp: 5,
  l2tp: 5,
  pptp: 5,
  tenant: 5,
  server: 6,
  control: 7,
}

const protocols = ['sstp', 'l2tp', 'pptp', 'ikev1', 'ikev2', 'ppp']

/** L2TP/IPsec is L2TP inside what IKEv1 negotiates; carriers carry PPP. */
const protocolsBelow: Readonly<Record<string, readonly string[]>> = {
  sstp: ['ppp'],
  l2tp: ['ppp', 'ikev1'],
  pptp: ['ppp'],
}

/** The only parts of `core` that a codec needs. */
const wireMayImport = ['lib/core/bytes.ts', 'lib/core/faults.ts', 'lib/core/ip-address.ts']

const ioModules = [
  ...['node:net', 'node:tls', 'node:dgram', 'node:http', 'node:https', 'node:http2', 'node:dns'],
  ...['node:fs', 'node:fs/promises', 'node:child_process', 'node:worker_threads', 'node:readline'],
  ...['node:timers', 'node:timers/promises', 'koffi', 'raw-socket', 'node-sqlite3-wasm'],
]

/** Text tests of `node:net` that touch no network. */
const harmlessNames = ['isIP', 'isIPv4', 'isIPv6']

/** Whole rooms at the edge of the process, and single files of the other rooms. */
const ioRooms = [
  ...['dataplane', 'aaa', 'address', 'certificates', 'routing', 'control', 'server'],
  ...['tenant', 'cluster'],
]
const ioFiles = [
  /^lib\/(sstp|l2tp|pptp|ikev1|ikev2)\/([a-z0-9-]+-)?(listener|acceptor|dialler)\.ts$/,
  /^lib\/config\/(state-directory|load|file)[a-z-]*\.ts$/,
  // The doors to OpenSSL and to memory shared with it.
  /^lib\/crypto\//,
]

const longestFileLines = 600
const forbiddenNames = ['utils', 'util', 'helpers', 'helper', 'common', 'types', 'misc']

interface Import {
  /** A path below the project, or the name of a package. */
  readonly target: string
  readonly isTypeOnly: boolean
  readonly names: readonly string[]
}

interface Source {
  readonly path: string
  readonly text: string
  readonly imports: readonly Import[]
}

function* walk(folder: string): Generator<string> {
  if (!existsSync(join(root, folder))) return
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = `${folder}/${entry.name}`
    if (entry.isDirectory()) yield* walk(path)
    else yield path
  }
}

function readSource(path: string): Source {
  const text = readFileSync(join(root, path), 'utf8')
  const statement = /^(?:import|export)\s+(type\s+)?([^'";]*?)\s*from\s+'([^']+)'/gm
  const imports: Import[] = []
  for (const [, type, clause = '', specifier = ''] of text.matchAll(statement)) {
    imports.push({
      target: resolveImport(path, specifier),
      isTypeOnly: type !== undefined,
      names: clause
        .replace(/[{}]/g, '')
        .split(',')
        .map(name => name.trim())
        .filter(name => name !== '' && !name.startsWith('type ')),
    })
  }
  for (const [, specifier = ''] of text.matchAll(/^import\s+'([^']+)'|\bimport\('([^']+)'\)/gm)) {
    imports.push({ target: resolveImport(path, specifier), isTypeOnly: false, names: [] })
  }
  return { path, text, imports }
}

function resolveImport(from: string, specifier: string): string {
  if (!specifier.startsWith('.')) return specifier
  return relative(root, resolve(root, dirname(from), specifier))
}

/** `lib/sstp/wire/x.ts` -> `sstp`, `lib/config.ts` -> `config`. */
function roomOf(path: string): string | undefined {
  return /^lib\/([a-z0-9-]+)/.exec(path)?.[1]
}

/** The text without comments, so that prose may name what code may not. */
function codeOf(text: string): string {
  return text.replace(/\/\*(?:.|\n)*?\*\/|(?<![:'"`])\/\/.*$/gm, '')
}

const lib = [...walk('lib')].filter(path => path.endsWith('.ts')).map(readSource)
const inWire = lib.filter(({ path }) => path.includes('/wire/'))

/** `from -> target` for every import that is forbidden. */
function offences(
  sources: readonly Source[],
  isForbidden: (target: string, source: Source, one: Import) => boolean,
): string[] {
  return sources.flatMap(source =>
    source.imports
      .filter(one => isForbidden(one.target, source, one))
      .map(one => `${source.path} -> ${one.target}`),
  )
}

t.test('every room has a floor', async t => {
  const rooms = new Set(lib.map(({ path }) => roomOf(path)))
  t.same(
    [...rooms].filter(room => room !== undefined && floors[room] === undefined),
    [],
  )
  t.ok(lib.length > 20, 'the sources were found')
  t.ok(lib.flatMap(({ imports }) => imports).length > lib.length, 'and their imports')
})

t.test('a room imports from its own floor and below only', async t => {
  const floorOf = (path: string) => floors[roomOf(path) ?? ''] ?? 0
  t.same(
    offences(lib, (target, { path }) => floorOf(target) > floorOf(path)),
    [],
  )
  t.same(
    offences(lib, target => /^(bin|test|bench)\//.test(target)),
    [],
    'and never what is built on it',
  )
})

t.test('a protocol never imports a sibling', async t => {
  t.same(
    offences(lib, (target, { path }) => {
      const [own = '', other = ''] = [roomOf(path), roomOf(target)]
      if (own === other || !protocols.includes(own) || !protocols.includes(other)) return false
      return !(protocolsBelow[own] ?? []).includes(other)
    }),
    [],
  )
})

t.test('wire imports its own wire, bytes, faults and addresses only', async t => {
  t.same(
    offences(inWire, (target, { path }) => {
      const ownWire = path.slice(0, path.indexOf('/wire/') + '/wire/'.length)
      return !target.startsWith(ownWire) && !wireMayImport.includes(target)
    }),
    [],
  )
})

t.test('core imports nothing of ours but core', async t => {
  const core = lib.filter(({ path }) => roomOf(path) === 'core')
  t.same(
    offences(core, target => target.startsWith('lib/') && roomOf(target) !== 'core'),
    [],
  )
})

t.test('ppp names no carrier, dataplane no protocol', async t => {
  const naming = (room: string, words: RegExp) =>
    lib
      .filter(({ path, text }) => roomOf(path) === room && words.test(codeOf(text)))
      .map(({ path }) => path)
  t.same(naming('ppp', /\b(sstp|l2tp|pptp|pppoe)/i), [])
  t.same(naming('dataplane', /\b(sstp|l2tp|pptp|ikev[12]|ppp|esp)\b/i), [])
})

t.test('only the edges do I/O', async t => {
  const mayDoIo = (path: string) =>
    ioRooms.includes(roomOf(path) ?? '') || ioFiles.some(pattern => pattern.test(path))
  t.same(
    offences(lib, (target, { path }, { isTypeOnly, names }) => {
      if (isTypeOnly || !ioModules.includes(target) || mayDoIo(path)) return false
      return names.length === 0 || names.some(name => !harmlessNames.includes(name))
    }),
    [],
  )
})

t.test('only core/clock reads the time, only core/random makes randomness', async t => {
  const uses = (words: RegExp, ...allowed: string[]) =>
    lib
      .filter(({ path, text }) => words.test(codeOf(text)) && !allowed.includes(path))
      .map(({ path }) => path)
  t.same(uses(/\b(Date\.now|performance\.now|process\.hrtime)\b/, 'lib/core/clock.ts'), [])
  t.same(uses(/\bMath\.random\b/), [])
})

t.test('files are named for one noun and stay short', async t => {
  const paths = ['lib', 'bin', 'bench', 'test'].flatMap(folder => [...walk(folder)])
  const baseName = (path: string) => path.split('/').at(-1)?.split('.')[0] ?? ''
  t.same(
    paths.filter(path => forbiddenNames.includes(baseName(path))),
    [],
  )
  t.same(
    lib
      .filter(({ text }) => text.split('\n').length - 1 > longestFileLines)
      .map(({ path }) => path),
    [],
    `at most ${longestFileLines} lines`,
  )
  t.same(
    lib
      .filter(({ path, text }) => path.endsWith('/index.ts') && !isBarrel(text))
      .map(({ path }) => path),
    [],
    'an index.ts only exports',
  )
})

function isBarrel(text: string): boolean {
  return (
    codeOf(text)
      .replace(/^(?:export|import)\s[^;]*?from\s+'[^']+'/gm, '')
      .trim() === ''
  )
}

t.test('every file is reached by the tests of its own room', async t => {
  const sources = new Map(lib.map(source => [source.path, source]))
  const reached = (room: string) => {
    const seen = new Set<string>()
    const mirrors = [...walk(`test/${room}`), `test/${room}.test.ts`].filter(
      path => path.endsWith('.ts') && existsSync(join(root, path)),
    )
    const waiting = mirrors.flatMap(path => readSource(path).imports.map(({ target }) => target))
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
      if (seen.has(path)) continue
      seen.add(path)
      waiting.push(...(sources.get(path)?.imports ?? []).map(({ target }) => target))
    }
    return seen
  }
  const rooms = new Set(lib.flatMap(({ path }) => roomOf(path) ?? []))
  for (const room of rooms) {
    const seen = reached(room)
    const own = lib.filter(({ path }) => roomOf(path) === room && !path.endsWith('/index.ts'))
    t.same(
      own.map(({ path }) => path).filter(path => !seen.has(path)),
      [],
      room,
    )
  }
})

t.test('a test file stands where its source stands', async t => {
  const folders = new Set(lib.map(({ path }) => dirname(path).replace(/^lib/, 'test')))
  const strays = [...walk('test')]
    .filter(path => path.endsWith('.test.ts') && path.split('/').length > 2)
    .filter(path => !folders.has(dirname(path)))
    .filter(path => !/^test\/(personas|interop|fuzz|soak|support|bench|bin)\//.test(path))
  t.same(strays, [])
})

t.test('nothing names the place where it was written', async t => {
  const parent = dirname(root)
  const ordinary = ['/', '/tmp', '/root', '/home', '/opt', '/srv', '/usr/src', '/builds']
  const places = [root, ...(ordinary.includes(parent) ? [] : [`${parent}/`])]
  const files = ['lib', 'bin', 'bench', 'test', '.ci', 'docs']
    .flatMap(folder => [...walk(folder)])
    .concat(readdirSync(root).filter(name => /\.(md|json)$/.test(name)))
    .filter(path => path !== 'package-lock.json')
  t.same(
    files.filter(path => {
      const text = readFileSync(join(root, path), 'utf8')
      return places.some(place => text.includes(place))
    }),
    [],
  )
})

import { format, inspect } from 'node:util'
import t from 'tap'
import { createLogger, logLevels, silentLogger } from '../../lib/core/log.ts'
import { Secret, wipe } from '../../lib/core/secret.ts'

const text = 'correct horse'
const seen = /correct|horse|99,111,114|636f7272/

t.test('no way of printing shows a secret', async t => {
  const secret = Secret.fromText(text)
  const holder = { user: 'alice', deep: [{ secret }], map: new Map([['k', secret]]) }
  const prints: Record<string, string> = {
    'String()': String(secret),
    template: `${secret}`,
    concatenation: `${secret}`.concat(''),
    'JSON.stringify': JSON.stringify({ holder }),
    inspect: inspect(holder, { depth: 9, showHidden: true, getters: true }),
    '%s': format('%s', secret),
    '%o': format('%o', holder),
    '%O': format('%O', holder),
    '%j': format('%j', holder),
    spread: inspect({ ...secret }),
    entries: inspect(Object.entries(secret)),
    error: String(new Error(`no ${secret}`)),
  }
  for (const [way, printed] of Object.entries(prints)) t.notMatch(printed, seen, way)
  t.match(prints['%s'], '[secret]')
})

t.test('no log line shows a secret, nor what is named like one', async t => {
  const lines: string[] = []
  const log = createLogger('debug', {
    write: line => {
      lines.push(line)
    },
  })
  const secret = Secret.fromText(text)
  log.info({ secret, user: { password: text, ntHash: text }, psk: text }, 'dialled %s', secret)
  log.child({ session: { key: text, secret } }).debug({ list: [secret] }, 'child')
  log.error({ err: new Error('x', { cause: { secret } }) }, 'failed %o', { secret })
  t.equal(lines.length, 3)
  for (const line of lines) t.notMatch(line, seen)
  t.match(JSON.parse(lines[0] ?? ''), { level: 'info', msg: 'dialled [secret]' })
  t.notMatch(JSON.parse(lines[0] ?? ''), { pid: Number }, 'no pid, no host name')
})

t.test('levels are respected, and silence is silent', async t => {
  const lines: string[] = []
  const log = createLogger('warn', {
    write: line => {
      lines.push(line)
    },
  })
  log.info('unheard')
  log.warn('heard')
  t.equal(lines.length, 1)
  t.ok(logLevels.includes('silent'))
  t.equal(silentLogger.level, 'silent')
  t.equal(createLogger('error').level, 'error', 'standard error by default')
})

t.test('a secret is a copy, can be compared, and is gone once destroyed', async t => {
  const bytes = new TextEncoder().encode(text)
  const secret = new Secret(bytes)
  wipe(bytes)
  t.ok(bytes.every(byte => byte === 0))
  t.equal(secret.exposeText(), text)
  t.equal(secret.length, text.length)
  t.ok(secret.equals(Secret.fromText(text)))
  t.notOk(secret.equals(Secret.fromText('correct Horse')))
  t.notOk(secret.equals(Secret.fromText('')))
  const lent = secret.lend(copy => copy)
  t.ok(
    lent.every(byte => byte === 0),
    'what was lent is overwritten',
  )
  t.equal(
    secret.lend(copy => copy.length),
    text.length,
  )
  t.throws(() =>
    secret.lend(copy => {
      lent.set(copy)
      throw new Error('no use')
    }),
  )
  t.equal(secret.exposeText(), text, 'and the secret is what it was')
  const exposed = secret.expose()
  secret.destroy()
  t.ok(
    exposed.every(byte => byte === 0),
    'the memory itself is overwritten',
  )
  t.equal(secret.length, 0)
  t.equal(secret.exposeText(), '')
})

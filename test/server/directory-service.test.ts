import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { LdapAuthenticator } from '../../lib/aaa/ldap/ldap-authenticator.ts'
import { Lockout } from '../../lib/aaa/lockout.ts'
import { ConfigUserStore } from '../../lib/aaa/users/config-user-store.ts'
import { parseConfig } from '../../lib/config.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { ConfigError } from '../../lib/core/errors.ts'
import { silentLogger } from '../../lib/core/log.ts'
import { Secret } from '../../lib/core/secret.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { makeDirectory } from '../../lib/server/directory-service.ts'
import { insecureChoices } from '../../lib/server/insecure-choices.ts'

const clock = new ManualClock()
const parts = { clock, wheel: new TimerWheel(0), log: silentLogger }
const configOf = (more = '') =>
  parseConfig(`ldap: {servers: ['ldap://127.0.0.1:1'], bindAs: 'uid={user}', ${more}}`, 'x')

t.test('a directory stands beside the local users when there is one', async t => {
  t.equal(makeDirectory(parseConfig('', 'x'), parts), undefined)
  const beside = makeDirectory(configOf(), parts)
  const { auth, users = [] } = parseConfig('users: [{name: root, password: of root}]', 'x')
  const judge = beside?.({
    local: {
      authenticate: async () => ({ type: 'reject', reason: 'no-dial-in', canRetry: false }),
    },
    users: new ConfigUserStore(users),
    methods: ['pap'],
    lockout: new Lockout(auth.lockout, clock),
  })
  t.ok(judge instanceof LdapAuthenticator)
  const ask = (userName: string, password: string) =>
    judge?.authenticate({
      userName,
      proof: { method: 'pap', password: Secret.fromText(password) },
      call: { protocol: 'sstp', peerAddress: '198.51.100.7', sessionId: 's' },
    })
  t.match(await ask('root', 'x'), { reason: 'no-dial-in' }, 'one of ours')
  t.match(await ask('alice', ''), { reason: 'bad-credentials' })
  t.match(await ask('alice', 'x'), { reason: 'backend-unavailable' }, 'nobody is there')
})

t.test('an authority that cannot be read is an error, passwords in clear a warning', async t => {
  const junk = join(t.testdir({}), 'junk.pem')
  writeFileSync(junk, 'no certificate')
  for (const path of ['/nowhere.pem', junk]) {
    t.throws(() => makeDirectory(configOf(`authority: ${path}`), parts), ConfigError)
  }
  t.match(insecureChoices(configOf('startTls: false')).join(), /ldap\.startTls is off/)
  t.notMatch(insecureChoices(configOf()).join(), /ldap/)
})

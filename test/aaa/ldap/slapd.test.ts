/** Users of Debian's slapd. */

import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { LdapDirectory } from '../../../lib/aaa/ldap/directory.ts'
import { parseConfig } from '../../../lib/config.ts'
import { systemClock } from '../../../lib/core/clock.ts'
import { silentLogger } from '../../../lib/core/log.ts'
import { Secret } from '../../../lib/core/secret.ts'
import { TimerWheel } from '../../../lib/core/timers.ts'
import { makeEapPki } from '../../support/eap-pki.ts'
import { Slapd, whyNoSlapd } from '../../support/slapd.ts'

const suffix = 'dc=example,dc=net'
const entries = `dn: ${suffix}
objectClass: domain
dc: example

dn: cn=vpn,${suffix}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: vpn
userPassword: of the service

dn: uid=alice,${suffix}
objectClass: inetOrgPerson
uid: alice
cn: Alice
sn: Liddell
ou: staff
userPassword: correct horse

dn: uid=odd\\2Cname\\28x\\29,${suffix}
objectClass: inetOrgPerson
uid: odd,name(x)
cn: odd
sn: odd
userPassword: correct horse

dn: cn=admins,${suffix}
objectClass: groupOfNames
cn: admins
member: uid=alice,${suffix}
`

async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  return typeof address === 'object' ? (address?.port ?? 0) : 0
}

t.test(
  'slapd judges users by name and by search, over StartTLS and LDAPS',
  { skip: whyNoSlapd() ?? false },
  async t => {
    const pki = makeEapPki('IP:127.0.0.1')
    const folder = mkdtempSync(join(tmpdir(), 'openras-slapd-'))
    chmodSync(join(pki.folder, 'server.key'), 0o600)
    mkdirSync(join(folder, 'slapd'))
    const port = await freePort()
    const slapd = new Slapd({
      folder: join(folder, 'slapd'),
      port,
      certificate: join(pki.folder, 'server.pem'),
      key: join(pki.folder, 'server.key'),
      ...{ suffix, entries },
    })
    const wheel = new TimerWheel(systemClock.nowMs())
    wheel.start(systemClock)
    t.teardown(async () => {
      wheel.stop()
      await slapd.stop()
      pki.remove()
      rmSync(folder, { recursive: true, force: true })
    })
    await slapd.start()
    const judgeWith = (url: string, more: string, authority = 'ca.pem') => {
      const groups = `groupAttribute: ou, groupSearch: {base: '${suffix}', filter: '(member={dn})'}`
      const { ldap } = parseConfig(`ldap: {servers: ['${url}'], ${groups}, ${more}}`, 'x')
      if (ldap === undefined) throw new Error('no directory')
      const directory = new LdapDirectory({
        config: ldap,
        authorityPem: pki.text(authority),
        ...{ clock: systemClock, wheel, log: silentLogger },
      })
      return (user: string, password: string) =>
        directory.judge(user, Secret.fromText(password), 30_000)
    }
    const bindAs = `bindAs: 'uid={user},${suffix}'`
    const search = `search: {base: '${suffix}', filter: '(uid={user})', bindName: 'cn=vpn,${suffix}', bindPassword: of the service}`
    const refused = { type: 'refused', reason: 'bad-credentials' }
    for (const url of [`ldap://127.0.0.1:${port}`, `ldaps://127.0.0.1:${port + 1}`]) {
      for (const way of [bindAs, search]) {
        const judge = judgeWith(url, way)
        t.same(await judge('alice', 'correct horse'), {
          type: 'proven',
          groups: ['staff', 'admins'],
        })
        t.same(await judge('odd,name(x)', 'correct horse'), { type: 'proven', groups: [] })
        t.same(await judge('alice', 'wrong horse'), refused)
        t.same(await judge('nobody', 'correct horse'), refused)
        t.same(await judge('*', 'correct horse'), refused)
        t.same(await judge('alice', ''), refused)
      }
      const distrusting = judgeWith(url, bindAs, 'other.pem')
      t.same(await distrusting('alice', 'correct horse'), { type: 'unavailable' })
    }
    const clear = judgeWith(`ldap://127.0.0.1:${port}`, `${bindAs}, startTls: false`)
    t.same(await clear('alice', 'correct horse'), { type: 'unavailable' }, 'slapd wants TLS')
    await slapd.stop()
    t.same(await judgeWith(`ldap://127.0.0.1:${port}`, bindAs)('alice', 'correct horse'), {
      type: 'unavailable',
    })
  },
)

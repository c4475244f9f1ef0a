/** The section `eap` made into methods; what the methods do is under test in `test/eap`. */
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { appendFileSync, chmodSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ConfigUserStore } from '../../lib/aaa/users/config-user-store.ts'
import { parseConfig } from '../../lib/config.ts'
import { CertificateError } from '../../lib/core/errors.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import type { EapServerStep } from '../../lib/eap/method.ts'
import { makeEapMethods } from '../../lib/server/eap-methods.ts'
import { makeEapPki } from '../support/eap-pki.ts'
import { EapTlsPeer } from '../support/eap-tls-peer.ts'

const pki = makeEapPki()
t.teardown(() => pki.remove())
const path = (name: string) => join(pki.folder, name)
const openssl = (...args: string[]) =>
  execFileSync('openssl', args, { cwd: pki.folder, stdio: 'pipe' })
// What is issued during the test is valid by then.
const wallClock = { now: () => new Date(Date.now() + 60_000) }
for (const key of ['server.key', 'client.key']) chmodSync(path(key), 0o600)
mkdirSync(path('ocsp'))

for (const [name, status] of [
  ['client', 'V'],
  ['server', 'V'],
]) {
  const { serialNumber, subject } = new X509Certificate(readFileSync(path(`${name}.pem`)))
  appendFileSync(
    path('index.txt'),
    `${status}\t350101000000Z\t\t${serialNumber}\tunknown\t/${subject}\n`,
  )
}

function respond(name: string, out: string): void {
  openssl('ocsp', '-issuer', 'ca.pem', '-cert', `${name}.pem`, '-no_nonce', '-reqout', 'ask.der')
  openssl(
    ...['ocsp', '-index', 'index.txt', '-CA', 'ca.pem', '-rsigner', 'ca.pem', '-rkey', 'ca.key'],
    ...['-reqin', 'ask.der', '-respout', out, '-ndays', '1'],
  )
}

respond('server', 'server.ocsp')
respond('client', 'ocsp/client.der')
respond('revoked', 'ocsp/revoked.der')

const configOf = (more = '') =>
  parseConfig(
    `
users:
  - {name: alice@ad.example, password: not asked for here}
  - {name: alice@mail.example, password: not asked for here}
  - {name: nobody@mail.example, password: not asked for here}
eap:
  methods: [tls]
  certificate: {cert: ${path('server.pem')}, key: ${path('server.key')}, ocspResponse: ${path('server.ocsp')}}
  clientAuthorities: [${path('ca.pem')}]
  ocspResponses: ${path('ocsp')}
${more}`,
    'x',
  )

async function settled(step: EapServerStep): Promise<EapServerStep> {
  return step.type === 'pending' ? settled(await step.next) : step
}

/** How EAP-TLS with this certificate goes, and what the server showed of itself. */
async function play(name: string, more = '') {
  const config = configOf(more)
  const users = new ConfigUserStore(config.users ?? [])
  const random = new SeededRandom(1)
  const [maker] = makeEapMethods({ config, users: () => users, random, wallClock })
  const method = maker?.(1020)
  if (method === undefined) throw new Error('no method')
  const peer = new EapTlsPeer({
    ca: pki.text('ca.pem'),
    cert: pki.text(`${name}.pem`),
    key: pki.text(`${name}.key`),
    ...{ requestOCSP: true },
  })
  let staple: Buffer | undefined
  peer.socket.on('OCSPResponse', response => {
    staple = response
  })
  t.teardown(() => peer.destroy())
  let step = await settled(method.start('anonymous', 1))
  for (let round = 0; round < 60 && step.type === 'request'; round++) {
    step = await settled(method.response(await peer.answer(step.typeData), 0))
  }
  method.destroy()
  return { step, staple }
}

t.test('OCSP out of files judges clients, and vouches for the server', async t => {
  const { step, staple } = await play('client')
  t.match(step, { type: 'authorize', authorization: { userName: 'alice@ad.example' } })
  t.same(staple, readFileSync(path('server.ocsp')))
  t.match((await play('revoked')).step, { type: 'failure', reason: 'bad-credentials' })
  t.match((await play('nobody')).step, { type: 'authorize' }, 'of whom nothing is said')
  t.match((await play('nobody', '  requireOcsp: true')).step, { type: 'failure' })
})

t.test('a folder that is not there is an error of the configuration', async t => {
  const config = parseConfig(
    `eap: {methods: [tls], certificate: {cert: ${path('server.pem')}, key: ${path('server.key')}},
           clientAuthorities: [${path('ca.pem')}], ocspResponses: /nowhere}`,
    'x',
  )
  const parts = { config, users: () => new ConfigUserStore([]), random: new SeededRandom(1) }
  t.throws(() => makeEapMethods({ ...parts, wallClock }), CertificateError)
})

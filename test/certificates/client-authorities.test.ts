/** Client chains made with the openssl command. */
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ClientAuthorities } from '../../lib/certificates/client-authorities.ts'
import { CertificateError } from '../../lib/core/errors.ts'

const folder = t.testdir()
const file = (name: string) => join(folder, name)
const openssl = (...args: string[]) =>
  execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
const day = 86_400_000
// What is issued during the test is valid by then.
const now = new Date(Date.now() + 60_000)

function authority(name: string): void {
  openssl(
    ...['req', '-x509', ...newKey, '-days', '30', '-subj', `/CN=${name}`],
    ...['-keyout', `${name}.key`, '-out', `${name}.crt`],
    ...['-addext', 'basicConstraints=critical,CA:true'],
  )
}

function issue(name: string, issuer: string, days: number, ...extensions: string[]): Uint8Array {
  openssl('req', ...newKey, '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', 'r.csr')
  writeFileSync(file('r.cnf'), extensions.join('\n'))
  openssl(
    ...['x509', '-req', '-in', 'r.csr', '-CA', `${issuer}.crt`, '-CAkey', `${issuer}.key`],
    ...['-days', String(days), '-CAcreateserial', '-extfile', 'r.cnf', '-out', `${name}.crt`],
  )
  return Uint8Array.from(new X509Certificate(readFileSync(file(`${name}.crt`))).raw)
}

authority('root')
authority('stranger')
const intermediate = issue('between', 'root', 20, 'basicConstraints=critical,CA:true')
const authorities = ClientAuthorities.load([file('root.crt')])

t.test('a client is whom its certificate names', async t => {
  for (const [name, extensions] of [
    [
      'alice@example.net',
      ['subjectAltName=email:alice@example.net,DNS:pc', 'extendedKeyUsage=clientAuth'],
    ],
    ['pc.example.net', ['subjectAltName=DNS:pc.example.net']],
    ['carol', ['basicConstraints=CA:false']],
  ] as const) {
    const judged = authorities.judge([issue('c', 'root', 10, ...extensions)], now)
    t.match(judged, { type: 'accept', userName: name === 'carol' ? 'c' : name })
  }
})

t.test('a chain leads over what the client sends, in any order', async t => {
  const leaf = issue('dave', 'between', 10, 'basicConstraints=CA:false')
  t.match(authorities.judge([leaf, intermediate], now), { type: 'accept', userName: 'dave' })
  const other = Uint8Array.from(new X509Certificate(readFileSync(file('stranger.crt'))).raw)
  t.match(authorities.judge([leaf, other, intermediate], now), { type: 'accept' })
  t.match(authorities.judge([leaf], now), { type: 'reject', detail: 'unknown-authority' })
})

t.test('what does not prove a client is refused with its reason', async t => {
  const refused = (detail: string, chain: Uint8Array[], at = now) =>
    t.match(authorities.judge(chain, at), { type: 'reject', detail })
  const good = issue('eve', 'root', 10, 'basicConstraints=CA:false')
  refused('absent', [])
  refused('damaged', [Uint8Array.of(1, 2, 3)])
  refused('expired', [good], new Date(now.getTime() + 11 * day))
  refused('not-yet-valid', [good], new Date(now.getTime() - day))
  refused('not-for-clients', [issue('web', 'root', 10, 'extendedKeyUsage=serverAuth')])
  refused('is-authority', [intermediate])
  refused('unknown-authority', [issue('mallory', 'stranger', 10, 'basicConstraints=CA:false')])
})

t.test('an end entity cannot vouch for another', async t => {
  issue('frank', 'root', 10, 'basicConstraints=CA:false')
  const frank = Uint8Array.from(new X509Certificate(readFileSync(file('frank.crt'))).raw)
  const forged = issue('grace', 'frank', 10, 'basicConstraints=CA:false')
  t.match(authorities.judge([forged, frank], now), { type: 'reject', detail: 'unknown-authority' })
})

t.test('authorities are read from PEM, and named by the hashes of their keys', async t => {
  t.notOk(authorities.isEmpty)
  t.ok(ClientAuthorities.load([]).isEmpty)
  t.equal(authorities.keyHashes[0]?.length, 20)
  writeFileSync(file('empty.crt'), 'nothing')
  t.throws(() => ClientAuthorities.load([file('empty.crt')]), CertificateError)
  t.throws(() => ClientAuthorities.load([file('absent.crt')]), CertificateError)
  t.throws(() => ClientAuthorities.load([file('c.crt')]), CertificateError)
})

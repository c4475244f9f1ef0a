/** Client chains made with the openssl command. */
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { certificateFields } from '../../lib/certificates/certificate-fields.ts'
import { ClientAuthorities } from '../../lib/certificates/client-authorities.ts'
import { parseRevocationList, RevocationLists } from '../../lib/certificates/revocation-lists.ts'
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

/** A list of `issuer` with these certificates on it, valid for a day, as PEM. */
function revocationList(issuer: string, revoked: readonly string[], name: string): string {
  const rows = revoked.map(one => {
    const { serialNumber } = new X509Certificate(readFileSync(file(`${one}.crt`)))
    return `R\t350101000000Z\t250101000000Z\t${serialNumber}\tunknown\t/CN=${one}\n`
  })
  writeFileSync(file('index.txt'), rows.join(''))
  writeFileSync(file('index.txt.attr'), '')
  writeFileSync(
    file('ca.cnf'),
    '[ca]\ndefault_ca=one\n[one]\ndatabase=index.txt\ndefault_md=sha256\ndefault_crl_days=1\n',
  )
  openssl(
    ...[
      'ca',
      '-gencrl',
      '-config',
      'ca.cnf',
      '-cert',
      `${issuer}.crt`,
      '-keyfile',
      `${issuer}.key`,
    ],
    ...['-out', name],
  )
  return file(name)
}

t.test('what a peer calls itself must be in its certificate', async t => {
  const leaf = issue('heidi', 'root', 10, 'subjectAltName=email:heidi@example.net,DNS:pc7')
  const subject = certificateFields(leaf)?.subject ?? new Uint8Array(0)
  const judge = (claim: Parameters<ClientAuthorities['judge']>[2]) =>
    authorities.judge([leaf], now, claim).type
  for (const text of ['Heidi@example.net', 'PC7', 'heidi']) {
    t.equal(judge({ type: 'name', text }), 'accept', text)
  }
  t.equal(judge({ type: 'name', text: 'root' }), 'reject')
  t.equal(judge({ type: 'subject', der: subject }), 'accept')
  t.equal(judge({ type: 'subject', der: subject.slice(1) }), 'reject')
  t.match(authorities.judge([leaf], now), { names: ['heidi@example.net', 'pc7', 'heidi'] })
})

t.test('usage and extensions that are not understood', async t => {
  const refused = (detail: string, ...extensions: string[]) =>
    t.match(authorities.judge([issue('x', 'root', 10, ...extensions)], now), { detail })
  refused('not-for-signing', 'keyUsage=critical,keyEncipherment')
  refused('critical-extension', '1.2.3.4=critical,DER:0500')
  const fine = issue('y', 'root', 10, 'keyUsage=critical,digitalSignature', '1.2.3.4=DER:0500')
  t.match(authorities.judge([fine], now), { type: 'accept' })
})

t.test('who was taken back is refused, and everybody when the list is old', async t => {
  const [bad, good] = ['ivan', 'judy'].map(name =>
    issue(name, 'root', 10, 'keyUsage=digitalSignature'),
  )
  const below = issue('kate', 'between', 10, 'keyUsage=digitalSignature')
  const list = revocationList('root', ['ivan'], 'root.crl')
  const careful = ClientAuthorities.load([file('root.crt')], [list])
  const detail = (chain: (Uint8Array | undefined)[], at = now, judge = careful) => {
    const judged = judge.judge(
      chain.flatMap(one => one ?? []),
      at,
    )
    return judged.type === 'accept' ? 'accept' : judged.detail
  }
  t.equal(detail([bad]), 'revoked')
  t.equal(detail([good]), 'accept')
  t.equal(detail([below, intermediate]), 'accept', 'the other issuer has no list')
  const later = new Date(now.getTime() + 2 * day)
  t.equal(detail([good], later), 'revocation-list-expired')
  t.equal(detail([bad], later), 'revoked')
  t.equal(detail([below, intermediate], later), 'revocation-list-expired', 'its issuer is of root')
  const both = ClientAuthorities.load(
    [file('root.crt')],
    [list, revocationList('between', ['kate'], 'between.crl')],
  )
  t.equal(detail([below, intermediate], now, both), 'revoked')
  const whole = ClientAuthorities.load(
    [file('root.crt')],
    [revocationList('root', ['between'], 'all.crl')],
  )
  t.equal(detail([below, intermediate], now, whole), 'revoked', 'the issuer itself')
})

t.test('only its issuer makes a list, and it is read from PEM or DER', async t => {
  const judy = Uint8Array.from(new X509Certificate(readFileSync(file('judy.crt'))).raw)
  const key = new X509Certificate(readFileSync(file('stranger.crt'))).publicKey
  const fields = certificateFields(judy)
  if (fields === undefined) throw new Error('unread')
  const lists = RevocationLists.load([revocationList('root', ['judy'], 'judy.crl')])
  t.equal(lists.fault(fields, key, now), undefined, 'this key has not signed it')
  const rootKey = new X509Certificate(readFileSync(file('root.crt'))).publicKey
  t.equal(lists.fault(fields, rootKey, now), 'revoked')
  openssl('crl', '-in', 'root.crl', '-outform', 'DER', '-out', 'root.der')
  const der = Uint8Array.from(readFileSync(file('root.der')))
  t.match(parseRevocationList(der), { serials: Set, digest: 'sha256' })
  t.doesNotThrow(() => RevocationLists.load([file('root.der')]))
  t.throws(() => RevocationLists.load([file('judy.crt')]), CertificateError)
  t.throws(() => RevocationLists.load([file('absent.crl')]), CertificateError)
  const change = fc.tuple(fc.nat(der.length - 1), fc.nat(255))
  fc.assert(
    fc.property(fc.array(change, { maxLength: 4 }), fc.nat(der.length), (changes, end) => {
      const bytes = der.slice(0, end)
      for (const [at, value] of changes) if (at < end) bytes[at] = value
      parseRevocationList(bytes)
      certificateFields(bytes)
      return true
    }),
    { seed: 5280, numRuns: 2000 },
  )
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

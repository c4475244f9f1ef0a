/** Responses made with `openssl ocsp`. */
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { certificateFields } from '../../lib/certificates/certificate-fields.ts'
import { ClientAuthorities } from '../../lib/certificates/client-authorities.ts'
import { parseOcspResponse } from '../../lib/certificates/ocsp-response.ts'
import { OcspResponses } from '../../lib/certificates/ocsp-responses.ts'
import { OcspStaple } from '../../lib/certificates/ocsp-staple.ts'
import { signatureDigest } from '../../lib/certificates/signature-digest.ts'
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
  return certificate(name).raw
}

function certificate(name: string): X509Certificate {
  return new X509Certificate(readFileSync(file(`${name}.crt`)))
}

interface ResponseOptions {
  readonly issuer?: string
  /** Who signs. */
  readonly responder?: string
  readonly status?: 'V' | 'R' | 'absent'
  readonly days?: number
  readonly flags?: readonly string[]
}

/** What a responder says of a certificate; returns the path of the file. */
function respond(about: string, out: string, options: ResponseOptions = {}): string {
  const { issuer = 'root', responder = issuer, status = 'V', days = 1, flags = [] } = options
  const { serialNumber } = certificate(about)
  const revoked = status === 'R' ? '250101000000Z' : ''
  const row = `${status}\t350101000000Z\t${revoked}\t${serialNumber}\tunknown\t/CN=${about}\n`
  writeFileSync(file('index.txt'), status === 'absent' ? '' : row)
  const ca = `${issuer}.crt`
  openssl('ocsp', '-issuer', ca, '-cert', `${about}.crt`, '-no_nonce', '-reqout', 'request.der')
  openssl(
    ...['ocsp', '-index', 'index.txt', '-CA', ca, '-reqin', 'request.der', '-respout', out],
    ...['-rsigner', `${responder}.crt`, '-rkey', `${responder}.key`, '-ndays', String(days)],
    ...flags,
  )
  return file(out)
}

authority('root')
authority('stranger')
issue('between', 'root', 20, 'basicConstraints=critical,CA:true')
issue('responder', 'root', 3, 'extendedKeyUsage=OCSPSigning', 'noCheck=ignored')
issue('web', 'root', 10, 'extendedKeyUsage=serverAuth')
const usage = 'keyUsage=digitalSignature'
const alice = issue('alice', 'root', 10, usage)
const bob = issue('bob', 'root', 10, usage)

let folders = 0

/** Judges with a folder that holds these responses. */
function judgeWith(
  responses: readonly string[],
  { isRequired = false, revocationLists = [] as string[] } = {},
) {
  const name = file(`responses${++folders}`)
  mkdirSync(name)
  for (const [i, path] of responses.entries()) copyFileSync(path, join(name, `${i}.der`))
  const faults: string[] = []
  const onFault = (path: string, reason: string) => faults.push(`${path}: ${reason}`)
  const held = OcspResponses.load({ folder: name, onFault }, now)
  const authorities = ClientAuthorities.load([file('root.crt')], revocationLists, {
    responses: held,
    isRequired,
  })
  const detail = (chain: readonly Uint8Array[], at = now) => {
    const judged = authorities.judge(chain, at)
    return judged.type === 'accept' ? 'accept' : judged.detail
  }
  return { detail, faults, name }
}

t.test('what the issuer says of a client holds, in its time', async t => {
  const { detail } = judgeWith([
    respond('alice', 'alice.good'),
    respond('bob', 'bob.revoked', { status: 'R' }),
  ])
  t.equal(detail([alice]), 'accept')
  t.equal(detail([bob]), 'revoked')
  const later = new Date(now.getTime() + 2 * day)
  t.equal(detail([alice], later), 'ocsp-response-expired')
  t.equal(detail([bob], later), 'revoked', 'what is taken back stays so')
  const other = issue('carol', 'root', 10, usage)
  t.equal(detail([other]), 'accept', 'nothing is said of it')
  t.equal(judgeWith([], { isRequired: true }).detail([other]), 'no-ocsp-response')
  const early = new Date(now.getTime() - 7 * day)
  t.not(detail([bob], early), 'revoked', 'a response from the future says nothing yet')
  const unknown = judgeWith([respond('alice', 'alice.unknown', { status: 'absent' })])
  t.equal(unknown.detail([alice]), 'unknown-certificate')
})

t.test('the newest of several counts', async t => {
  const old = respond('alice', 'alice.old')
  const timeOf = (path: string) => {
    const response = parseOcspResponse(Uint8Array.from(readFileSync(path)))
    return typeof response === 'string' ? undefined : response.statements[0]?.thisUpdate.getTime()
  }
  // Times of OCSP are in seconds.
  let fresh: string
  do fresh = respond('alice', 'alice.fresh', { status: 'R' })
  while (timeOf(fresh) === timeOf(old))
  for (const order of [
    [old, fresh],
    [fresh, old],
  ]) {
    t.equal(judgeWith(order).detail([alice]), 'revoked')
  }
})

t.test('whoever the issuer has named may answer for it, and nobody else', async t => {
  const asked = (path: string, options = {}) =>
    judgeWith([path], { isRequired: true, ...options }).detail([alice])
  const delegated = respond('alice', 'delegated', { responder: 'responder', days: 10 })
  t.equal(asked(delegated), 'accept')
  t.equal(
    asked(respond('alice', 'key', { responder: 'responder', flags: ['-resp_key_id'] })),
    'accept',
  )
  t.equal(asked(respond('alice', 'own-key', { flags: ['-resp_key_id'] })), 'accept')
  t.equal(
    asked(respond('alice', 'bare', { responder: 'responder', flags: ['-resp_no_certs'] })),
    'no-ocsp-response',
    'the certificate of the responder is missing',
  )
  for (const responder of ['web', 'stranger', 'bob']) {
    t.equal(asked(respond('alice', responder, { responder })), 'no-ocsp-response', responder)
  }
  const expired = judgeWith([delegated], { isRequired: true })
  t.equal(
    expired.detail([alice], new Date(now.getTime() + 4 * day)),
    'no-ocsp-response',
    'its own certificate is over, the response is not',
  )
  const serial = certificate('responder').serialNumber
  writeFileSync(file('revoked.txt'), `R\t350101000000Z\t250101000000Z\t${serial}\tunknown\t/CN=r\n`)
  writeFileSync(file('revoked.txt.attr'), '')
  writeFileSync(
    file('ca.cnf'),
    '[ca]\ndefault_ca=one\n[one]\ndatabase=revoked.txt\ndefault_md=sha256\ndefault_crl_days=1\n',
  )
  openssl(
    ...['ca', '-gencrl', '-config', 'ca.cnf', '-cert', 'root.crt', '-keyfile', 'root.key'],
    ...['-out', 'root.crl'],
  )
  t.equal(asked(delegated, { revocationLists: [file('root.crl')] }), 'no-ocsp-response')
})

t.test('an intermediate authority is taken back as well, and answers for its own', async t => {
  const below = issue('dave', 'between', 10, usage)
  const between = certificate('between').raw
  const good = respond('dave', 'dave.good', { issuer: 'between' })
  t.equal(judgeWith([good], { isRequired: true }).detail([below, between]), 'accept')
  const byRoot = respond('dave', 'dave.root', { issuer: 'between', responder: 'root' })
  t.equal(judgeWith([byRoot], { isRequired: true }).detail([below, between]), 'no-ocsp-response')
  const gone = respond('between', 'between.revoked', { status: 'R' })
  t.equal(judgeWith([good, gone]).detail([below, between]), 'revoked')
})

t.test('the folder is looked at again, and what is of no use is said', async t => {
  const { detail, faults, name } = judgeWith([respond('alice', 'alice.first')])
  t.equal(detail([alice]), 'accept')
  copyFileSync(respond('alice', 'alice.second', { status: 'R', days: 2 }), join(name, '0.der'))
  writeFileSync(join(name, 'junk'), 'no response')
  writeFileSync(join(name, 'large'), new Uint8Array(70_000))
  mkdirSync(join(name, 'folder'))
  t.equal(detail([alice]), 'accept', 'not at once')
  const soon = new Date(now.getTime() + 31_000)
  t.equal(detail([alice], soon), 'revoked')
  t.same(
    faults.map(fault => fault.slice(name.length + 1)),
    ['junk: damaged', 'large: too large'],
  )
  rmSync(name, { recursive: true })
  t.equal(detail([alice], new Date(now.getTime() + 62_000)), 'revoked', 'what is known stays')
  t.match(faults.at(-1), /ENOENT/)
  const onFault = () => undefined
  t.throws(() => OcspResponses.load({ folder: name, onFault }, now), CertificateError)
})

t.test('a staple is what helps a client now', async t => {
  const leaf = certificate('web')
  const faults: string[] = []
  let at = now
  const path = respond('web', 'staple')
  const staple = new OcspStaple({
    path,
    leaf,
    wallClock: { now: () => at },
    onFault: (_path, reason) => faults.push(reason),
  })
  t.same(staple.current(), Uint8Array.from(readFileSync(path)))
  respond('web', 'staple', { status: 'R' })
  t.ok(staple.current(), 'as it was read')
  const look = (ms: number) => {
    at = new Date(at.getTime() + ms)
    t.equal(staple.current(), undefined)
  }
  look(31_000)
  respond('alice', 'staple')
  look(31_000)
  respond('web', 'staple', { days: 1 })
  look(2 * day)
  writeFileSync(path, 'no response')
  look(31_000)
  rmSync(path)
  look(31_000)
  t.match(faults, [
    'it says that the certificate is revoked',
    'it speaks of another certificate',
    'it is out of date',
    'damaged',
    /ENOENT/,
  ])
})

t.test('arbitrary responses are refused or read, and never throw', async t => {
  const der = Uint8Array.from(
    readFileSync(respond('alice', 'fuzz', { responder: 'responder', days: 3 })),
  )
  t.match(parseOcspResponse(der), { statements: [{ status: 'good', hash: 'sha1' }] })
  // RFC 6960 §4.2.1: an error has no bytes of a response.
  t.equal(parseOcspResponse(Uint8Array.of(0x30, 3, 0x0a, 1, 6)), 'an error of the responder')
  t.equal(signatureDigest(Uint8Array.of(6, 1, 0)), undefined)
  const change = fc.tuple(fc.nat(der.length - 1), fc.nat(255))
  const name = file('fuzzed')
  mkdirSync(name)
  fc.assert(
    fc.property(fc.array(change, { maxLength: 4 }), fc.nat(der.length), (changes, end) => {
      const bytes = der.slice(0, changes.length === 0 ? end : der.length)
      for (const [index, value] of changes) bytes[index] = value
      const read = parseOcspResponse(bytes)
      return typeof read === 'string' || read.signature.length > 0
    }),
    { seed: 6960, numRuns: 2000 },
  )
  // Signed no more, whatever else still holds.
  const root = certificate('root')
  const fields = certificateFields(alice)
  if (fields === undefined) throw new Error('unread')
  const issuer = { name: fields.issuer, key: root.publicKey }
  const faultOf = (bytes: Uint8Array) => {
    writeFileSync(join(name, 'one.der'), bytes)
    const held = OcspResponses.load({ folder: name, onFault: () => undefined }, now)
    return held.fault(fields, issuer, now, () => false)
  }
  t.equal(faultOf(der), undefined)
  const read = parseOcspResponse(der)
  if (typeof read === 'string') throw new Error(read)
  const { signed } = read
  fc.assert(
    fc.property(fc.nat(signed.length - 1), fc.nat(7), (index, bit) => {
      const bytes = der.slice()
      const at = signed.byteOffset - der.byteOffset + index
      bytes[at] = (bytes[at] ?? 0) ^ (1 << bit)
      return faultOf(bytes) === 'none'
    }),
    { seed: 6961, numRuns: 500 },
  )
})

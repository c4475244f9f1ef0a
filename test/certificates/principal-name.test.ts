/** Certificates made with the openssl command. */
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { principalNames } from '../../lib/certificates/principal-name.ts'

const folder = t.testdir()
const upn = '1.3.6.1.4.1.311.20.2.3'

function certificate(...alternatives: [kind: string, value: string][]): Uint8Array {
  const file = (name: string) => join(folder, name)
  const lines = alternatives.map(([kind, value], i) => `${kind}.${i} = ${value}`)
  writeFileSync(
    file('one.cnf'),
    [
      ...['[req]', 'distinguished_name = subject', 'prompt = no', 'x509_extensions = extensions'],
      ...['[subject]', 'CN = somebody'],
      ...['[extensions]', lines.length > 0 ? 'subjectAltName = @names' : ''],
      ...['[names]', ...lines],
    ].join('\n'),
  )
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-config', file('one.cnf'), '-keyout', file('one.key'), '-out', file('one.crt')],
    ],
    { stdio: 'ignore' },
  )
  return Uint8Array.from(new X509Certificate(readFileSync(file('one.crt'))).raw)
}

t.test('principal names come in the order of the certificate, and nothing else does', async t => {
  t.same(principalNames(certificate(['otherName', `${upn};UTF8:alice@ad.example`])), [
    'alice@ad.example',
  ])
  t.same(
    principalNames(
      certificate(
        ['DNS', 'upn.example.net'],
        ['otherName', `${upn};UTF8:first@ad.example`],
        ['email', 'mail@example.net'],
        ['otherName', '1.3.6.1.5.5.7.8.5;UTF8:jabber@example.net'],
        ['otherName', `${upn};UTF8:second@ad.example`],
      ),
    ),
    ['first@ad.example', 'second@ad.example'],
  )
  t.same(principalNames(certificate(['DNS', 'host.example.net'])), [])
  t.same(principalNames(certificate()), [])
})

t.test('a name cannot pass for two, whatever kind of name it is', async t => {
  const forged = 'eve, othername:UPN:root@ad.example'
  t.same(principalNames(certificate(['otherName', `${upn};UTF8:${forged}`])), [])
  for (const kind of ['email', 'DNS', 'URI']) {
    t.same(principalNames(certificate([kind, forged])), [], kind)
  }
})

t.test('what is no certificate names nobody', async t => {
  t.same(principalNames(Uint8Array.of(0x30, 3, 1, 2, 3)), [])
  t.same(principalNames(new Uint8Array(0)), [])
})

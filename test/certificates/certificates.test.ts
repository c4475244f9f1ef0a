import { spawnSync } from 'node:child_process'
import { createHash, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect, createServer, type TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import { createAuthority, issueServerCertificate } from '../../lib/certificates/authority.ts'
import { loadCertificatePair } from '../../lib/certificates/certificate-pair.ts'
import {
  ensureOwnCertificate,
  ownCertificateFiles,
  renewalReason,
} from '../../lib/certificates/own-certificate.ts'
import { toHex } from '../../lib/core/bytes.ts'
import { CertificateError } from '../../lib/core/errors.ts'

const now = new Date('2026-06-01T12:00:00Z')
const later = (days: number) => new Date(now.getTime() + days * 86_400_000)

const newRsaKey = (rsaBits: number) =>
  generateKeyPairSync('rsa', {
    modulusLength: rsaBits,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  }).privateKey
/** Keys take long to make, so the tests share a few, in turn. */
const sharedKeys = Array.from({ length: 3 }, () => newRsaKey(2048))
let turn = 0
const generateKey = () => sharedKeys[turn++ % sharedKeys.length] ?? ''
const names = ['vpn.example.net', 'vpn']
const addresses = ['192.0.2.1', '2001:db8::1']
const authority = createAuthority({ name: 'vpn.example.net', now, generateKey })
const server = issueServerCertificate(authority, { names, addresses, now, generateKey })
const root = new X509Certificate(authority.certificatePem)
const leaf = new X509Certificate(server.certificatePem)

/** OpenSSL's view of a certificate, with the extensions that Node does not tell. */
function textOf(pem: string): string {
  return spawnSync('openssl', ['x509', '-noout', '-text'], { input: pem, encoding: 'utf8' }).stdout
}

t.test('the authority signs itself and may sign servers only', async t => {
  t.ok(root.ca)
  t.ok(root.verify(root.publicKey))
  t.match(root.subject, /O=OpenRAS\nCN=vpn\.example\.net CA [0-9a-f]{8}/)
  t.equal(root.subject, root.issuer)
  t.ok(new Date(root.validTo) > later(3600))
  t.not(
    root.subject,
    new X509Certificate(createAuthority({ name: 'x', now, generateKey }).certificatePem).subject,
  )
})

t.test(
  'a server certificate names hosts and addresses, for TLS and IKE, for 825 days at most',
  async t => {
    t.ok(leaf.checkIssued(root))
    t.ok(leaf.verify(root.publicKey))
    t.notOk(leaf.ca)
    for (const name of [...names, ...addresses]) t.match(leaf.subjectAltName, `DNS:${name}`)
    t.equal(leaf.checkIP('192.0.2.1'), '192.0.2.1')
    t.ok(leaf.checkIP('2001:db8::1'))
    t.same(leaf.keyUsage, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.8.2.2'])
    const days =
      (new Date(leaf.validTo).getTime() - new Date(leaf.validFrom).getTime()) / 86_400_000
    t.ok(days <= 825 && days > 800, `${days} days`)
    const greedy = issueServerCertificate(authority, { names, now, generateKey, validDays: 5000 })
    t.ok(new Date(new X509Certificate(greedy.certificatePem).validTo) <= later(825))
    t.match(leaf.serialNumber, /^[4-7][0-9A-F]{31}$/)
    t.not(leaf.serialNumber, new X509Certificate(greedy.certificatePem).serialNumber)
    const short = createAuthority({ name: 'x', now, generateKey, validDays: 100 })
    const within = issueServerCertificate(short, { names, now, generateKey })
    t.ok(
      new Date(new X509Certificate(within.certificatePem).validTo) <= later(100),
      'no longer than its issuer',
    )
  },
)

t.test(
  'OpenSSL sees the key identifiers and the key usage',
  spawnSync('openssl', ['version']).status === 0 ? {} : { skip: 'openssl is not installed' },
  async t => {
    const text = textOf(server.certificatePem)
    const ours = /Authority Key Identifier: *\n +(?:keyid:)?([0-9A-F:]+)/.exec(text)?.[1]
    const issuers = /Subject Key Identifier: *\n +([0-9A-F:]+)/.exec(
      textOf(authority.certificatePem),
    )?.[1]
    t.ok(ours)
    t.equal(ours, issuers)
    t.match(text, /Key Usage: critical\s+Digital Signature, Key Encipherment/)
    t.match(text, /IP Address:192\.0\.2\.1, IP Address:2001:DB8:0:0:0:0:0:1/i)
    t.match(textOf(authority.certificatePem), /CA:TRUE, pathlen:0/)
  },
)

t.test('keys are secrets until they are asked for', async t => {
  t.equal(String(server.keyPem), '[secret]')
  t.notMatch(JSON.stringify(server), 'PRIVATE KEY')
})

interface Files {
  readonly cert: string
  readonly key: string
}

function written(t: Test, certificatePem: string, keyPem: string, mode = 0o600): Files {
  const directory = t.testdir({})
  const files = { cert: join(directory, 'server.pem'), key: join(directory, 'server.key') }
  writeFileSync(files.cert, certificatePem)
  writeFileSync(files.key, keyPem)
  chmodSync(files.key, mode)
  return files
}

const key = server.keyPem.exposeText()

t.test('a pair is loaded with its fingerprints and its chain', async t => {
  const files = written(
    t,
    `text before\n${server.certificatePem}${authority.certificatePem}`,
    key,
    0o640,
  )
  const pair = loadCertificatePair(files, now)
  t.equal(toHex(pair.sha256), createHash('sha256').update(leaf.raw).digest('hex'))
  t.equal(toHex(pair.sha1), leaf.fingerprint.replaceAll(':', '').toLowerCase())
  t.equal(pair.keyType, 'rsa')
  t.same(pair.notAfter, new Date(leaf.validTo))
  t.equal(pair.chainPem, server.certificatePem + authority.certificatePem)
  t.equal(pair.keyPem.exposeText(), key)
})

t.test('what is wrong with a pair is said with its file and what to do', async t => {
  const load = (files: Files, at = now) => loadCertificatePair(files, at)
  const chain = server.certificatePem + authority.certificatePem
  const refused = (files: Files, message: RegExp, at?: Date) => {
    t.throws(() => load(files, at), message)
    t.throws(() => load(files, at), CertificateError)
  }
  refused(
    { cert: '/nowhere/x.pem', key: '/nowhere/x.key' },
    /cannot read the certificate \/nowhere\/x\.pem/,
  )
  const missing = written(t, chain, key)
  rmSync(missing.key)
  refused(missing, /cannot read the key/)
  refused(written(t, chain, key, 0o644), /mode 0644.*chmod 600/)
  refused(written(t, chain, key, 0o620), /mode 0620/)
  refused(written(t, 'nothing', key), /no certificate/)
  refused(written(t, chain.replace(/\n.{64}\n/, '\nAAAA\n'), key), /certificate 1 in .* is damaged/)
  refused(written(t, server.certificatePem.repeat(11), key), /at most 10/)
  refused(written(t, ' '.repeat(1024 * 1024 + 1), key), /too large/)
  refused(written(t, chain, 'nothing'), /must be a PEM private key/)
  refused(written(t, authority.certificatePem + server.certificatePem, key), /must come first/)
  refused(written(t, chain, authority.keyPem.exposeText()), /not the key of the first/)
  const stranger = createAuthority({ name: 'other', now, generateKey })
  refused(
    written(t, server.certificatePem + stranger.certificatePem, key),
    /did not issue certificate 1/,
  )
  refused(written(t, chain, key), /expired on/, later(2000))
  refused(written(t, chain, key), /valid from .* only/, later(-5))
  const encrypted = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' },
  }).privateKey
  refused(written(t, chain, encrypted), /pass phrase/)
  const weak = issueServerCertificate(authority, {
    names,
    now,
    rsaBits: 1024,
    generateKey: newRsaKey,
  })
  refused(written(t, weak.certificatePem, weak.keyPem.exposeText()), /too weak/)
})

/** OpenSSL makes what forge cannot: ECDSA. */
function selfSigned(t: Test, ...newkey: string[]): Files {
  const directory = t.testdir({})
  const files = { cert: join(directory, 'c.pem'), key: join(directory, 'c.key') }
  spawnSync('openssl', [
    'req',
    '-x509',
    '-nodes',
    '-subj',
    '/CN=vpn',
    '-days',
    '30',
    ...newkey,
    '-keyout',
    files.key,
    '-out',
    files.cert,
  ])
  chmodSync(files.key, 0o600)
  return files
}

t.test(
  'ECDSA pairs load, other kinds and other purposes do not',
  spawnSync('openssl', ['version']).status === 0 ? {} : { skip: 'openssl is not installed' },
  async t => {
    const today = new Date(Date.parse(new Date().toISOString()) + 60_000)
    const curve = (name: string) => ['-newkey', 'ec', '-pkeyopt', `ec_paramgen_curve:${name}`]
    t.equal(loadCertificatePair(selfSigned(t, ...curve('prime256v1')), today).keyType, 'ec')
    t.equal(loadCertificatePair(selfSigned(t, ...curve('secp384r1')), today).keyType, 'ec')
    t.throws(
      () => loadCertificatePair(selfSigned(t, ...curve('secp256k1')), today),
      /ec secp256k1: clients take/,
    )
    t.throws(() => loadCertificatePair(selfSigned(t, '-newkey', 'ed25519'), today), /ed25519/)
    t.throws(
      () =>
        loadCertificatePair(
          selfSigned(t, ...curve('prime256v1'), '-addext', 'extendedKeyUsage=clientAuth'),
          today,
        ),
      /lacks serverAuth/,
    )
  },
)

t.test('the first run makes authority and certificate once; both serve TLS', async t => {
  const stateDirectory = join(t.testdir({}), 'state')
  const options = {
    stateDirectory,
    names: ['localhost'],
    addresses: ['127.0.0.1'],
    now: new Date(),
    generateKey,
  }
  const first = ensureOwnCertificate(options)
  t.match(first, { isNewAuthority: true, renewed: 'absent' })
  const files = ownCertificateFiles(stateDirectory)
  const modes = [files.cert, files.key, files.authority, files.authorityKey].map(
    path => statSync(path).mode & 0o777,
  )
  t.same(modes, [0o644, 0o600, 0o644, 0o600])
  const second = ensureOwnCertificate(options)
  t.equal(second.isNewAuthority, false)
  t.equal(second.renewed, undefined)
  t.same(second.pair.sha256, first.pair.sha256)

  const tls = createServer(
    { cert: first.pair.chainPem, key: first.pair.keyPem.exposeText() },
    socket => socket.end('hello'),
  )
  tls.listen(0, '127.0.0.1')
  await once(tls, 'listening')
  const { port } = tls.address() as AddressInfo
  const client: TLSSocket = connect({
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    ca: readFileSync(first.authorityFile),
  })
  await once(client, 'secureConnect')
  t.ok(client.authorized)
  t.same(Uint8Array.from(client.getPeerCertificate().raw), Uint8Array.from(first.pair.leaf.raw))
  client.destroy()
  tls.close()
})

t.test(
  'a certificate is renewed when it runs out, when the names change, and when it is unusable',
  async t => {
    const stateDirectory = join(t.testdir({}), 'state')
    const options = {
      stateDirectory,
      names: ['vpn.example.net'],
      addresses: ['192.0.2.1'],
      now,
      generateKey,
    }
    const { pair } = ensureOwnCertificate(options)
    t.equal(renewalReason(pair, options), undefined)
    t.equal(renewalReason(pair, { ...options, now: later(780) }), undefined)
    t.equal(renewalReason(pair, { ...options, now: later(800) }), 'expires-soon')
    t.equal(renewalReason(pair, { ...options, names: ['other.example.net'] }), 'names-changed')
    t.equal(renewalReason(pair, { ...options, addresses: ['192.0.2.2'] }), 'names-changed')
    const renewed = (change: object) => {
      const own = ensureOwnCertificate({ ...options, ...change })
      t.equal(own.isNewAuthority, false, 'clients trust it still')
      return own.renewed
    }
    t.equal(renewed({ names: ['other.example.net'] }), 'names-changed')
    t.equal(renewed({ now: later(800) }), 'expires-soon')
    t.equal(renewed({ now: later(1600) }), 'expires-soon')
    t.equal(renewed({ now: later(2600) }), 'unusable', 'expired')
    const files = ownCertificateFiles(stateDirectory)
    writeFileSync(files.key, key)
    t.equal(renewed({ now: later(2600) }), 'unusable', 'a crash between key and certificate')
    rmSync(files.key)
    t.equal(renewed({ now: later(2600) }), 'unusable')
    chmodSync(files.key, 0o644)
    t.throws(() => renewed({ now: later(2600) }), /chmod 600/)
    chmodSync(files.key, 0o600)
    t.throws(() => renewed({ now: later(3700) }), /authority .* has expired/)
    writeFileSync(files.authority, 'x')
    t.throws(() => renewed({}), /authority .* is damaged/)
    rmSync(files.authority)
    t.match(ensureOwnCertificate(options), { isNewAuthority: true, renewed: 'unusable' })
  },
)

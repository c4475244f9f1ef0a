/** An authority with a server, a client and a revoked client, made by openssl in a folder of the test. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Secret } from '../../lib/core/secret.ts'

export interface EapPki {
  readonly folder: string
  text(file: string): string
  secret(file: string): Secret
  remove(): void
}

const upn = 'otherName:1.3.6.1.4.1.311.20.2.3;UTF8:alice@ad.example'
const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']

/** `more` are other names of the server. */
export function makeEapPki(...more: string[]): EapPki {
  const folder = mkdtempSync(join(tmpdir(), 'openras-eap-'))
  const run = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
  const root = (name: string) =>
    run(
      'req',
      '-x509',
      ...newKey,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.pem`,
      '-days',
      '30',
      '-subj',
      `/CN=${name}`,
    )
  const issue = (name: string, by: string, commonName: string, use: string, names: string) => {
    run(
      'req',
      ...newKey,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
      '-subj',
      `/CN=${commonName}`,
    )
    writeFileSync(join(folder, 'ext'), `extendedKeyUsage=${use}\nsubjectAltName=${names}\n`)
    run(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      `${by}.pem`,
      '-CAkey',
      `${by}.key`,
      '-CAcreateserial',
      '-days',
      '20',
      '-extfile',
      'ext',
      '-out',
      `${name}.pem`,
    )
  }
  root('ca')
  root('other')
  issue('server', 'ca', 'vpn.test', 'serverAuth', ['DNS:vpn.test', ...more].join())
  issue('client', 'ca', 'Alice Liddell', 'clientAuth', `email:a.liddell@mail.example,${upn}`)
  issue('nobody', 'ca', 'nobody', 'clientAuth', 'email:nobody@mail.example')
  issue('revoked', 'ca', 'alice', 'clientAuth', 'email:alice@mail.example')
  issue('wrong-use', 'ca', 'alice', 'serverAuth', 'email:alice@mail.example')
  issue('stranger', 'other', 'alice', 'clientAuth', 'email:alice@mail.example')
  writeFileSync(join(folder, 'index.txt'), '')
  writeFileSync(join(folder, 'crlnumber'), '01\n')
  writeFileSync(
    join(folder, 'ca.cnf'),
    '[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\ndefault_crl_days=30\n',
  )
  const ca = ['-config', 'ca.cnf', '-cert', 'ca.pem', '-keyfile', 'ca.key']
  run('ca', ...ca, '-revoke', 'revoked.pem')
  run('ca', ...ca, '-gencrl', '-out', 'crl.pem')
  const text = (file: string) => readFileSync(join(folder, file), 'utf8')
  return {
    folder,
    text,
    secret: file => Secret.fromText(text(file)),
    remove: () => rmSync(folder, { recursive: true }),
  }
}

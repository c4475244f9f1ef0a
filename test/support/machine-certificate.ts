/** Certificates of client machines, as an operator makes them: with the openssl command. RSA, for IKEv1. */
import { execFileSync } from 'node:child_process'
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export interface MachineCertificate {
  /** DER, the machine's own. */
  readonly chain: readonly [Uint8Array]
  readonly key: KeyObject
  /** PEM file of the authority. */
  readonly authorityFile: string
}

/** A machine named `name` and its authority; both stand in `folder`. */
export function machineCertificate(folder: string, name: string): MachineCertificate {
  const openssl = (...args: string[]) => {
    execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
  }
  const newKey = ['-newkey', 'rsa:2048', '-nodes']
  const authority = `${name}-ca`
  openssl(
    ...['req', '-x509', ...newKey, '-days', '30', '-subj', `/O=Office/CN=${authority}`],
    ...['-keyout', `${authority}.key`, '-out', `${authority}.pem`],
    ...['-addext', 'basicConstraints=critical,CA:true'],
  )
  openssl('req', ...newKey, '-subj', `/O=Office/CN=${name}`, '-keyout', 'm.key', '-out', 'm.csr')
  const extensions = [`subjectAltName=DNS:${name}`, 'extendedKeyUsage=clientAuth']
  writeFileSync(join(folder, 'm.cnf'), extensions.join('\n'))
  openssl(
    ...['x509', '-req', '-in', 'm.csr', '-CA', `${authority}.pem`, '-CAkey', `${authority}.key`],
    ...['-days', '20', '-CAcreateserial', '-extfile', 'm.cnf', '-out', 'm.pem'],
  )
  return {
    chain: [Uint8Array.from(new X509Certificate(readFileSync(join(folder, 'm.pem'))).raw)],
    key: createPrivateKey(readFileSync(join(folder, 'm.key'))),
    authorityFile: join(folder, `${authority}.pem`),
  }
}

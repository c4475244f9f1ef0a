/** A test CA and server certificates, made with the openssl command: not with the code under test. */
import { execFileSync } from 'node:child_process'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { address } from './lab.ts'

export class TestCa {
  readonly #folder: string
  readonly certificate: string

  constructor(folder: string) {
    this.#folder = folder
    this.certificate = join(folder, 'ca.crt')
    this.#openssl(
      ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '30', '-subj', '/CN=lab CA'],
      ...['-keyout', 'ca.key', '-out', 'ca.crt', '-addext', 'basicConstraints=critical,CA:true'],
      ...['-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
    )
  }

  /** A server certificate; resolves to the paths of both files and its serial number. */
  issue(name: string, serial: number): { cert: string; key: string } {
    const [cert, key] = [join(this.#folder, `${name}.crt`), join(this.#folder, `${name}.key`)]
    writeFileSync(
      join(this.#folder, 'leaf.cnf'),
      [
        'basicConstraints=CA:false',
        'keyUsage=digitalSignature,keyEncipherment',
        'extendedKeyUsage=serverAuth',
        `subjectAltName=DNS:vpn.lab,IP:${address.server}`,
      ].join('\n'),
    )
    this.#openssl(
      ...['req', '-newkey', 'rsa:2048', '-nodes', '-subj', `/CN=${address.server}`],
      ...['-keyout', key, '-out', 'leaf.csr'],
    )
    this.#openssl(
      ...['x509', '-req', '-in', 'leaf.csr', '-CA', 'ca.crt', '-CAkey', 'ca.key', '-days', '30'],
      ...['-set_serial', String(serial), '-extfile', 'leaf.cnf', '-out', cert],
    )
    chmodSync(key, 0o600)
    return { cert, key }
  }

  /** A client certificate for a mail address. */
  issueClient(name: string, mailAddress: string): { cert: string; key: string } {
    const [cert, key] = [join(this.#folder, `${name}.crt`), join(this.#folder, `${name}.key`)]
    writeFileSync(
      join(this.#folder, 'client.cnf'),
      [
        'basicConstraints=CA:false',
        'keyUsage=digitalSignature',
        'extendedKeyUsage=clientAuth',
        `subjectAltName=email:${mailAddress}`,
      ].join('\n'),
    )
    this.#openssl(
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-subj', `/CN=${name}`, '-keyout', key, '-out', 'client.csr'],
    )
    this.#openssl(
      ...['x509', '-req', '-in', 'client.csr', '-CA', 'ca.crt', '-CAkey', 'ca.key'],
      ...['-days', '30', '-set_serial', '1001', '-extfile', 'client.cnf', '-out', cert],
    )
    return { cert, key }
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: this.#folder, stdio: 'pipe' })
  }
}

/** Debian's slapd with a configuration of our own, run from a folder on loopback. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SystemError } from '../../lib/core/errors.ts'

export interface SlapdOptions {
  /** Its own, empty. */
  readonly folder: string
  readonly port: number
  /** PEM files. */
  readonly certificate: string
  readonly key: string
  readonly suffix: string
  /** LDIF. */
  readonly entries: string
}

const program = '/usr/sbin/slapd'
const startTries = 400

/** Why there is none here, or undefined. */
export function whyNoSlapd(): string | undefined {
  return existsSync(program) ? undefined : 'needs slapd'
}

export class Slapd {
  readonly #options: SlapdOptions
  #process: ChildProcess | undefined

  constructor(options: SlapdOptions) {
    this.#options = options
    const { folder, entries } = options
    mkdirSync(join(folder, 'data'))
    writeFileSync(join(folder, 'slapd.conf'), configuration(options))
    writeFileSync(join(folder, 'entries.ldif'), entries)
  }

  /** Throws SystemError when it does not start. */
  async start(): Promise<void> {
    const { folder, port } = this.#options
    const file = ['-f', join(folder, 'slapd.conf')]
    execFileSync(program, ['-T', 'add', ...file, '-l', join(folder, 'entries.ldif')], {
      stdio: 'pipe',
    })
    const url = `ldap://127.0.0.1:${port} ldaps://127.0.0.1:${port + 1}`
    const child = spawn(program, [...file, '-h', url, '-d', '0'], { stdio: 'ignore' })
    this.#process = child
    for (let i = 0; i < startTries && child.exitCode === null; i++) {
      if (await isOpen(port)) return
      await delay(50)
    }
    await this.stop()
    const said = readFileSync(join(folder, 'slapd.conf'), 'utf8')
    throw new SystemError(`slapd did not start with\n${said}`)
  }

  async stop(): Promise<void> {
    const child = this.#process
    this.#process = undefined
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise(resolve => child.on('exit', resolve))
    child.kill('SIGTERM')
    await ended
  }
}

function isOpen(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    const settle = (isThere: boolean) => {
      socket.destroy()
      resolve(isThere)
    }
    socket.on('connect', () => settle(true))
    socket.on('error', () => settle(false))
  })
}

function configuration({ folder, certificate, key, suffix }: SlapdOptions): string {
  return `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile ${join(folder, 'slapd.pid')}
TLSCertificateFile ${certificate}
TLSCertificateKeyFile ${key}
# A bind without TLS is refused.
security simple_bind=128
database mdb
suffix "${suffix}"
directory ${join(folder, 'data')}
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
`
}

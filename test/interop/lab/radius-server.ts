/** Debian's FreeRADIUS in the namespace beyond the server, with a configuration of its own. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SystemError } from '../../../lib/core/errors.ts'
import { address, type Lab } from './lab.ts'

export const radiusSecret = 'a shared secret of the lab'
/** What the server is to the RADIUS server. */
const nasAddress = '198.51.100.1'

/** Who may come in, and what they are given. */
export const radiusUser = {
  name: 'ann',
  password: 'ann-pass',
  address: '10.77.0.77',
  class: '0x6f70656e726173',
} as const

/** Of everybody else, by whatever name. */
export const radiusPassword = 'the password that RADIUS knows'

export type RadiusRecord = ReadonlyMap<string, string>

/** What it proves itself with in EAP, and whose client certificates it believes: PEM files. */
export interface RadiusCertificates {
  readonly authority: string
  readonly cert: string
  readonly key: string
  /** The name in the certificate of the client that may come in with it. */
  readonly client: string
}

const startTimeoutMs = 15_000
const recordTimeoutMs = 15_000

export class RadiusServer {
  readonly #lab: Lab
  readonly #folder: string
  #process: ChildProcess | undefined

  constructor(lab: Lab, certificates: RadiusCertificates) {
    this.#lab = lab
    this.#folder = join(lab.folder, 'freeradius')
    rmSync(this.#folder, { recursive: true, force: true })
    mkdirSync(this.#folder, { mode: 0o755 })
    writeFileSync(join(this.#folder, 'radiusd.conf'), configuration(this.#folder, certificates))
    writeFileSync(
      join(this.#folder, 'users'),
      [
        `${radiusUser.name} Cleartext-Password := "${radiusUser.password}"`,
        `        Framed-IP-Address := ${radiusUser.address},`,
        '        Session-Timeout := 3600,',
        '        Acct-Interim-Interval := 60,',
        `        Class := ${radiusUser.class}`,
        // For whom it begins with EAP-TLS, and who comes in with nothing else.
        `${certificates.client} EAP-Type := TLS`,
        `DEFAULT Cleartext-Password := "${radiusPassword}"`,
        '',
      ].join('\n'),
    )
    writeFileSync(join(this.#folder, 'dictionary'), '')
  }

  /** Throws SystemError with the end of its log when it does not start. */
  async start(): Promise<void> {
    const args = ['netns', 'exec', this.#lab.beyond, 'freeradius', '-f', '-d', this.#folder]
    const child = spawn('ip', args, { stdio: 'ignore' })
    this.#process = child
    for (let waitedMs = 0; waitedMs < startTimeoutMs && child.exitCode === null; waitedMs += 100) {
      if (this.#log().includes('Ready to process requests')) return
      await delay(100)
    }
    await this.stop()
    throw new SystemError(`freeradius did not start: ${this.#log().slice(-2000)}`)
  }

  async stop(): Promise<void> {
    const child = this.#process
    this.#process = undefined
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise(resolve => child.on('exit', resolve))
    child.kill('SIGTERM')
    await ended
  }

  /** Its own accounting records, each a set of attributes; empty while there are none. */
  records(): RadiusRecord[] {
    const path = join(this.#folder, 'detail')
    if (!existsSync(path)) return []
    return readFileSync(path, 'utf8')
      .split('\n\n')
      .filter(record => record.trim() !== '')
      .map(
        record =>
          new Map(
            [...record.matchAll(/^\t([\w-]+) = "?(.*?)"?$/gm)].map(([, name = '', value = '']) => [
              name,
              value,
            ]),
          ),
      )
  }

  /** The first record with these values, which may yet come. Throws SystemError when it does not. */
  async record(wanted: Readonly<Record<string, string>>): Promise<RadiusRecord> {
    const isWanted = (record: RadiusRecord) =>
      Object.entries(wanted).every(([name, value]) => record.get(name) === value)
    for (let waitedMs = 0; waitedMs < recordTimeoutMs; waitedMs += 200) {
      const found = this.records().find(isWanted)
      if (found !== undefined) return found
      await delay(200)
    }
    throw new SystemError(`FreeRADIUS has no record with ${JSON.stringify(wanted)}`)
  }

  /** The output of radclient, which asks the server's port of dynamic authorization. */
  ask(what: 'coa' | 'disconnect', attributes: readonly string[]): Promise<string> {
    const now = Math.floor(Date.now() / 1000)
    const enter = ['netns', 'exec', this.#lab.beyond, 'radclient', '-x', '-r', '2', '-t', '5']
    const args = [...enter, `${nasAddress}:3799`, what, radiusSecret]
    return new Promise(resolve => {
      // A NAK is exit code 1, and its text is what matters.
      const child = execFile('ip', args, (_error, output, complaint) => resolve(output + complaint))
      child.stdin?.end(
        [...attributes, `Event-Timestamp=${now}`, 'Message-Authenticator=0x00'].join('\n'),
      )
    })
  }

  #log(): string {
    const path = join(this.#folder, 'radius.log')
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
  }
}

/** A short time for dead, so that a case need not wait long for a server that is back. */
const server = { address: address.beyond, secret: radiusSecret, deadSeconds: 2 }

/** The section `radius` of our own configuration. */
export const radiusSection = {
  nasAddress,
  authentication: { servers: [server], eap: true },
  accounting: { servers: [server] },
  dynamic: { listen: [nasAddress], clients: [{ address: address.beyond, secret: radiusSecret }] },
}

function configuration(folder: string, { authority, cert, key }: RadiusCertificates): string {
  return `
prefix = /usr
libdir = /usr/lib/freeradius
logdir = ${folder}
run_dir = ${folder}
raddbdir = ${folder}
pidfile = ${folder}/radiusd.pid
max_requests = 4096
log {
  destination = files
  file = ${folder}/radius.log
  auth = yes
}
security {
  max_attributes = 200
  reject_delay = 0
  status_server = yes
}
client vpn {
  ipaddr = ${nasAddress}
  secret = "${radiusSecret}"
  require_message_authenticator = yes
}
modules {
  pap { }
  chap { }
  mschap {
    use_mppe = yes
    with_ntdomain_hack = yes
  }
  eap {
    default_eap_type = mschapv2
    md5 { }
    mschapv2 { }
    tls-config lab {
      private_key_file = ${key}
      certificate_file = ${cert}
      ca_file = ${authority}
      ecdh_curve = prime256v1
      tls_min_version = "1.2"
      tls_max_version = "1.2"
    }
    tls {
      tls = lab
    }
    ttls {
      tls = lab
      default_eap_type = mschapv2
      virtual_server = lab
    }
    peap {
      tls = lab
      default_eap_type = mschapv2
      virtual_server = lab
    }
  }
  files {
    usersfile = ${folder}/users
  }
  detail {
    filename = ${folder}/detail
  }
}
server lab {
  listen {
    type = auth
    ipaddr = *
    port = 1812
  }
  listen {
    type = acct
    ipaddr = *
    port = 1813
  }
  authorize {
    files
    chap
    mschap
    eap {
      ok = return
    }
    pap
  }
  authenticate {
    Auth-Type PAP {
      pap
    }
    Auth-Type CHAP {
      chap
    }
    Auth-Type MS-CHAP {
      mschap
    }
    eap
  }
  post-auth {
    update reply {
      Message-Authenticator := 0x00
    }
    Post-Auth-Type REJECT {
      update reply {
        Message-Authenticator := 0x00
      }
    }
  }
  accounting {
    detail
  }
}
`
}

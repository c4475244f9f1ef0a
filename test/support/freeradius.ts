/** Debian's FreeRADIUS with a configuration of our own, run from a folder; and its accounting records. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SystemError } from '../../lib/core/errors.ts'

export interface FreeRadiusOptions {
  /** Its own; emptied first. */
  readonly folder: string
  /** A command that enters its network namespace: `ip netns exec NAME`. Absent: this one. */
  readonly enter?: readonly string[]
  /** Where it listens; absent: everywhere. */
  readonly address?: string
  readonly ports?: { readonly authentication: number; readonly accounting: number }
  /** Who may ask: an address. */
  readonly client: string
  readonly secret: string
  /** Lines of its file of users. */
  readonly users: readonly string[]
  /** PEM files: what it proves itself with in EAP, and whose client certificates it believes. */
  readonly eap?: { readonly authority: string; readonly cert: string; readonly key: string }
}

export type AccountingDetail = ReadonlyMap<string, string>

const startTimeoutMs = 20_000
const recordTimeoutMs = 15_000

export class FreeRadius {
  readonly #options: FreeRadiusOptions
  #process: ChildProcess | undefined

  constructor(options: FreeRadiusOptions) {
    this.#options = options
    const { folder, users } = options
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { mode: 0o755 })
    writeFileSync(join(folder, 'radiusd.conf'), configuration(options))
    writeFileSync(join(folder, 'users'), [...users, ''].join('\n'))
    writeFileSync(join(folder, 'dictionary'), '')
  }

  /** Throws SystemError with the end of its log when it does not start. */
  async start(): Promise<void> {
    const { folder, enter = [] } = this.#options
    rmSync(join(folder, 'radius.log'), { force: true })
    const [command = '', ...args] = [...enter, 'freeradius', '-f', '-d', folder]
    const child = spawn(command, args, { stdio: 'ignore' })
    let fault = ''
    child.on('error', error => {
      fault = error.message
    })
    this.#process = child
    for (let waitedMs = 0; waitedMs < startTimeoutMs && fault === ''; waitedMs += 50) {
      if (this.#log().includes('Ready to process requests')) return
      if (child.exitCode !== null) break
      await delay(50)
    }
    await this.stop()
    throw new SystemError(`freeradius did not start: ${fault}${this.#log().slice(-2000)}`)
  }

  async stop(): Promise<void> {
    const child = this.#process
    this.#process = undefined
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise(resolve => child.on('exit', resolve))
    child.kill('SIGTERM')
    await ended
  }

  /** Its own accounting records, each a set of attributes; empty while there are none. */
  records(): AccountingDetail[] {
    const path = join(this.#options.folder, 'detail')
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
  async record(wanted: Readonly<Record<string, string>>): Promise<AccountingDetail> {
    const isWanted = (record: AccountingDetail) =>
      Object.entries(wanted).every(([name, value]) => record.get(name) === value)
    for (let waitedMs = 0; waitedMs < recordTimeoutMs; waitedMs += 200) {
      const found = this.records().find(isWanted)
      if (found !== undefined) return found
      await delay(200)
    }
    throw new SystemError(`FreeRADIUS has no record with ${JSON.stringify(wanted)}`)
  }

  #log(): string {
    const path = join(this.#options.folder, 'radius.log')
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
  }
}

function configuration(options: FreeRadiusOptions): string {
  const { folder, address = '*', client, secret, ports, eap } = options
  const { authentication = 1812, accounting = 1813 } = ports ?? {}
  return `
prefix = /usr
libdir = /usr/lib/freeradius
logdir = ${folder}
run_dir = ${folder}
raddbdir = ${folder}
pidfile = ${folder}/radiusd.pid
max_requests = 16384
log {
  destination = files
  file = ${folder}/radius.log
}
security {
  max_attributes = 200
  reject_delay = 0
  status_server = yes
}
client vpn {
  ipaddr = ${client}
  secret = "${secret}"
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
${eap === undefined ? '' : tunnels(eap)}
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
    ipaddr = ${address}
    port = ${authentication}
  }
  listen {
    type = acct
    ipaddr = ${address}
    port = ${accounting}
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

function tunnels({ authority, cert, key }: NonNullable<FreeRadiusOptions['eap']>): string {
  const inner = ['    tls = lab', '    default_eap_type = mschapv2', '    virtual_server = lab']
  return [
    'tls-config lab {',
    `  private_key_file = ${key}`,
    `  certificate_file = ${cert}`,
    `  ca_file = ${authority}`,
    '  ecdh_curve = prime256v1',
    '  tls_min_version = "1.2"',
    '  tls_max_version = "1.2"',
    '}',
    'tls {',
    '  tls = lab',
    '}',
    ...['ttls {', ...inner, '}', 'peap {', ...inner, '}'],
  ].join('\n')
}

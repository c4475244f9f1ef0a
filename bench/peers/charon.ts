/** strongSwan's daemon with ESP in user space (kernel-libipsec), at one end of a wire. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SystemError } from '../../lib/core/errors.ts'
import type { End, Wire } from '../namespaces.ts'
import { ensurePackage } from './package.ts'

const program = '/usr/lib/ipsec/charon'
const connectTimeoutMs = 10_000
const pollMs = 300

export interface CharonOptions {
  /** Where its files go. */
  readonly folder: string
  readonly other: End
  /** Ours and the other's, as IKE writes them; `%any` for the other's. */
  readonly identities: readonly [string, string]
  readonly key: string
  /** Our address in the tunnel. */
  readonly inside: string
  readonly remoteNetwork: string
  /** Written as strongSwan does. */
  readonly espProposal: string
}

/** Whether it can be had; `say` tells why not. */
export function ensureCharon(say: (text: string) => void): boolean {
  return (
    [
      [program, 'strongswan-charon'],
      ['swanctl', 'strongswan-swanctl'],
      ['/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so', 'libcharon-extra-plugins'],
      ['/usr/lib/ipsec/plugins/libstrongswan-openssl.so', 'libstrongswan-standard-plugins'],
    ] as const
  ).every(([command, name]) => ensurePackage(command, name, say))
}

export class Charon {
  readonly pid: number
  readonly #wire: Wire
  readonly #end: End
  readonly #options: CharonOptions

  private constructor(wire: Wire, end: End, options: CharonOptions, pid: number) {
    this.pid = pid
    this.#wire = wire
    this.#end = end
    this.#options = options
  }

  /** Throws SystemError when it does not start. */
  static async start(wire: Wire, end: End, options: CharonOptions): Promise<Charon> {
    const name = join(options.folder, end.namespace)
    writeFileSync(`${name}.conf`, settings(name))
    writeFileSync(`${name}.swanctl`, connection(end, options))
    wire.exec(end, 'ip', 'addr', 'add', `${options.inside}/32`, 'dev', 'lo')
    // Two daemons want one /run/charon.pid, so each has a /run of its own.
    const script = `mount -t tmpfs none /run && STRONGSWAN_CONF=${name}.conf exec ${program}`
    const { pid } = wire.spawn(end, 'unshare', ['-m', 'sh', '-c', script], { stdio: 'ignore' })
    if (pid === undefined) throw new SystemError('charon did not start')
    const charon = new Charon(wire, end, options, pid)
    await charon.#patiently(() => charon.#control('--load-all', '--file', `${name}.swanctl`))
    return charon
  }

  /** Dials, and waits until `target` answers through the tunnel. Throws SystemError. */
  async initiate(target: string): Promise<void> {
    this.#control('--initiate', '--child', 'c')
    const { inside } = this.#options
    await this.#patiently(() =>
      this.#wire.exec(this.#end, 'ping', '-c', '1', '-W', '1', '-I', inside, target),
    )
  }

  /** Of its TUN device, which is there from its start. */
  set mtuBytes(bytes: number) {
    const device = ['dev', 'ipsec0', 'mtu', String(bytes), 'txqueuelen', '1000']
    this.#wire.exec(this.#end, 'ip', 'link', 'set', ...device)
  }

  #control(...command: string[]): void {
    const socket = `unix://${join(this.#options.folder, this.#end.namespace)}.vici`
    this.#wire.exec(this.#end, 'swanctl', ...command, '--uri', socket)
  }

  async #patiently(attempt: () => unknown): Promise<void> {
    for (let waitedMs = 0; waitedMs < connectTimeoutMs; waitedMs += pollMs) {
      try {
        attempt()
        return
      } catch {
        await delay(pollMs)
      }
    }
    throw new SystemError('strongswan did not connect')
  }
}

/** Its openssl plugin stands first: with the generic one it would be several times slower. */
function settings(name: string): string {
  return `charon {
  load = random nonce openssl aesni curve25519 kdf pem pkcs1 x509 pubkey constraints kernel-libipsec kernel-netlink socket-default vici updown
  install_routes = yes
  process_route = no
  plugins {
    vici { socket = unix://${name}.vici }
    kernel-libipsec { allow_peer_ts = yes }
  }
}
`
}

function connection(end: End, options: CharonOptions): string {
  const { identities, other, key, inside, remoteNetwork, espProposal } = options
  return `connections { bench {
  version = 2
  local_addrs = ${end.address}
  remote_addrs = ${other.address}
  encap = yes
  proposals = aes128gcm16-prfsha256-curve25519
  local { auth = psk
    id = ${identities[0]} }
  remote { auth = psk
    id = ${identities[1]} }
  children { c {
    local_ts = ${inside}/32
    remote_ts = ${remoteNetwork}
    esp_proposals = ${espProposal} } }
} }
secrets { ike { secret = "${key}" } }
`
}

/**
 * strongSwan with ESP in user space (kernel-libipsec) at both ends, in UDP. Its openssl
 * plugin stands first: with the generic one it would be several times slower, and flatter us.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SystemError } from '../../lib/core/errors.ts'
import { type FlowResult, measureFlow, serveIperf } from '../iperf.ts'
import { type End, Wire } from '../namespaces.ts'
import { ensurePackage } from './package.ts'

const program = '/usr/lib/ipsec/charon'
const [insideA, insideB] = ['10.205.0.1', '10.205.1.1']
const connectTimeoutMs = 10_000

export class StrongswanPeer {
  readonly #wire: Wire
  readonly #folder: string
  readonly #pid: number
  readonly #stopIperf: () => Promise<void>

  private constructor(wire: Wire, folder: string, pid: number, stopIperf: () => Promise<void>) {
    this.#wire = wire
    this.#folder = folder
    this.#pid = pid
    this.#stopIperf = stopIperf
  }

  /**
   * Undefined when it cannot be had; `say` tells why. `espProposal` is written as strongSwan does. Throws
   * SystemError when it does not connect.
   */
  static async start(
    say: (text: string) => void,
    espProposal = 'aes128gcm16',
  ): Promise<StrongswanPeer | undefined> {
    for (const [command, name] of [
      [program, 'strongswan-charon'],
      ['swanctl', 'strongswan-swanctl'],
      ['/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so', 'libcharon-extra-plugins'],
      ['/usr/lib/ipsec/plugins/libstrongswan-openssl.so', 'libstrongswan-standard-plugins'],
    ] as const) {
      if (!ensurePackage(command, name, say)) return undefined
    }
    const folder = mkdtempSync(join(tmpdir(), 'openras-strongswan-'))
    const wire = new Wire('sw')
    try {
      const [, pid] = [
        startCharon(wire, wire.a, wire.b, folder, [insideA, insideB], espProposal),
        startCharon(wire, wire.b, wire.a, folder, [insideB, insideA], espProposal),
      ]
      await delay(1500)
      for (const end of [wire.a, wire.b])
        control(wire, end, folder, '--load-all', '--file', join(folder, `${end.namespace}.swanctl`))
      control(wire, wire.a, folder, '--initiate', '--child', 'c')
      for (const end of [wire.a, wire.b]) {
        wire.exec(end, 'ip', 'link', 'set', 'ipsec0', 'mtu', '1400', 'txqueuelen', '1000')
      }
      await waitForTunnel(wire)
      return new StrongswanPeer(wire, folder, pid, await serveIperf(wire, wire.b))
    } catch (error) {
      await wire.close()
      rmSync(folder, { recursive: true })
      throw error
    }
  }

  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult> {
    const isReverse = direction === 'down'
    return measureFlow(
      { from: this.#wire.a, target: insideB, streams, seconds, isReverse },
      this.#pid,
    )
  }

  async close(): Promise<void> {
    await this.#stopIperf()
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }
}

/** The process number of the daemon. */
function startCharon(
  wire: Wire,
  end: End,
  other: End,
  folder: string,
  [inside, otherInside]: readonly [string, string],
  espProposal: string,
): number {
  const name = join(folder, end.namespace)
  const socket = `unix://${name}.vici`
  writeFileSync(
    `${name}.conf`,
    `charon {
  load = random nonce openssl aesni curve25519 kdf pem pkcs1 x509 pubkey constraints kernel-libipsec kernel-netlink socket-default vici updown
  install_routes = yes
  process_route = no
  plugins {
    vici { socket = ${socket} }
    kernel-libipsec { allow_peer_ts = yes }
  }
}
`,
  )
  writeFileSync(
    `${name}.swanctl`,
    `connections { bench {
  version = 2
  local_addrs = ${end.address}
  remote_addrs = ${other.address}
  encap = yes
  proposals = aes128gcm16-prfsha256-curve25519
  local { auth = psk
    id = ${end.address} }
  remote { auth = psk
    id = ${other.address} }
  children { c {
    local_ts = ${inside}/32
    remote_ts = ${otherInside}/32
    esp_proposals = ${espProposal} } }
} }
secrets { ike { secret = "bench" } }
`,
  )
  wire.exec(end, 'ip', 'addr', 'add', `${inside}/32`, 'dev', 'lo')
  // Both daemons want /run/charon.pid, so each has a /run of its own.
  const script = `mount -t tmpfs none /run && STRONGSWAN_CONF=${name}.conf exec ${program}`
  const { pid } = wire.spawn(end, 'unshare', ['-m', 'sh', '-c', script], { stdio: 'ignore' })
  if (pid === undefined) throw new SystemError('charon did not start')
  return pid
}

function control(wire: Wire, end: End, folder: string, ...command: string[]): void {
  wire.exec(end, 'swanctl', ...command, '--uri', `unix://${join(folder, end.namespace)}.vici`)
}

async function waitForTunnel(wire: Wire): Promise<void> {
  for (let waitedMs = 0; waitedMs < connectTimeoutMs; waitedMs += 300) {
    try {
      wire.exec(wire.a, 'ping', '-c', '1', '-W', '1', '-I', insideA, insideB)
      return
    } catch {
      await delay(300)
    }
  }
  throw new SystemError('strongswan did not connect')
}

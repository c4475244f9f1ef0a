/**
 * OpenVPN in TCP mode with AES-256-GCM, without kernel offload: the peer that SSTP is compared with,
 * because both carry packets in TLS-sized records over one TCP connection in user space.
 */
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SystemError } from '../../lib/core/errors.ts'
import { type FlowResult, measureFlow, serveIperf } from '../iperf.ts'
import { Wire } from '../namespaces.ts'
import { ensurePackage } from './package.ts'

/** The server's address in the tunnel. */
const tunnelServer = '10.204.0.1'
const port = '1194'
const connectTimeoutMs = 20_000

export interface OpenvpnOptions {
  readonly protocol: 'tcp' | 'udp'
  say(text: string): void
}

/** A running pair of OpenVPN processes with a tunnel between them. */
export class OpenvpnPeer {
  readonly #wire: Wire
  readonly #folder: string
  readonly #serverPid: number
  readonly #stopIperf: () => Promise<void>

  private constructor(wire: Wire, folder: string, pid: number, stopIperf: () => Promise<void>) {
    this.#wire = wire
    this.#folder = folder
    this.#serverPid = pid
    this.#stopIperf = stopIperf
  }

  /** Undefined when OpenVPN cannot be had; `say` tells why. Throws SystemError when it does not connect. */
  static async start({ protocol, say }: OpenvpnOptions): Promise<OpenvpnPeer | undefined> {
    if (!ensurePackage('openvpn', 'openvpn', say)) return undefined
    const folder = mkdtempSync(join(tmpdir(), 'openras-openvpn-'))
    const wire = new Wire('ov')
    try {
      const server = makeIdentity(folder, 'server')
      const client = makeIdentity(folder, 'client')
      const common = [
        ...['--dev', 'tun', '--tun-mtu', '1500', '--mssfix', '0', '--txqueuelen', '1000'],
        ...['--data-ciphers', 'AES-256-GCM', '--disable-dco', '--topology', 'subnet'],
        ...['--verb', '1', ...(protocol === 'tcp' ? ['--tcp-nodelay'] : [])],
      ]
      const serverProcess = wire.spawn(
        wire.b,
        'openvpn',
        [
          ...[...common, '--proto', protocol === 'tcp' ? 'tcp-server' : 'udp', '--port', port],
          ...['--local', wire.b.address, '--mode', 'server', '--tls-server', '--dh', 'none'],
          ...['--server', '10.204.0.0', '255.255.255.0', ...files(server)],
          ...['--peer-fingerprint', client.fingerprint, '--log', join(folder, 'server.log')],
        ],
        { stdio: 'ignore' },
      )
      wire.spawn(
        wire.a,
        'openvpn',
        [
          ...[...common, '--proto', protocol === 'tcp' ? 'tcp-client' : 'udp', '--nobind'],
          ...['--remote', wire.b.address, port, '--tls-client', '--pull', ...files(client)],
          ...['--connect-retry', '1', '--connect-retry-max', '20'],
          ...['--peer-fingerprint', server.fingerprint, '--log', join(folder, 'client.log')],
        ],
        { stdio: 'ignore' },
      )
      await waitForTunnel(wire, folder)
      const { pid } = serverProcess
      if (pid === undefined) throw new SystemError('openvpn did not start')
      return new OpenvpnPeer(wire, folder, pid, await serveIperf(wire, wire.b))
    } catch (error) {
      await wire.close()
      rmSync(folder, { recursive: true })
      throw error
    }
  }

  /** Goodput from the client's side, and what it costs the server process. */
  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult> {
    return measureFlow(
      {
        from: this.#wire.a,
        target: tunnelServer,
        streams,
        seconds,
        isReverse: direction === 'down',
      },
      this.#serverPid,
    )
  }

  async close(): Promise<void> {
    await this.#stopIperf()
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }
}

interface Identity {
  readonly cert: string
  readonly key: string
  /** SHA-256, colons between the bytes. */
  readonly fingerprint: string
}

function makeIdentity(folder: string, name: string): Identity {
  const [cert, key] = [join(folder, `${name}.crt`), join(folder, `${name}.key`)]
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-days', '2', '-subj', `/CN=${name}`, '-keyout', key, '-out', cert],
    ],
    { stdio: 'pipe' },
  )
  return { cert, key, fingerprint: new X509Certificate(readFileSync(cert)).fingerprint256 }
}

function files(identity: Identity): string[] {
  return ['--cert', identity.cert, '--key', identity.key]
}

async function waitForTunnel(wire: Wire, folder: string): Promise<void> {
  const isDone = () => {
    try {
      wire.exec(wire.a, 'ping', '-c', '1', '-W', '1', tunnelServer)
      return true
    } catch {
      return false
    }
  }
  for (let waitedMs = 0; waitedMs < connectTimeoutMs; waitedMs += 300) {
    if (isDone()) return
    await delay(300)
  }
  const log = readFileSync(join(folder, 'client.log'), 'utf8').split('\n').slice(-5).join('\n')
  throw new SystemError(`openvpn did not connect: ${log}`)
}

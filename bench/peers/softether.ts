/**
 * SoftEther's L2TP/IPsec server with our client: a virtual hub whose frames go to a TAP device, so that
 * nothing but ESP, L2TP and PPP is done in its process. It knows no AES-GCM.
 */
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf, SystemError } from '../../lib/core/errors.ts'
import { cpuSecondsOf, type FlowResult, measureFlow, residentMiBOf, serveIperf } from '../iperf.ts'
import {
  dialL2tp,
  type L2tpAccount,
  type L2tpCallsResult,
  withL2tpCalls,
} from '../l2tp-dialling.ts'
import { stop, Wire } from '../namespaces.ts'
import { ensurePackage } from './package.ts'

const program = '/usr/libexec/softether/vpnserver/vpnserver'
const port = '5555'
/** It takes nine characters at most for a preshared key. */
const account: L2tpAccount = {
  preSharedKey: 'benchkey',
  userName: 'bench',
  password: 'bench-password',
}
const tap = 'tap_bench'
const [insideServer, insideHost, insideMask] = ['10.206.0.1', '10.206.0.2', '255.255.0.0']
const commands = [
  'HubCreate bench /PASSWORD:bench',
  `IPsecEnable /L2TP:yes /L2TPRAW:no /ETHERIP:no /PSK:${account.preSharedKey} /DEFAULTHUB:bench`,
  'BridgeCreate bench /DEVICE:bench /TAP:yes',
  'Hub bench',
  `UserCreate ${account.userName} /GROUP:none /REALNAME:none /NOTE:none`,
  `UserPasswordSet ${account.userName} /PASSWORD:${account.password}`,
  // A DHCP server for the hub, without its NAT in user space.
  `SecureNatHostSet /MAC:none /IP:${insideHost} /MASK:${insideMask}`,
  `DhcpSet /START:10.206.1.1 /END:10.206.250.250 /MASK:${insideMask} /EXPIRE:7200 /GW:${insideServer} /DNS:none /DNS2:none /DOMAIN:none /LOG:no`,
  'NatDisable',
  'DhcpEnable',
  'SecureNatEnable',
]
const connectTimeoutMs = 20_000
const pollMs = 300

export class SoftetherPeer {
  readonly #wire = new Wire('se')
  readonly #folder = mkdtempSync(join(tmpdir(), 'openras-softether-'))
  #pid = 0
  #client: ChildProcess | undefined
  #stopIperf: (() => Promise<void>) | undefined

  /** Undefined when it cannot be had; `say` tells why. Throws SystemError when no call comes up. */
  static async start(
    say: (text: string) => void,
    cipher: string,
  ): Promise<SoftetherPeer | undefined> {
    for (const [command, name] of [
      [program, 'softether-vpnserver'],
      ['vpncmd', 'softether-vpncmd'],
    ] as const) {
      if (!ensurePackage(command, name, say)) return undefined
    }
    const peer = new SoftetherPeer()
    try {
      await peer.#begin()
      await peer.#dial(cipher)
      return peer
    } catch (error) {
      await peer.close()
      throw error
    }
  }

  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult> {
    const isReverse = direction === 'down'
    const flow = { from: this.#wire.a, target: insideServer, streams, seconds, isReverse }
    return measureFlow(flow, this.#pid)
  }

  /** User and system time of the server so far, seconds. */
  get serverCpuSeconds(): number {
    return cpuSecondsOf(this.#pid)
  }

  /** Resident memory of the server now, MiB. */
  get serverMemoryMiB(): number {
    return residentMiBOf(this.#pid)
  }

  /** Without the call: dials many from one process and calls `whileUp` while all are up. */
  async withCalls(
    cipher: string,
    calls: number,
    parallel: number,
    whileUp: (result: L2tpCallsResult) => Promise<void>,
  ): Promise<void> {
    await this.#hangUp()
    await withL2tpCalls(this.#wire, account, cipher, { calls, parallel }, whileUp)
  }

  async close(): Promise<void> {
    await this.#stopIperf?.()
    await this.#hangUp()
    // Its supervisor goes without it.
    if (this.#pid > 0) process.kill(this.#pid)
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }

  async #begin(): Promise<void> {
    const wire = this.#wire
    // It writes to fixed places, so it has its own of each.
    const folders = ['/var/lib/softether', '/var/log/softether', '/run']
    const mounts = folders.map(folder => `mount -t tmpfs none ${folder}`)
    const script = [...mounts, 'mkdir /run/softether', `exec ${program} execsvc`].join(' && ')
    const supervisor = wire.spawn(wire.b, 'unshare', ['-m', 'sh', '-c', script], {
      stdio: 'ignore',
    })
    const file = join(this.#folder, 'commands')
    writeFileSync(file, commands.join('\n'))
    await patiently(() =>
      wire.exec(wire.b, 'vpncmd', `localhost:${port}`, '/SERVER', `/IN:${file}`),
    )
    // The work is done by a child of the program that was started.
    const { pid = 0 } = supervisor
    this.#pid = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim())
    await patiently(() => wire.exec(wire.b, 'ip', 'addr', 'add', `${insideServer}/16`, 'dev', tap))
    wire.exec(wire.b, 'ip', 'link', 'set', tap, 'txqueuelen', '1000')
    this.#stopIperf = await serveIperf(wire, wire.b)
  }

  async #dial(cipher: string): Promise<void> {
    const wire = this.#wire
    const { client, tunName } = await dialL2tp(wire, account, cipher)
    this.#client = client
    wire.exec(wire.a, 'ip', 'route', 'replace', insideServer, 'dev', tunName)
    await patiently(() => wire.exec(wire.a, 'ping', '-c', '1', '-W', '1', insideServer))
  }

  async #hangUp(): Promise<void> {
    if (this.#client !== undefined) await stop(this.#client, 10_000)
    this.#client = undefined
  }
}

/** Until it does not throw any more. Throws SystemError when it still does at the end. */
async function patiently(attempt: () => unknown): Promise<void> {
  for (let waitedMs = 0; ; waitedMs += pollMs) {
    try {
      attempt()
      return
    } catch (error) {
      if (waitedMs >= connectTimeoutMs) throw new SystemError(`softether: ${messageOf(error)}`)
      await delay(pollMs)
    }
  }
}

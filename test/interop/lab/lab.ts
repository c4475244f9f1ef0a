/**
 * The network that interop cases run in, made of namespaces that have no way out:
 *
 *     guests 198.18.0.11 ... -- bridge (wan) -- 198.18.0.1 server 198.51.100.1 -- 198.51.100.2 beyond
 *
 * One guest may stand behind a NAT: 192.168.77.N -- bridge (home) 192.168.77.1, 198.18.0.100 -- wan.
 * `beyond` has no IPv4 route to the addresses of the tunnels: what it answers was translated.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Guest } from './guest.ts'

export const address = {
  server: '198.18.0.1',
  beyond: '198.51.100.2',
  beyondIpv6: 'fd99::2',
  /** Of the NAT, outside and inside. */
  nat: '198.18.0.100',
  natInside: '192.168.77.1',
} as const

/** Inside the tunnels. */
export const tunnel = {
  server: '10.77.0.1',
  ipv4: '10.77.0.0/24',
  ipv6: 'fd77::/48',
} as const

/** Of this process. */
let labs = 0

export class Lab {
  readonly folder: string
  readonly #prefix = `oi${process.pid}x${labs++}`
  readonly server: string
  readonly wan: string
  readonly beyond: string
  /** Behind the NAT; made when it is first asked for. */
  readonly home: string
  readonly #guests = new Map<number, Promise<Guest>>()
  #hasHome = false

  constructor() {
    const prefix = this.#prefix
    this.folder = mkdtempSync(join(tmpdir(), 'openras-interop-'))
    this.server = `${prefix}-srv`
    this.wan = `${prefix}-wan`
    this.beyond = `${prefix}-far`
    this.home = `${prefix}-nat`
    const { server, wan, beyond } = this
    for (const namespace of [server, wan, beyond]) {
      ip('netns', 'add', namespace)
      ip('-n', namespace, 'link', 'set', 'lo', 'up')
    }
    ip('-n', wan, 'link', 'add', 'br0', 'type', 'bridge')
    ip('-n', wan, 'addr', 'add', '198.18.0.254/24', 'dev', 'br0')
    ip('-n', wan, 'link', 'set', 'br0', 'up')
    ip('-n', server, 'link', 'add', 'wan0', 'type', 'veth', 'peer', 'name', 'srv0', 'netns', wan)
    ip('-n', wan, 'link', 'set', 'srv0', 'master', 'br0', 'up')
    ip('-n', server, 'addr', 'add', `${address.server}/24`, 'dev', 'wan0')
    ip('-n', server, 'link', 'set', 'wan0', 'up')
    ip('-n', server, 'link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', beyond)
    ip('-n', server, 'addr', 'add', '198.51.100.1/24', 'dev', 'lan0')
    ip('-n', server, 'addr', 'add', 'fd99::1/64', 'dev', 'lan0', 'nodad')
    ip('-n', server, 'link', 'set', 'lan0', 'up')
    ip('-n', beyond, 'addr', 'add', `${address.beyond}/24`, 'dev', 'eth0')
    ip('-n', beyond, 'addr', 'add', `${address.beyondIpv6}/64`, 'dev', 'eth0', 'nodad')
    ip('-n', beyond, 'link', 'set', 'eth0', 'up')
    ip('-n', beyond, 'route', 'add', tunnel.ipv6, 'via', 'fd99::1')
  }

  /** The guest with this number, booted when it is first asked for. */
  guest(number: number): Promise<Guest> {
    const known = this.#guests.get(number)
    if (known !== undefined) return known
    const folder = join(this.folder, `guest${number}`)
    mkdirSync(folder)
    const guest = Guest.boot({
      name: `${this.#prefix}-${number}`,
      folder,
      namespace: this.wan,
      bridge: 'br0',
      address: `198.18.0.${number}/24`,
      number,
    })
    this.#guests.set(number, guest)
    return guest
  }

  /** A guest behind the NAT; its default route leads through it. */
  async guestBehindNat(number: number): Promise<Guest> {
    const known = this.#guests.get(number)
    if (known !== undefined) return known
    this.#makeHome()
    const folder = join(this.folder, `guest${number}`)
    mkdirSync(folder)
    const guest = Guest.boot({
      name: `${this.#prefix}-${number}`,
      folder,
      namespace: this.home,
      bridge: 'br0',
      address: `192.168.77.${number}/24`,
      number,
    })
    this.#guests.set(number, guest)
    await (await guest).run(`ip route add default via ${address.natInside}`)
    return guest
  }

  /** The NAT forgets its mappings and gives the next ones other ports. */
  rebindNat(): void {
    const rules = [
      'flush ruleset',
      'table ip nat {',
      '  chain out { type nat hook postrouting priority srcnat;',
      `    oifname wan0 ip protocol udp masquerade to :${this.#natPort}-${this.#natPort + 99}`,
      '    oifname wan0 masquerade',
      '  }',
      '}',
    ]
    execFileSync('ip', ['netns', 'exec', this.home, 'nft', '-f', '-'], { input: rules.join('\n') })
    this.#natPort += 100
    // The kernel forgets the mappings of an interface that goes down.
    ip('-n', this.home, 'link', 'set', 'wan0', 'down')
    ip('-n', this.home, 'link', 'set', 'wan0', 'up')
  }

  #natPort = 20_000

  #makeHome(): void {
    if (this.#hasHome) return
    this.#hasHome = true
    const { home, wan } = this
    ip('netns', 'add', home)
    ip('-n', home, 'link', 'set', 'lo', 'up')
    ip('-n', home, 'link', 'add', 'br0', 'type', 'bridge')
    ip('-n', home, 'addr', 'add', `${address.natInside}/24`, 'dev', 'br0')
    ip('-n', home, 'link', 'set', 'br0', 'up')
    ip('-n', home, 'link', 'add', 'wan0', 'type', 'veth', 'peer', 'name', 'nat0', 'netns', wan)
    ip('-n', wan, 'link', 'set', 'nat0', 'master', 'br0', 'up')
    ip('-n', home, 'addr', 'add', `${address.nat}/24`, 'dev', 'wan0')
    ip('-n', home, 'link', 'set', 'wan0', 'up')
    this.exec(home, 'sysctl', '-qw', 'net.ipv4.ip_forward=1')
    this.rebindNat()
  }

  /** The output of a command that runs in one of the namespaces. Throws when it fails. */
  exec(namespace: string, ...command: string[]): string {
    return execFileSync('ip', ['netns', 'exec', namespace, ...command], { encoding: 'utf8' })
  }

  /** What runs in one of the namespaces. */
  processes(namespace: string): number[] {
    const pids = output('ip', 'netns', 'pids', namespace).split('\n')
    return pids.filter(pid => pid !== '').map(Number)
  }

  /** Ends everything; `isKept` leaves the logs. */
  async close(isKept: boolean): Promise<void> {
    for (const guest of this.#guests.values()) {
      await guest.then(
        running => running.halt(),
        () => undefined,
      )
    }
    const made = [this.server, this.wan, this.beyond, ...(this.#hasHome ? [this.home] : [])]
    for (const namespace of made) {
      // Servers and iperf3 that still run would keep the namespace alive.
      for (const pid of this.processes(namespace)) kill(pid)
      ip('netns', 'del', namespace)
    }
    if (!isKept) rmSync(this.folder, { recursive: true, force: true })
  }
}

function output(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8' })
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended just now.
  }
}

function ip(...args: string[]): void {
  execFileSync('ip', args)
}

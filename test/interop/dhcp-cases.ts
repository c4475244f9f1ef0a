/** Addresses that Debian's dnsmasq leases, for stock SSTP clients: they come, go, and survive a crash. */
import { type ChildProcess, spawn } from 'node:child_process'
import { copyFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type CaseContext, CheckError, expect, type InteropCase } from './interop-case.ts'
import type { Guest } from './lab/guest.ts'
import { address, type Lab, tunnel } from './lab/lab.ts'
import { users } from './server-process.ts'

/** Longer than a question to a server that does not answer, and the client's own patience with it. */
const refusalSeconds = 25

const sections = {
  addresses: {
    server: tunnel.server,
    ipv4: [tunnel.ipv4],
    dns: [tunnel.server],
    dhcp: { servers: [address.beyond] },
  },
}

/** dnsmasq beyond the server: it sees our relay agent, and clients only by what that tells. */
class DhcpServer {
  readonly #file: string
  readonly #process: ChildProcess

  constructor(lab: Lab) {
    this.#file = join(lab.folder, 'dnsmasq.leases')
    const options =
      '--keep-in-foreground --conf-file=/dev/null --port=0 --interface=eth0 --bind-interfaces ' +
      '--user=root --no-ping --dhcp-range=10.77.0.100,10.77.0.120,255.255.255.0,120 ' +
      `--pid-file=${lab.folder}/dnsmasq.pid --dhcp-leasefile=${this.#file}`
    const enter = ['netns', 'exec', lab.beyond, 'dnsmasq', ...options.split(' ')]
    this.#process = spawn('ip', enter, { stdio: 'ignore' })
  }

  /** Addresses and names of clients, sorted. */
  leases(): string[] {
    if (!existsSync(this.#file)) return []
    const lines = readFileSync(this.#file, 'utf8').trim().split('\n')
    return lines
      .filter(line => line !== '')
      .map(line => {
        const [, , leased = '', , id = ''] = line.split(' ')
        return `${leased} ${Buffer.from(id.replaceAll(':', ''), 'hex').subarray(1).toString()}`
      })
      .sort()
  }

  /** Until there are so many. Throws CheckError after 10 s. */
  async has(count: number): Promise<string[]> {
    for (let i = 0; i < 50; i++) {
      if (this.leases().length === count) return this.leases()
      await delay(200)
    }
    throw new CheckError(`not ${count} leases: ${this.leases().join(', ')}`)
  }

  stop(): void {
    this.#process.kill()
  }
}

/** The output of `script`, which must succeed. */
async function inGuest(guest: Guest, script: string): Promise<string> {
  const { code, output } = await guest.run(script)
  if (code !== 0) throw new CheckError(`${script}\n${output}`)
  return output
}

/** pppd sets the address of its device a moment before the device is up. */
async function route(guest: Guest): Promise<void> {
  for (const target of [tunnel.ipv4, address.beyond]) {
    const replace = `ip route replace ${target} dev ppp0`
    await inGuest(guest, `for i in $(seq 50); do ${replace} && exit 0; sleep 0.1; done; exit 1`)
  }
}

/** Its address. */
async function dial(
  context: CaseContext,
  guest: Guest,
  user: keyof typeof users = 'lab',
): Promise<string> {
  copyFileSync(context.ca.certificate, `${guest.folder}/ca.crt`)
  await inGuest(
    guest,
    `bash /lab/sstp-up.sh ${address.server} /out/ca.crt mschap-v2 ${user} ${users[user]}`,
  )
  await route(guest)
  await inGuest(guest, `ping -c 2 -i 0.2 -W 2 ${tunnel.server}`)
  return /inet ([\d.]+)/.exec(await inGuest(guest, 'ip -4 -o addr show dev ppp0'))?.[1] ?? ''
}

function hangUp(guest: Guest): Promise<string> {
  return inGuest(guest, '. /lab/ppp.sh; ppp_down')
}

const aaaDhcp: InteropCase = {
  name: 'aaa-dhcp',
  async run(context) {
    const { lab } = context
    const dhcp = new DhcpServer(lab)
    const server = await context.startServer({ sections })
    const guest = await lab.guest(11)
    let first = ''
    await context.check('a client has an address that dnsmasq leases to it', async () => {
      first = await dial(context, guest)
      const leases = await dhcp.has(1)
      expect(leases[0] === `${first} vpn.lab/lab/1`, `${first}, but dnsmasq has ${leases[0]}`)
      await inGuest(guest, `ping -c 2 -i 0.2 -W 2 ${address.beyond}`)
      const status = JSON.stringify(server.status())
      expect(status.includes('"relay":"198.51.100.1"'), status)
    })
    await context.check('and gives it back when it hangs up', async () => {
      await hangUp(guest)
      await dhcp.has(0)
    })
    await context.check('the same user has the same address again', async () => {
      const again = await dial(context, guest)
      expect(again === first, `${again} after ${first}`)
    })
    await context.check(
      'after kill -9 the next server finds the lease and goes on with it',
      async () => {
        await delay(1000)
        await server.kill()
        await hangUp(guest)
        await dhcp.has(1)
        await server.start()
        const again = await dial(context, guest)
        expect(again === first, `${again} after ${first}`)
        await dhcp.has(1)
        await hangUp(guest)
        await dhcp.has(0)
      },
    )
    await context.check('without a DHCP server nobody comes in, and is told soon', async () => {
      dhcp.stop()
      const began = performance.now()
      const refused = await dial(context, guest).then(
        () => false,
        () => true,
      )
      expect(refused, 'the client connected')
      const seconds = (performance.now() - began) / 1000
      expect(seconds < refusalSeconds, `after ${seconds.toFixed(0)} s`)
      await hangUp(guest)
    })
  },
}

export const dhcpCases = [aaaDhcp]

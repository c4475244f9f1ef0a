/** Access policies on real packets: who may come in, filters, rates and quarantine of a stock SSTP client. */
import { copyFileSync, readFileSync } from 'node:fs'
import { type CaseContext, CheckError, expect, type InteropCase } from './interop-case.ts'
import type { Guest } from './lab/guest.ts'
import { address, tunnel } from './lab/lab.ts'

/** Bits a second from the client, and what iperf3 may measure of it with a burst. */
const limited = 600_000
const mostMbitPerSecond = 1

const password = 'policy-pass'

const sections = {
  users: ['guest', 'keeper', 'banned', 'free'].map(name => ({ name, password, groups: [name] })),
  filters: {
    'server-only': [
      `permit in ip from assigned to ${tunnel.server}`,
      `permit out ip from ${tunnel.server} to assigned`,
    ],
    'no-iperf': ['deny in tcp from assigned to any 5201', 'permit in ip from any to any'],
  },
  policies: [
    {
      name: 'guests',
      when: { groups: ['guest'], protocols: ['sstp'], methods: ['mschapv2'] },
      give: {
        filter: 'no-iperf',
        quarantine: { filter: 'server-only' },
        receiveBitsPerSecond: limited,
      },
    },
    {
      name: 'for a moment',
      when: { groups: ['keeper'] },
      give: { quarantine: { timeoutSeconds: 5 } },
    },
    { name: 'never', when: { groups: ['banned'] }, access: 'deny', reason: 'no-dial-in' },
    {
      name: 'the others',
      when: {},
      give: { receiveBitsPerSecond: limited, sessionTimeoutSeconds: 20 },
    },
  ],
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

function dialScript(user: string): string {
  return `bash /lab/sstp-up.sh ${address.server} /out/ca.crt mschap-v2 ${user} ${password}`
}

async function dial(context: CaseContext, guest: Guest, user: string): Promise<void> {
  copyFileSync(context.ca.certificate, `${guest.folder}/ca.crt`)
  await inGuest(guest, dialScript(user))
  await route(guest)
}

function hangUp(guest: Guest): Promise<string> {
  return inGuest(guest, '. /lab/ppp.sh; ppp_down')
}

/** Within 30 s. */
async function isHungUp(guest: Guest): Promise<void> {
  await inGuest(
    guest,
    'for i in $(seq 150); do ip link show dev ppp0 >/dev/null 2>&1 || exit 0; sleep 0.2; done; exit 1',
  )
  await hangUp(guest)
}

async function passes(guest: Guest, target: string): Promise<void> {
  await inGuest(guest, `ping -c 2 -i 0.2 -W 2 ${target}`)
}

async function isStopped(guest: Guest, script: string): Promise<void> {
  const { code } = await guest.run(script)
  expect(code !== 0, `${script}: it passed`)
}

const ping = (target: string) => `ping -c 2 -i 0.2 -W 1 ${target}`
const connect = (port: number) => `timeout 3 bash -c 'exec 3<>/dev/tcp/${address.beyond}/${port}'`

const aaaPolicy: InteropCase = {
  name: 'aaa-policy',
  async run(context) {
    const { lab } = context
    const server = await context.startServer({ sections })
    for (const [port, name] of [
      [5201, 'a'],
      [5202, 'b'],
    ] as const) {
      const pidFile = `${lab.folder}/policy-${name}.pid`
      lab.exec(lab.beyond, 'iperf3', '-s', '-D', '-p', String(port), '-I', pidFile)
    }
    lab.exec(lab.server, 'iperf3', '-s', '-D', '-I', `${lab.folder}/policy.pid`)
    const guest = await lab.guest(11)
    await context.check('in quarantine a client reaches the server and nothing else', async () => {
      await dial(context, guest, 'guest')
      await passes(guest, tunnel.server)
      await isStopped(guest, ping(address.beyond))
      await isStopped(guest, connect(5202))
      const status = JSON.stringify(server.status())
      expect(status.includes('"isQuarantined":true'), status)
      expect(status.includes('"policy":"guests"'), status)
    })
    await context.check('released, its own filter holds', async () => {
      expect(server.command('release', 'guest').includes('1 released'), 'nothing was released')
      await passes(guest, address.beyond)
      await inGuest(guest, connect(5202))
      await isStopped(guest, connect(5201))
      expect(!JSON.stringify(server.status()).includes('"isQuarantined":true'), 'still')
    })
    await hangUp(guest)
    await context.check('who is not released in time is hung up', async () => {
      await guest.run(dialScript('keeper'))
      await isHungUp(guest)
      const down = readFileSync(server.logFile, 'utf8')
        .split('\n')
        .find(line => line.includes('"session-down"') && line.includes('"keeper"'))
      expect(down?.includes('"cause":"session-timeout"') === true, down ?? 'it never was up')
    })
    await context.check('a policy refuses', async () => {
      const refused = await dial(context, guest, 'banned').then(
        () => false,
        () => true,
      )
      expect(refused, 'the client connected')
      await hangUp(guest)
    })
    await context.check('a rate and a session timeout hold', async () => {
      await dial(context, guest, 'free')
      const output = await inGuest(guest, `iperf3 -J -t 4 -c ${tunnel.server}`)
      const result = JSON.parse(output.slice(output.indexOf('{'))) as {
        end: { sum_received: { bits_per_second: number } }
      }
      const rate = result.end.sum_received.bits_per_second / 1e6
      expect(rate < mostMbitPerSecond && rate > 0.1, `${rate.toFixed(2)} Mbit/s`)
      await isHungUp(guest)
    })
  },
}

export const policyCases = [aaaPolicy]

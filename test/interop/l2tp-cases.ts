/** L2TP/IPsec with Debian's strongSwan, xl2tpd and pppd. */
import { type CaseContext, CheckError, expect, type InteropCase } from './interop-case.ts'
import type { Guest } from './lab/guest.ts'
import { address, tunnel } from './lab/lab.ts'
import { type ServerProcess, users } from './server-process.ts'
import { expectFlow } from './throughput.ts'

const key = 'a long and random preshared key'
const l2tp = { preSharedKeys: [{ key }] }

/** Far below what any machine reaches: this finds a broken path, not a slow one. */
const leastMbitPerSecond = 5
const pingSizes = [56, 1200, 4000]

interface DialOptions {
  readonly user?: keyof typeof users
  readonly password?: string
  readonly key?: string
  readonly method?: string
  readonly esp?: string
  readonly ike?: string
  /** Environment of the dialling script. */
  readonly environment?: string
}

/** The output of `script`, which must succeed. */
async function inGuest(guest: Guest, script: string, timeoutMs?: number): Promise<string> {
  const { code, output } = await guest.run(`. /lab/l2tp.sh; ${script}`, timeoutMs)
  if (code !== 0) throw new CheckError(`${script}\n${output.split('\n').slice(-30).join('\n')}`)
  return output
}

async function dial(guest: Guest, options: DialOptions = {}): Promise<void> {
  const { user = 'lab', method = 'mschap-v2', esp = '', ike = '', environment = '' } = options
  const { password = users[user] } = options
  await inGuest(
    guest,
    `l2tp_down; transport_connection ${address.server} '${options.key ?? key}' '${esp}' '${ike}'; charon_start && charon_up lab`,
  )
  await inGuest(guest, `${environment} l2tp_up ${address.server} ${user} ${password} ${method}`)
  await route(guest)
}

async function route(guest: Guest): Promise<void> {
  await inGuest(
    guest,
    `ip route replace ${tunnel.ipv4} dev ppp0; ip route replace ${address.beyond} dev ppp0`,
  )
}

function hangUp(guest: Guest): Promise<string> {
  return inGuest(guest, 'l2tp_down')
}

async function isRefused(guest: Guest, options: DialOptions): Promise<boolean> {
  const refused = await dial(guest, options).then(
    () => false,
    () => true,
  )
  await hangUp(guest)
  return refused
}

async function ping(guest: Guest, target: string, sizeBytes = 56): Promise<void> {
  await inGuest(guest, `ping -c 3 -i 0.2 -W 2 -s ${sizeBytes} ${target}`)
}

function serveIperf({ lab }: CaseContext): void {
  lab.exec(lab.server, 'iperf3', '-s', '-D', '-I', `${lab.folder}/iperf.pid`)
}

async function traffic(context: CaseContext, guest: Guest, title: string): Promise<void> {
  for (const size of pingSizes) {
    await context.check(`${title}: pings of ${size} bytes`, () => ping(guest, tunnel.server, size))
  }
  await context.check(`${title}: reaches a host beyond the server through NAT`, () =>
    ping(guest, address.beyond),
  )
  await context.check(`${title}: reaches a host beyond the server over IPv6`, async () => {
    await inGuest(
      guest,
      'for i in $(seq 50); do ip -6 -o addr show dev ppp0 scope global | grep -q fd77 && exit; sleep 0.2; done; ip -6 addr show dev ppp0; exit 1',
    )
    await inGuest(guest, `ip -6 route replace ${address.beyondIpv6} dev ppp0`)
    for (const size of pingSizes) await ping(guest, address.beyondIpv6, size)
  })
  for (const [direction, isDownload] of [
    ['up', false],
    ['down', true],
  ] as const) {
    await context.check(`${title}: iperf3 ${direction}`, async () => {
      await expectFlow(context.lab, guest, {
        isDownload,
        seconds: 3,
        atLeast: leastMbitPerSecond,
      })
    })
  }
}

/** How many of 20 packets a second were lost while `work` was done. */
async function lostMeanwhile(guest: Guest, seconds: number, work: string): Promise<number> {
  const output = await inGuest(
    guest,
    `ping -i 0.05 -c ${seconds * 20} -W 3 ${tunnel.server} >/out/ping.log 2>&1 & pinger=$!; ${work}; wait $pinger; cat /out/ping.log`,
  )
  const [, sent = '0', received = '0'] =
    /(\d+) packets transmitted, (\d+) received/.exec(output) ?? []
  expect(Number(sent) > 0, output)
  return Number(sent) - Number(received)
}

async function rekeys(context: CaseContext, guest: Guest, server: ServerProcess): Promise<void> {
  for (const [title, command] of [
    ['ESP pair', 'swanctl --rekey --child lab'],
    ['ISAKMP SA', 'swanctl --rekey --ike lab'],
  ] as const) {
    await context.check(`three rekeys of the ${title} under traffic lose nothing`, async () => {
      const lost = await lostMeanwhile(
        guest,
        6,
        `for i in 1 2 3; do sleep 1.2; ${command} >/dev/null || exit 1; done`,
      )
      expect(lost === 0, `${lost} packets lost`)
    })
  }
  await context.check('one session is left, and it is the same', () => {
    const status = server.status() as { l2tp?: { tunnels: number; sessions: number } }
    expect(status.l2tp?.tunnels === 1 && status.l2tp.sessions === 1, JSON.stringify(status.l2tp))
  })
}

const l2tpUsers: InteropCase = {
  name: 'l2tp-users',
  async run(context) {
    const server = await context.startServer({ l2tp })
    serveIperf(context)
    const guest = await context.lab.guest(11)
    await context.check('MS-CHAPv2: connects', () => dial(guest))
    await traffic(context, guest, 'MS-CHAPv2')
    await context.check('status shows the session', () => {
      const status = JSON.stringify(server.status())
      expect(status.includes('"lab"') && status.includes('"l2tp"'), status)
    })
    await rekeys(context, guest, server)
    await context.check('disconnect ends the session', async () => {
      server.command('disconnect', 'lab')
      await inGuest(
        guest,
        'for i in $(seq 50); do ip link show dev ppp0 >/dev/null 2>&1 || exit 0; sleep 0.2; done; exit 1',
      )
    })
    for (const [title, options] of [
      ['CHAP-MD5', { method: 'chap' }],
      ['PAP', { method: 'pap' }],
      ['AES-256-GCM and ECP-256', { esp: 'aes256gcm16', ike: 'aes256-sha256-ecp256' }],
      ['AES-128-CBC with SHA-256', { esp: 'aes128-sha256', ike: 'aes128-sha256-modp2048' }],
      ['xl2tpd without the L2TP of its kernel', { environment: 'XL2TPD_USERSPACE=yes' }],
    ] as const) {
      await context.check(`${title}: connects and pings`, async () => {
        await dial(guest, options)
        for (const size of pingSizes) await ping(guest, tunnel.server, size)
      })
    }
    await context.check('a wrong password is refused', async () => {
      expect(await isRefused(guest, { password: 'wrong' }), 'the client connected')
    })
    await context.check('a wrong preshared key is refused', async () => {
      expect(await isRefused(guest, { key: 'another key' }), 'the client connected')
    })
    await context.check('legacy algorithms are refused', async () => {
      const legacy = { ike: '3des-sha1-modp1024', esp: '3des-sha1' }
      expect(await isRefused(guest, legacy), 'the client connected')
    })
    await hangUp(guest)
  },
}

const l2tpNat: InteropCase = {
  name: 'l2tp-nat',
  async run(context) {
    const server = await context.startServer({ l2tp })
    serveIperf(context)
    const { lab } = context
    const [first, second] = [await lab.guestBehindNat(21), await lab.guestBehindNat(22)]
    await context.check('behind a NAT: connects', () => dial(first))
    await traffic(context, first, 'behind a NAT')
    await rekeys(context, first, server)
    await context.check('a second client behind the same NAT connects', () =>
      dial(second, { user: 'second' }),
    )
    await context.check('both are served at the same time', async () => {
      for (const size of pingSizes) {
        await Promise.all([ping(first, tunnel.server, size), ping(second, tunnel.server, size)])
      }
    })
    await Promise.all([hangUp(first), hangUp(second)])
  },
}

/** ESP as IP protocol 50. */
const l2tpPlainEsp: InteropCase = {
  name: 'l2tp-plainesp',
  async run(context) {
    const server = await context.startServer({ l2tp, ikev2: { plainEsp: true } })
    serveIperf(context)
    const guest = await context.lab.guest(11)
    await context.check('without UDP: connects', () => dial(guest))
    await context.check('no UDP encapsulation is in use', async () => {
      const state = await inGuest(guest, 'ip xfrm state')
      expect(!state.includes('encap'), state)
    })
    await traffic(context, guest, 'without UDP')
    await rekeys(context, guest, server)
    await hangUp(guest)
  },
}

const l2tpRestart: InteropCase = {
  name: 'l2tp-restart',
  async run(context) {
    const server = await context.startServer({ l2tp })
    const guest = await context.lab.guest(11)
    await context.check('connects', () => dial(guest))
    await context.check('a stop tells the client', async () => {
      await server.stop()
      await inGuest(
        guest,
        'for i in $(seq 50); do ip link show dev ppp0 >/dev/null 2>&1 || exit 0; sleep 0.2; done; exit 1',
      )
    })
    await context.check('after a start it dials again', async () => {
      await server.start()
      await dial(guest)
      await ping(guest, tunnel.server)
    })
    await context.check('after kill -9 the client dials again', async () => {
      await server.kill()
      await server.start()
      await dial(guest)
      await ping(guest, address.beyond)
    })
    await hangUp(guest)
  },
}

const l2tpWithoutIpsec: InteropCase = {
  name: 'l2tp-withoutipsec',
  async run(context) {
    const { lab } = context
    const server = await context.startServer({ l2tp })
    const guest = await lab.guest(11)
    const call = `l2tp_up ${address.server} lab ${users.lab}`
    await context.check('L2TP without IPsec is refused', async () => {
      const { code } = await guest.run(`. /lab/l2tp.sh; ${call}`, 120_000)
      await hangUp(guest)
      expect(code !== 0, 'the client connected')
    })
    await context.check('the server stops', () => server.stop())
    const open = await context.startServer({ l2tp: { ...l2tp, withoutIpsec: true } })
    serveIperf(context)
    await context.check('where it is allowed it connects', () =>
      inGuest(guest, call).then(() => route(guest)),
    )
    await context.check('the status warns of it', () => {
      const status = JSON.stringify(open.status())
      expect(status.includes('withoutIpsec'), status)
    })
    await traffic(context, guest, 'without IPsec')
    await hangUp(guest)
  },
}

export const l2tpCases = [l2tpUsers, l2tpNat, l2tpPlainEsp, l2tpRestart, l2tpWithoutIpsec]

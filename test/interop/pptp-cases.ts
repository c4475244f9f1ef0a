/** PPTP with Debian's pptp-linux, pppd and the MPPE of its kernel. */
import { CheckError, expect, type InteropCase } from './interop-case.ts'
import type { Guest } from './lab/guest.ts'
import { address, tunnel } from './lab/lab.ts'
import { multilinkCases } from './multilink-cases.ts'
import { users } from './server-process.ts'
import { expectFlow } from './throughput.ts'

/** Far below what any machine reaches: this finds a broken path, not a slow one. */
const leastMbitPerSecond = 5
const pingSizes = [56, 1200, 4000]

interface DialOptions {
  readonly user?: keyof typeof users
  readonly password?: string
  /** Of pppd. */
  readonly options?: readonly string[]
}

async function dial(guest: Guest, dialOptions: DialOptions = {}): Promise<void> {
  const { user = 'lab', options = ['require-mppe-128'] } = dialOptions
  const { password = users[user] } = dialOptions
  const words = options.map(option => `'${option}'`).join(' ')
  await inGuest(guest, `bash /lab/pptp-up.sh ${address.server} ${user} ${password} 0 ${words}`)
  await inGuest(guest, `ip route replace ${tunnel.ipv4} dev ppp0`)
  await inGuest(guest, `ip route replace ${address.beyond} dev ppp0`)
}

function hangUp(guest: Guest): Promise<string> {
  return inGuest(guest, '. /lab/ppp.sh; ppp_down')
}

/** The output of `script`, which must succeed. */
async function inGuest(guest: Guest, script: string): Promise<string> {
  const { code, output } = await guest.run(script)
  if (code !== 0) throw new CheckError(`${script}\n${output}`)
  return output
}

async function ping(guest: Guest, target: string, sizeBytes = 56): Promise<void> {
  await inGuest(guest, `ping -c 3 -i 0.2 -W 2 -s ${sizeBytes} ${target}`)
}

const netem = 'netem delay 5ms loss 2% reorder 95% 50%'

/** What leaves the guest, what comes to it, and both; how to begin and how to end that. */
const impairments = [
  [
    'towards the server',
    `modprobe sch_netem; tc qdisc replace dev vec0 root ${netem}`,
    'tc qdisc del dev vec0 root',
  ],
  [
    'towards the client',
    [
      'modprobe -a sch_netem sch_ingress act_mirred cls_matchall; modprobe ifb numifbs=1',
      'ip link set ifb0 up',
      'tc qdisc replace dev vec0 ingress',
      'tc filter replace dev vec0 ingress prio 1 matchall action mirred egress redirect dev ifb0',
      `tc qdisc replace dev ifb0 root ${netem}`,
    ].join(' && '),
    'true',
  ],
  [
    'both ways',
    `tc qdisc replace dev vec0 root ${netem}`,
    'tc qdisc del dev vec0 root && tc qdisc del dev vec0 ingress && tc qdisc del dev ifb0 root',
  ],
] as const

/** Pings of which less than two in five are lost: large ones are several packets, each way. */
async function lossyPing(guest: Guest, sizeBytes: number): Promise<void> {
  const words = `ping -c 20 -i 0.05 -W 2 -s ${sizeBytes} ${tunnel.server}`
  const output = await inGuest(guest, `${words} || true`)
  const lost = Number(/([\d.]+)% packet loss/.exec(output)?.[1] ?? 100)
  expect(lost < 40, `${lost} % of ${sizeBytes} bytes are lost`)
}

interface PptpStatusText {
  readonly pptp: { readonly counters: Readonly<Record<string, number>> }
}

async function isRefused(guest: Guest, options: DialOptions): Promise<boolean> {
  const refused = await dial(guest, options).then(
    () => false,
    () => true,
  )
  await hangUp(guest)
  return refused
}

async function ipv4Of(guest: Guest): Promise<string> {
  const output = await inGuest(guest, 'ip -4 -o addr show dev ppp0')
  return /inet ([\d.]+)/.exec(output)?.[1] ?? ''
}

async function hasMppe(guest: Guest, words: string): Promise<void> {
  await inGuest(guest, `grep -h '${words}' /out/ppp.log || { tail -40 /out/ppp.log; exit 1; }`)
}

const pptpRequired: InteropCase = {
  name: 'pptp-required',
  async run(context) {
    await context.startServer({ pptp: { enabled: true } })
    const guest = await context.lab.guest(11)
    for (const round of [1, 2, 3]) {
      await context.check(`connects with MPPE-128, round ${round}`, async () => {
        await dial(guest)
        await hasMppe(guest, 'MPPE 128-bit stateless compression enabled')
      })
      for (const size of pingSizes) {
        await context.check(`pings of ${size} bytes, round ${round}`, () =>
          ping(guest, tunnel.server, size),
        )
      }
      await context.check(`hangs up, round ${round}`, async () => {
        await hangUp(guest)
      })
    }
    await context.check('a client without MPPE is turned away', async () => {
      expect(await isRefused(guest, { options: ['nomppe'] }), 'the client connected')
    })
    await context.check('a client without CCP is turned away', async () => {
      expect(await isRefused(guest, { options: ['noccp'] }), 'the client connected')
    })
    await context.check('a client with 40 bits only is turned away', async () => {
      const options = ['require-mppe-40', 'nomppe-128']
      expect(await isRefused(guest, { options }), 'the client connected')
    })
    await context.check('a wrong password is refused', async () => {
      expect(await isRefused(guest, { password: 'wrong' }), 'the client connected')
    })
    await context.check('and the right client still gets in', () => dial(guest))
    await hangUp(guest)
  },
}

const pptpTraffic: InteropCase = {
  name: 'pptp-traffic',
  async run(context) {
    const server = await context.startServer({ pptp: { enabled: true } })
    const { lab } = context
    lab.exec(lab.server, 'iperf3', '-s', '-D', '-I', `${lab.folder}/iperf.pid`)
    const guest = await lab.guest(11)
    await context.check('connects', () => dial(guest))
    await context.check('reaches a host beyond the server through NAT', () =>
      ping(guest, address.beyond),
    )
    await context.check('reaches a host beyond the server over IPv6', async () => {
      const prefix = tunnel.ipv6.split('::')[0] ?? ''
      await inGuest(
        guest,
        `for i in $(seq 50); do ip -6 -o addr show dev ppp0 scope global | grep ${prefix} && exit; sleep 0.2; done; exit 1`,
      )
      await inGuest(guest, `ip -6 route replace ${address.beyondIpv6} dev ppp0`)
      for (const size of pingSizes) await ping(guest, address.beyondIpv6, size)
    })
    for (const [title, isDownload] of [
      ['up', false],
      ['down', true],
    ] as const) {
      await context.check(`iperf3 ${title}`, async () => {
        await expectFlow(lab, guest, { isDownload, seconds: 3, atLeast: leastMbitPerSecond })
      })
    }
    for (const [title, impair, mend] of impairments) {
      await context.check(`lost and reordered GRE, ${title}: pings and iperf3 go on`, async () => {
        await inGuest(guest, impair)
        for (const size of pingSizes) await lossyPing(guest, size)
        const isDownload = title !== 'towards the server'
        await expectFlow(lab, guest, { isDownload, seconds: 3, atLeast: 0.1 })
        await inGuest(guest, mend)
      })
    }
    for (const size of pingSizes) {
      await context.check(`pings of ${size} bytes as ever after that`, () =>
        ping(guest, tunnel.server, size),
      )
    }
    await context.check('the server has seen the loss, and has put packets in order', () => {
      const { counters } = (server.status() as PptpStatusText).pptp
      const [lost = 0, reordered = 0] = [counters['lostPackets'], counters['receivedReordered']]
      expect(lost > 0 && reordered > 0, JSON.stringify(counters))
    })
    const client = await ipv4Of(guest)
    await context.check('status shows the session and says that pptp is not safe', () => {
      const status = JSON.stringify(server.status())
      expect(status.includes('"lab"') && status.includes(client), status)
      expect(status.includes('pptp is on: whoever listens'), status)
    })
    await context.check('disconnect ends the session', async () => {
      server.command('disconnect', 'lab')
      await inGuest(
        guest,
        'for i in $(seq 50); do ip link show dev ppp0 >/dev/null 2>&1 || exit 0; sleep 0.2; done; exit 1',
      )
      expect(!JSON.stringify(server.status()).includes(client), 'status still shows it')
    })
    await hangUp(guest)
  },
}

const pptpTwo: InteropCase = {
  name: 'pptp-two',
  async run(context) {
    await context.startServer({ pptp: { enabled: true } })
    const [first, second] = await Promise.all([context.lab.guest(11), context.lab.guest(12)])
    await context.check('two clients connect at the same time', async () => {
      await Promise.all([dial(first), dial(second, { user: 'second' })])
    })
    await context.check('one pings the other, and back', async () => {
      const [a, b] = await Promise.all([ipv4Of(first), ipv4Of(second)])
      expect(a !== b && a !== '' && b !== '', `addresses ${a} and ${b}`)
      for (const size of pingSizes) {
        await ping(first, b, size)
        await ping(second, a, size)
      }
    })
    await context.check('one leaves and comes back while the other goes on', async () => {
      const pings = inGuest(second, `ping -c 60 -i 0.2 -W 2 ${tunnel.server}`)
      for (let round = 0; round < 2; round++) {
        await hangUp(first)
        await dial(first)
        await ping(first, tunnel.server)
      }
      await pings
      const a = await ipv4Of(first)
      await ping(second, a)
    })
    await Promise.all([hangUp(first), hangUp(second)])
  },
}

const pptpWeaker: InteropCase = {
  name: 'pptp-weaker',
  async run(context) {
    await context.startServer({
      pptp: {
        ...{ enabled: true, encryption: 'optional', keyBits: [40, 128], stateless: false },
        sendWindow: 'obeyed',
      },
    })
    const { lab } = context
    lab.exec(lab.server, 'iperf3', '-s', '-D', '-I', `${lab.folder}/iperf.pid`)
    const guest = await context.lab.guest(11)
    const variants = [
      ['without MPPE where it is optional', ['nomppe'], ''],
      ['MPPE-128', ['require-mppe-128'], 'MPPE 128-bit stateless'],
      ['MPPE-40', ['require-mppe-40', 'nomppe-128'], 'MPPE 40-bit'],
    ] as const
    for (const [title, options, words] of variants) {
      await context.check(`connects: ${title}`, async () => {
        await dial(guest, { options })
        if (words !== '') await hasMppe(guest, words)
      })
      for (const size of pingSizes) {
        await context.check(`pings of ${size} bytes: ${title}`, () =>
          ping(guest, tunnel.server, size),
        )
      }
      await context.check(`iperf3 within the window of the client: ${title}`, async () => {
        for (const isDownload of [false, true]) {
          await expectFlow(lab, guest, { isDownload, seconds: 3, atLeast: 0.1 })
        }
      })
      await hangUp(guest)
    }
  },
}

export const pptpCases = [pptpRequired, pptpTraffic, pptpTwo, pptpWeaker, ...multilinkCases]

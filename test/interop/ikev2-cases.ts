/** IKEv2 with Debian's strongSwan and the kernel's ESP. */
import { copyFileSync } from 'node:fs'
import { type CaseContext, CheckError, expect, type InteropCase } from './interop-case.ts'
import type { Guest } from './lab/guest.ts'
import { address, tunnel } from './lab/lab.ts'
import type { ServerProcess } from './server-process.ts'
import { users } from './server-process.ts'
import { expectFlow } from './throughput.ts'

const site = {
  key: 'a long and random preshared key',
  name: 'branch.lab',
  network: '10.88.0.0/24',
  host: '10.88.0.1',
} as const

/** Far below what any machine reaches: this finds a broken path, not a slow one. */
const leastMbitPerSecond = 20

/** The output of `script`, which must succeed. */
async function inGuest(guest: Guest, script: string, timeoutMs?: number): Promise<string> {
  const { code, output } = await guest.run(`. /lab/ikev2.sh; ${script}`, timeoutMs)
  if (code !== 0) throw new CheckError(`${script}\n${output.split('\n').slice(-25).join('\n')}`)
  return output
}

interface DialOptions {
  readonly auth?: 'eap-mschapv2' | 'eap-md5' | 'pubkey'
  readonly user?: string
  readonly password?: string
  /** Lines of strongswan.conf. */
  readonly charon?: readonly string[]
  readonly esp?: string
}

async function dial(context: CaseContext, guest: Guest, options: DialOptions = {}): Promise<void> {
  const { auth = 'eap-mschapv2', user = 'lab', password = users.lab, charon = [] } = options
  const { esp = '' } = options
  copyFileSync(context.ca.certificate, `${guest.folder}/ca.crt`)
  const lines = charon.map(line => `'${line}'`).join(' ')
  await inGuest(
    guest,
    `charon_stop; user_connection ${address.server} ${auth} '${user}' '${password}' ${esp}; charon_start ${lines} && charon_up lab`,
  )
}

function hangUp(guest: Guest): Promise<string> {
  return inGuest(guest, 'charon_stop')
}

async function ping(guest: Guest, target: string, sizeBytes = 56): Promise<void> {
  await inGuest(guest, `ping -c 3 -i 0.2 -W 2 -s ${sizeBytes} ${target}`)
}

async function pingSizes(guest: Guest, target: string): Promise<void> {
  for (const size of [56, 1200, 4000]) await ping(guest, target, size)
}

function serveIperf({ lab }: CaseContext): void {
  lab.exec(lab.server, 'iperf3', '-s', '-D', '-I', `${lab.folder}/iperf.pid`)
}

/**
 * Does `work` while 20 small packets a second flow; how many were lost. The pause lets what was on its
 * way at the end arrive.
 */
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

function spiCount(server: ServerProcess): number {
  const status = server.status() as { ikev2?: { childSas: number } }
  return status.ikev2?.childSas ?? -1
}

async function traffic(context: CaseContext, guest: Guest, title: string): Promise<void> {
  await context.check(`${title}: pings the server`, () => pingSizes(guest, tunnel.server))
  await context.check(`${title}: reaches a host beyond the server through NAT`, () =>
    ping(guest, address.beyond),
  )
  await context.check(`${title}: reaches a host beyond the server over IPv6`, () =>
    pingSizes(guest, address.beyondIpv6),
  )
  for (const [direction, isDownload] of [
    ['up', false],
    ['down', true],
  ] as const) {
    await context.check(`${title}: iperf3 ${direction}`, async () => {
      await expectFlow(context.lab, guest, {
        isDownload,
        seconds: 2,
        atLeast: leastMbitPerSecond,
      })
    })
  }
}

const ikev2Users: InteropCase = {
  name: 'ikev2-users',
  async run(context) {
    const server = await context.startServer()
    serveIperf(context)
    const guest = await context.lab.guest(11)
    await context.check('EAP-MSCHAPv2: connects', () => dial(context, guest))
    await traffic(context, guest, 'EAP-MSCHAPv2')
    await context.check('status shows the session', () => {
      const status = JSON.stringify(server.status())
      expect(status.includes('"lab"') && status.includes('"ikev2"'), status)
    })
    await context.check('disconnect ends the session', async () => {
      server.command('disconnect', 'lab')
      await inGuest(
        guest,
        'for i in $(seq 50); do swanctl --list-sas | grep -q ESTABLISHED || exit 0; sleep 0.2; done; exit 1',
      )
    })
    await context.check('EAP-MD5: connects', () => dial(context, guest, { auth: 'eap-md5' }))
    await context.check('EAP-MD5: pings', () => pingSizes(guest, tunnel.server))
    await context.check('a wrong password is refused', async () => {
      const refused = await dial(context, guest, { password: 'wrong' }).then(
        () => false,
        () => true,
      )
      expect(refused, 'the client connected')
    })
    for (const [title, esp] of [
      ['AES-256-CBC with SHA-256', 'aes256-sha256'],
      ['ChaCha20-Poly1305', 'chacha20poly1305'],
      ['AES-128-GCM with extended sequence numbers', 'aes128gcm16-esn'],
    ] as const) {
      await context.check(`${title}: connects and pings`, async () => {
        await dial(context, guest, { esp })
        await pingSizes(guest, tunnel.server)
      })
    }
    await hangUp(guest)
  },
}

const ikev2Certificate: InteropCase = {
  name: 'ikev2-certificate',
  async run(context) {
    await context.startServer({ ikev2: { clientAuthorities: [context.ca.certificate] } })
    serveIperf(context)
    const guest = await context.lab.guest(11)
    const client = context.ca.issueClient('client', 'client@lab')
    copyFileSync(client.cert, `${guest.folder}/client.crt`)
    copyFileSync(client.key, `${guest.folder}/client.key`)
    await context.check('a client certificate connects', () =>
      dial(context, guest, { auth: 'pubkey', user: 'client@lab' }),
    )
    await traffic(context, guest, 'certificate')
    await hangUp(guest)
  },
}

const ikev2Site: InteropCase = {
  name: 'ikev2-site',
  async run(context) {
    await context.startServer({
      ikev2: {
        sites: [{ identity: site.name, presharedKey: site.key, remoteNetworks: [site.network] }],
      },
    })
    const guest = await context.lab.guest(11)
    await context.check('a gateway with a preshared key connects', () =>
      inGuest(
        guest,
        `ip link add lan0 type dummy; ip addr add ${site.host}/24 dev lan0; ip link set lan0 up; site_connection ${address.server} '${site.key}' ${site.name} vpn.lab ${site.network} ${tunnel.ipv4}; charon_start && charon_up lab`,
      ).then(() => undefined),
    )
    await context.check('its network reaches ours', () =>
      inGuest(guest, `ping -c 3 -i 0.2 -W 2 -I ${site.host} ${tunnel.server}`).then(
        () => undefined,
      ),
    )
    await context.check('ours reaches its network', () => {
      context.lab.exec(context.lab.server, 'ping', '-c', '3', '-i', '0.2', '-W', '2', site.host)
    })
    await context.check('a wrong key is refused', async () => {
      const refused = await inGuest(
        guest,
        `charon_stop; site_connection ${address.server} 'another key' ${site.name} vpn.lab ${site.network} ${tunnel.ipv4}; charon_start && charon_up lab`,
      ).then(
        () => false,
        () => true,
      )
      expect(refused, 'the gateway connected')
    })
    await hangUp(guest)
  },
}

async function rekeys(context: CaseContext, guest: Guest, server: ServerProcess): Promise<void> {
  for (const [title, command] of [
    ['Child SA', 'swanctl --rekey --child lab'],
    ['IKE SA', 'swanctl --rekey --ike lab'],
  ] as const) {
    await context.check(`five rekeys of the ${title} under traffic lose nothing`, async () => {
      const lost = await lostMeanwhile(
        guest,
        6,
        `for i in 1 2 3 4 5; do sleep 0.8; ${command} >/dev/null || exit 1; done`,
      )
      expect(lost === 0, `${lost} packets lost`)
    })
  }
  await context.check('one Child SA is left', async () => {
    for (let i = 0; i < 30 && spiCount(server) !== 1; i++) await inGuest(guest, 'sleep 0.2')
    expect(spiCount(server) === 1, `${spiCount(server)} Child SAs`)
  })
}

const ikev2Rekey: InteropCase = {
  name: 'ikev2-rekey',
  async run(context) {
    const server = await context.startServer()
    const guest = await context.lab.guest(11)
    for (const [title, esp] of [
      ['with key exchange', 'aes256gcm16-ecp256'],
      ['without key exchange', 'aes256gcm16'],
    ] as const) {
      await context.check(`${title}: connects`, () => dial(context, guest, { esp }))
      await rekeys(context, guest, server)
    }
    await hangUp(guest)
  },
}

const ikev2Move: InteropCase = {
  name: 'ikev2-move',
  async run(context) {
    await context.startServer()
    const guest = await context.lab.guest(11)
    await context.check('connects', () => dial(context, guest))
    await context.check('the session goes on from another address (MOBIKE)', async () => {
      await ping(guest, tunnel.server)
      await inGuest(
        guest,
        'sysctl -qw net.ipv4.conf.vec0.promote_secondaries=1; ip addr add 198.18.0.51/24 dev vec0; ip addr del 198.18.0.11/24 dev vec0; for i in $(seq 50); do swanctl --list-sas | grep -q "local.*198.18.0.51" && exit 0; sleep 0.2; done; exit 1',
      )
      await pingSizes(guest, tunnel.server)
    })
    await hangUp(guest)
    await inGuest(guest, 'ip addr add 198.18.0.11/24 dev vec0; ip addr del 198.18.0.51/24 dev vec0')
    await context.check('messages cut into fragments of 576 bytes connect', async () => {
      await dial(context, guest, { charon: ['fragment_size = 576'] })
      await pingSizes(guest, tunnel.server)
    })
    await hangUp(guest)
  },
}

const ikev2Nat: InteropCase = {
  name: 'ikev2-nat',
  async run(context) {
    const server = await context.startServer()
    serveIperf(context)
    const guest = await context.lab.guestBehindNat(21)
    await context.check('behind a NAT: connects', () => dial(context, guest))
    await traffic(context, guest, 'behind a NAT')
    await rekeys(context, guest, server)
    await context.check('the session goes on when the NAT gives it another port', async () => {
      context.lab.rebindNat()
      for (let i = 0; i < 10; i++) {
        const { code } = await guest.run(`ping -c 1 -W 1 ${tunnel.server}`)
        if (code === 0) break
      }
      await pingSizes(guest, tunnel.server)
    })
    await hangUp(guest)
  },
}

/** ESP as IP protocol 50. */
const ikev2Plain: InteropCase = {
  name: 'ikev2-plain',
  async run(context) {
    const server = await context.startServer({ ikev2: { plainEsp: true } })
    serveIperf(context)
    const guest = await context.lab.guest(11)
    await context.check('without UDP: connects', () => dial(context, guest))
    await context.check('no UDP encapsulation is in use', async () => {
      const state = await inGuest(guest, 'ip xfrm state')
      expect(!state.includes('encap'), state)
    })
    await traffic(context, guest, 'without UDP')
    await rekeys(context, guest, server)
    await hangUp(guest)
  },
}

export const ikev2Cases = [
  ikev2Users,
  ikev2Certificate,
  ikev2Site,
  ikev2Rekey,
  ikev2Move,
  ikev2Nat,
  ikev2Plain,
]

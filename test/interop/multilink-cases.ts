/** Multilink PPP with Debian's pppd and the fragments of its kernel: two PPTP calls of one client. */
import { CheckError, expect, type InteropCase } from './interop-case.ts'
import type { Guest } from './lab/guest.ts'
import { address, tunnel } from './lab/lab.ts'
import { users } from './server-process.ts'
import { expectFlow } from './throughput.ts'

const pingSizes = [56, 1200, 4000]
/** Far below what any machine reaches: this finds a broken path, not a slow one. */
const leastMbitPerSecond = 2
const bundled = ['multilink', 'mrru 1600']

/** The output of `script`, which must succeed. */
async function inGuest(guest: Guest, script: string): Promise<string> {
  const { code, output } = await guest.run(script)
  if (code !== 0) throw new CheckError(`${script}\n${output}`)
  return output
}

function call(guest: Guest, options: readonly string[]): Promise<string> {
  const words = [...bundled, ...options].map(option => `'${option}'`).join(' ')
  return inGuest(guest, `bash /lab/pptp-up.sh ${address.server} lab ${users.lab} 0 ${words}`)
}

function addLink(guest: Guest, options: readonly string[]): Promise<string> {
  const words = [...bundled, ...options].map(option => `'${option}'`).join(' ')
  return inGuest(guest, `bash /lab/pptp-link.sh ${address.server} lab ${users.lab} ${words}`)
}

async function pings(guest: Guest): Promise<void> {
  for (const size of pingSizes) {
    await inGuest(guest, `ping -c 3 -i 0.2 -W 2 -s ${size} ${tunnel.server}`)
  }
}

/**
 * The first of the tunnels breaks while packets flow. Its pppd stays: the kernel's bundle is that process's,
 * which holds on to it while another link is up.
 */
async function loseFirstLink(guest: Guest): Promise<void> {
  const output = await inGuest(
    guest,
    `ping -i 0.1 -c 100 -W 2 -s 1200 ${tunnel.server} >/out/ping.log & running=$!
     sleep 3; kill $(pgrep -P $(pgrep -P $(cat /run/client.pid))) || exit 1
     wait $running; cat /out/ping.log; grep -q 'icmp_seq=100 ' /out/ping.log`,
  )
  const received = Number(/(\d+) received/.exec(output)?.[1] ?? 0)
  expect(received >= 60, `only ${received} of 100 answers while the first link broke`)
}

interface SessionView {
  readonly bundle?: { readonly links: readonly unknown[] }
}

const pptpMultilink: InteropCase = {
  name: 'pptp-multilink',
  async run(context) {
    const server = await context.startServer({
      pptp: { enabled: true, encryption: 'optional' },
      sections: { ppp: { multilink: { enabled: true } } },
    })
    const { lab } = context
    lab.exec(lab.server, 'iperf3', '-s', '-D', '-I', `${lab.folder}/iperf.pid`)
    const guest = await lab.guest(11)
    const linkCount = () => {
      const { sessions } = server.status() as { sessions: readonly SessionView[] }
      return sessions.map(({ bundle }) => bundle?.links.length)
    }
    for (const [title, options] of [
      ['in clear', ['nomppe', 'noccp']],
      ['with MPPE-128 over the bundle', ['require-mppe-128']],
    ] as const) {
      await context.check(`a first call, ${title}`, async () => {
        await call(guest, options)
        await inGuest(guest, `ip route replace ${tunnel.ipv4} dev ppp0`)
      })
      await context.check(`pings over one link, ${title}`, () => pings(guest))
      await context.check(`a second call joins it, ${title}`, async () => {
        await addLink(guest, options)
        const counts = linkCount()
        expect(counts.length === 1 && counts[0] === 2, `links of sessions: ${counts.join()}`)
      })
      await context.check(`pings in fragments over two links, ${title}`, () => pings(guest))
      for (const isDownload of [false, true]) {
        await context.check(`iperf3 ${isDownload ? 'down' : 'up'}, ${title}`, () =>
          expectFlow(lab, guest, { isDownload, seconds: 3, atLeast: leastMbitPerSecond }),
        )
      }
      await context.check(`the second call hangs up, the first goes on, ${title}`, async () => {
        await inGuest(
          guest,
          'kill $(cat /run/client-link.pid); for i in $(seq 50); do kill -0 $(cat /run/client-link.pid) 2>/dev/null || exit 0; sleep 0.2; done; exit 1',
        )
        await pings(guest)
        const counts = linkCount()
        expect(counts.length === 1 && counts[0] === 1, `links of sessions: ${counts.join()}`)
      })
      await context.check(`a third call joins, ${title}`, async () => {
        await addLink(guest, options)
        const counts = linkCount()
        expect(counts.length === 1 && counts[0] === 2, `links of sessions: ${counts.join()}`)
      })
      await context.check(`the first call breaks, and the pings go on, ${title}`, async () => {
        await loseFirstLink(guest)
        await pings(guest)
        const counts = linkCount()
        expect(counts.length === 1 && counts[0] === 1, `links of sessions: ${counts.join()}`)
      })
      await inGuest(guest, '. /lab/ppp.sh; ppp_down')
    }
  },
}

export const multilinkCases = [pptpMultilink]

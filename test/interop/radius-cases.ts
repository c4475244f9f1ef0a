/**
 * RADIUS as it is used day by day, with Debian's FreeRADIUS and radclient and a stock SSTP client: what
 * an answer gives, what changes a session and ends it, and accounting over an outage.
 */
import { copyFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { type CaseContext, CheckError, expect, type InteropCase } from './interop-case.ts'
import type { Guest } from './lab/guest.ts'
import { address, tunnel } from './lab/lab.ts'
import { RadiusServer, radiusSection, radiusUser } from './lab/radius-server.ts'
import type { ServerProcess } from './server-process.ts'

/** What FreeRADIUS is down for, longer than a request waits. */
const outageMs = 12_000
/** Of one try of a request to FreeRADIUS, and of all tries together. */
const oneTry = { timeoutSeconds: 1, tries: 2 }

interface Parts {
  readonly context: CaseContext
  readonly server: ServerProcess
  readonly radius: RadiusServer
  readonly guest: Guest
}

async function inGuest(guest: Guest, script: string): Promise<string> {
  const { code, output } = await guest.run(`. /lab/aaa.sh; ${script}`)
  if (code !== 0) throw new CheckError(`${script}\n${output.split('\n').slice(-30).join('\n')}`)
  return output
}

async function dial(guest: Guest, password: string = radiusUser.password): Promise<void> {
  const { name } = radiusUser
  await inGuest(
    guest,
    `bash /lab/sstp-up.sh ${address.server} /out/ca.crt mschap-v2 ${name} ${password}`,
  )
  await inGuest(guest, `ip route replace ${tunnel.ipv4} dev ppp0`)
}

function hangUp(guest: Guest): Promise<string> {
  return inGuest(guest, 'calls_down')
}

/** Within 15 s; then what is left of the client is ended. */
async function isHungUp(guest: Guest): Promise<void> {
  await inGuest(
    guest,
    'for i in $(seq 75); do ip link show dev ppp0 >/dev/null 2>&1 || exit 0; sleep 0.2; done; exit 1',
  )
  await hangUp(guest)
}

/** The identifier of the one session, as RADIUS knows it. */
function sessionId(server: ServerProcess): string {
  const id = /"id":"([0-9a-f]{24})"/.exec(JSON.stringify(server.status()))?.[1]
  if (id === undefined) throw new CheckError('status shows no session')
  return id
}

/** Mbit/s of iperf3 to the server's address in the tunnel. */
async function iperf(guest: Guest, isDownload: boolean): Promise<number> {
  const direction = isDownload ? '-R' : ''
  const output = await inGuest(guest, `iperf3 -J -t 3 -c ${tunnel.server} ${direction}`)
  const result = JSON.parse(output.slice(output.indexOf('{'))) as {
    end: { sum_received: { bits_per_second: number } }
  }
  return result.end.sum_received.bits_per_second / 1e6
}

function twoRecords(radius: RadiusServer, id: string): void {
  const own = radius.records().filter(record => record.get('Acct-Session-Id') === id)
  expect(own.length === 2, `${own.length} records instead of 2`)
}

async function judgeAnswer({ context, server, radius, guest }: Parts): Promise<void> {
  await context.check('the user has the address that RADIUS gives', async () => {
    await dial(guest)
    await inGuest(guest, `ping -c 3 -i 0.2 -W 2 ${tunnel.server}`)
    const shown = await inGuest(guest, 'ip -4 -o addr show dev ppp0')
    expect(shown.includes(radiusUser.address), shown)
  })
  await context.check('accounting returns the class, and counts', async () => {
    const id = sessionId(server)
    const start = await radius.record({ 'Acct-Session-Id': id, 'Acct-Status-Type': 'Start' })
    expect(start.get('Class') === radiusUser.class, `Class is ${start.get('Class')}`)
    expect(start.get('Framed-IP-Address') === radiusUser.address, 'the address is not accounted')
    await hangUp(guest)
    const stop = await radius.record({ 'Acct-Session-Id': id, 'Acct-Status-Type': 'Stop' })
    expect(Number(stop.get('Acct-Input-Octets')) >= 3 * 84, 'the pings are not counted')
    twoRecords(radius, id)
  })
  await context.check('a wrong password is refused', async () => {
    const refused = await dial(guest, 'wrong').then(
      () => false,
      () => true,
    )
    expect(refused, 'the client connected')
    await hangUp(guest)
  })
}

async function judgeChanges({ context, server, radius, guest }: Parts): Promise<void> {
  let id = ''
  const naming = () => [`Acct-Session-Id="${id}"`, `User-Name="${radiusUser.name}"`]
  await context.check('without a limit packets flow faster than 0.6 Mbit/s', async () => {
    await dial(guest)
    id = sessionId(server)
    const [up, down] = [await iperf(guest, false), await iperf(guest, true)]
    expect(up > 0.6 && down > 0.6, `${up.toFixed(2)} up, ${down.toFixed(2)} Mbit/s down`)
  })
  await context.check('CoA limits both directions to 0.2 Mbit/s', async () => {
    const changed = await radius.ask('coa', [
      ...naming(),
      'WISPr-Bandwidth-Max-Up=200000',
      'WISPr-Bandwidth-Max-Down=200000',
    ])
    expect(changed.includes('CoA-ACK'), changed)
    const [up, down] = [await iperf(guest, false), await iperf(guest, true)]
    expect(up < 0.4 && down < 0.4, `${up.toFixed(2)} up, ${down.toFixed(2)} Mbit/s down`)
  })
  await context.check('CoA takes the time of a session away', async () => {
    const changed = await radius.ask('coa', [...naming(), 'Session-Timeout=5'])
    expect(changed.includes('CoA-ACK'), changed)
    const stop = await radius.record({ 'Acct-Session-Id': id, 'Acct-Status-Type': 'Stop' })
    const cause = stop.get('Acct-Terminate-Cause')
    expect(cause === 'Session-Timeout', `Acct-Terminate-Cause is ${cause}`)
    await isHungUp(guest)
  })
  await context.check('a Disconnect-Request ends a session, once', async () => {
    await dial(guest)
    id = sessionId(server)
    const ended = await radius.ask('disconnect', [`Framed-IP-Address=${radiusUser.address}`])
    expect(ended.includes('Disconnect-ACK'), ended)
    const stop = await radius.record({ 'Acct-Session-Id': id, 'Acct-Status-Type': 'Stop' })
    const cause = stop.get('Acct-Terminate-Cause')
    expect(cause === 'Admin-Reset', `Acct-Terminate-Cause is ${cause}`)
    await isHungUp(guest)
    const again = await radius.ask('disconnect', [`Acct-Session-Id="${id}"`])
    expect(again.includes('Session-Context-Not-Found'), again)
  })
}

async function judgeOutage({ context, server, radius, guest }: Parts): Promise<void> {
  let id = ''
  await context.check('while FreeRADIUS is down nobody comes in', async () => {
    await dial(guest)
    id = sessionId(server)
    await radius.record({ 'Acct-Session-Id': id, 'Acct-Status-Type': 'Start' })
    await radius.stop()
    const wentDownMs = Date.now()
    await hangUp(guest)
    const refused = await dial(guest).then(
      () => false,
      () => true,
    )
    expect(refused, 'the client connected')
    await hangUp(guest)
    await delay(Math.max(0, outageMs - (Date.now() - wentDownMs)))
  })
  await context.check('what happened meanwhile is accounted when it is back, once', async () => {
    await radius.start()
    const stop = await radius.record({ 'Acct-Session-Id': id, 'Acct-Status-Type': 'Stop' })
    // Told again, it is the same packet (RFC 5080 §2.2.1), so its Acct-Delay-Time stays what it was first.
    const happened = stop.get('Event-Timestamp') ?? ''
    const lateSeconds = Number(stop.get('Timestamp')) - Date.parse(happened) / 1000
    expect(lateSeconds >= 5, `told ${lateSeconds} s after ${happened}`)
    twoRecords(radius, id)
  })
}

const aaaRadius: InteropCase = {
  name: 'aaa-radius',
  async run(context) {
    const { ca, lab } = context
    const radius = new RadiusServer(lab, ca)
    await radius.start()
    try {
      const [one] = radiusSection.accounting.servers
      const servers = [{ ...one, ...oneTry }]
      const server = await context.startServer({
        sections: {
          radius: {
            ...radiusSection,
            authentication: { ...radiusSection.authentication, servers, totalSeconds: 2 },
            accounting: { servers, totalSeconds: 2 },
          },
        },
      })
      lab.exec(lab.server, 'iperf3', '-s', '-D', '-I', `${lab.folder}/iperf.pid`)
      const guest = await lab.guest(11)
      copyFileSync(ca.certificate, `${guest.folder}/ca.crt`)
      const parts = { context, server, radius, guest }
      await context.check('FreeRADIUS hears that the server is on', async () => {
        await radius.record({ 'Acct-Status-Type': 'Accounting-On' })
      })
      await judgeAnswer(parts)
      await judgeChanges(parts)
      await judgeOutage(parts)
      await context.check('FreeRADIUS hears that the server is off', async () => {
        await server.stop()
        await radius.record({ 'Acct-Status-Type': 'Accounting-Off' })
      })
    } finally {
      await radius.stop()
    }
  },
}

export const radiusCases = [aaaRadius]

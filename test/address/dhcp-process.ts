/**
 * Leases from the DHCP server at 192.0.2.1, in the network namespace that it is started in. Prints what
 * came of it as JSON. Arguments: the lease file of dnsmasq, and a folder.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { readJournal, writeJournal } from '../../lib/address/dhcp/dhcp-journal.ts'
import { DhcpLeases } from '../../lib/address/dhcp/dhcp-leases.ts'
import { DhcpSocket } from '../../lib/address/dhcp/dhcp-socket.ts'
import { InformRelay } from '../../lib/address/dhcp/inform-relay.ts'
import type { Ipv4Lease } from '../../lib/address/ipv4-pool.ts'
import { Ipv4Pools } from '../../lib/address/ipv4-pools.ts'
import { DhcpMessageType, DhcpOption } from '../../lib/address/wire/dhcp.ts'
import { parseDhcpMessage } from '../../lib/address/wire/dhcp-message.ts'
import { putUdpHeaders, udpPayloadAt } from '../../lib/address/wire/udp-packet.ts'
import { u32 } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { formatIpv4, parseIpv4 } from '../../lib/core/ip-address.ts'
import { systemRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { eventually } from '../support/eventually.ts'
import { bytesOf } from './dhcp-line.ts'

const [leaseFile = '', folder = ''] = process.argv.slice(2)
const journal = join(folder, 'journal')
const server = parseIpv4('192.0.2.1') ?? 0
const link = parseIpv4('10.87.0.1') ?? 0
/** Goes with the world's, and now and then ahead of it. */
const clock = new ManualClock()
const wheel = new TimerWheel(0)
const ticking = setInterval(() => advance(50), 50)

function advance(ms: number): void {
  clock.advance(ms)
  wheel.advance(clock.nowMs())
}

const socket = await DhcpSocket.open({ servers: [server] })

function begin(): DhcpLeases {
  const leases = new DhcpLeases({
    serverName: 'vpn',
    local: new Ipv4Pools({ ranges: [], serverAddress: link }),
    isUsable: address => address >>> 16 === link >>> 16,
    relayAddress: socket.relayAddress,
    linkAddress: link,
    clock,
    wheel,
    random: systemRandom,
    send: (bytes, to) => socket.send(bytes, to),
    onLost: () => {},
    onChange: () => writeJournal(journal, leases.journal()),
  })
  return leases
}

function held(): number {
  return readFileSync(leaseFile, 'utf8').split('\n').filter(Boolean).length
}

let leases = begin()
const stand = () => JSON.stringify([held(), leases.counters, socket.counters])
const relay = new InformRelay({
  relayAddress: socket.relayAddress,
  linkAddress: link,
  clock,
  send: bytes => socket.send(bytes),
})
socket.listen(bytes => {
  if (!leases.receive(bytes)) relay.receive(bytes)
})

/** dnsmasq may still be on its way up. */
async function lease(userName: string): Promise<number> {
  for (let tries = 0; tries < 4; tries++) {
    const one: Ipv4Lease = await leases.lease({ userName })
    if (one.type === 'leased') return one.address
  }
  return 0
}

const alice = await lease('alice')
const users = [alice, await lease('bob'), await lease('alice')]
await eventually(() => held() === 3, stand)
const before = held()
// Half of the two minutes that dnsmasq gives at least.
advance(61_000)
await eventually(() => leases.counters.get('dhcp-renewed') >= 3, stand)
const isRenewed = leases.counters.get('dhcp-renewed') >= 3

const answers: Uint8Array[] = []
const session = relay.link(alice, packet => answers.push(packet))
const inform = bytesOf({
  op: 1,
  transactionId: 7,
  seconds: 0,
  clientAddress: alice,
  yourAddress: 0,
  relayAddress: 0,
  hardwareAddress: new Uint8Array(6),
  options: new Map([
    [DhcpOption.messageType, Uint8Array.of(DhcpMessageType.inform)],
    [DhcpOption.parameterRequestList, Uint8Array.of(1, 6)],
  ]),
})
const packet = new Uint8Array(udpPayloadAt + inform.length)
packet.set(inform, udpPayloadAt)
const ends = { source: alice, destination: 0xffffffff, sourcePort: 68, destinationPort: 67 }
putUdpHeaders(packet, packet.length, ends)
session.answer(packet)
await eventually(() => answers.length > 0, stand)
const [answer = new Uint8Array(0)] = answers
const type = parseDhcpMessage(answer.subarray(udpPayloadAt)).options.get(DhcpOption.messageType)

leases.release(alice)
await eventually(() => held() === 2, stand)
const isSameAgain = (await lease('alice')) === alice
// A server that is killed says nothing to anybody; the next one has its journal.
leases = begin()
leases.restore(readJournal(journal))
const isSameAfterRestart = (await lease('alice')) === alice
leases.stop()
// The file is empty also for a moment each time that it is written.
let empty = 0
await eventually(() => {
  empty = held() === 0 ? empty + 1 : 0
  return empty > 500
}, stand)
await socket.close()
clearInterval(ticking)
process.stdout.write(
  JSON.stringify({
    relay: formatIpv4(socket.relayAddress),
    users: users.map(formatIpv4),
    isApart: new Set(users).size === 3,
    held: before,
    isRenewed,
    isSameAgain,
    isSameAfterRestart,
    inform: {
      type: type?.[0] === DhcpMessageType.ack ? 'ack' : 'none',
      isLinkSource: u32(answer, 12) === link,
    },
  }),
)

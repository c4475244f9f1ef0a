/** Addresses as the server has them: from its pools, and from a DHCP server on loopback. */
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readJournal } from '../../lib/address/dhcp/dhcp-journal.ts'
import { DhcpMessageType, DhcpOption } from '../../lib/address/wire/dhcp.ts'
import {
  DhcpOp,
  dhcpMessageBytes,
  encodeDhcpMessage,
  parseDhcpMessage,
} from '../../lib/address/wire/dhcp-message.ts'
import { parseConfig } from '../../lib/config.ts'
import { putU32 } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { formatIpv6Network, parseIpv4 } from '../../lib/core/ip-address.ts'
import { createLogger } from '../../lib/core/log.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { AddressService } from '../../lib/server/address-service.ts'
import { eventually } from '../support/eventually.ts'

const ip = (text: string) => parseIpv4(text) ?? 0
const log = createLogger('silent')
const leased = ip('10.87.0.50')

function setUp(t: Test, addresses: string, folder = mkdtempSync(join(tmpdir(), 'openras-addr-'))) {
  const clock = new ManualClock()
  const wheel = new TimerWheel(0)
  const lost: number[] = []
  const text = `{state: {directory: ${folder}}, tun: {backend: memory}, addresses: {${addresses}}}`
  const config = parseConfig(text, 'test')
  const service = new AddressService(
    config,
    {
      ...{ clock, wheel, random: new SeededRandom(20261121) },
      fixedAddresses: () => new Set<number>(),
      onLost: address => lost.push(address),
    },
    log,
  )
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const elapse = (ms: number) => {
    clock.advance(ms)
    wheel.advance(clock.nowMs())
  }
  return { service, folder, lost, elapse }
}

t.test('what users had is written down and found again, prefixes of both kinds too', async t => {
  const text = 'ipv6: "fd87::/48", delegated: {prefix: "fd88::/40"}'
  const { service, folder, elapse } = setUp(t, text)
  await service.start()
  t.equal(service.status(), undefined, 'there is no DHCP')
  t.equal(service.informRelay, undefined)
  t.match(service.lease({ userName: 'zoe' }), { type: 'leased' })
  const { delegationPool, ipv6Pool } = service
  delegationPool?.lease('zoe')
  const given = service.lease({ userName: 'alice' })
  const networks = [ipv6Pool?.lease('alice'), delegationPool?.lease('alice')]
  service.noteChange()
  elapse(4900)
  t.notOk(existsSync(join(folder, 'leases.json')))
  elapse(200)
  t.ok(existsSync(join(folder, 'leases.json')))
  const again = setUp(t, text, folder).service
  t.same(again.lease({ userName: 'alice' }), given)
  const same = [again.ipv6Pool?.lease('alice'), again.delegationPool?.lease('alice')]
  const textOf = (list: typeof same) => list.map(one => one && formatIpv6Network(one))
  t.same(textOf(same), textOf(networks))
  t.same(textOf(same), ['fd87:0:0:1::/64', 'fd88:0:0:200::/56'])
  await service.stop()
})

/** Gives every client the same address for ten seconds, until `isDeaf`. */
class OneLease {
  readonly heard: number[] = []
  isDeaf = false
  readonly #socket: Socket = createSocket('udp4')

  async listen(address: string): Promise<void> {
    this.#socket.on('message', (bytes, from) => {
      const message = parseDhcpMessage(Uint8Array.from(bytes))
      const type = message.options.get(DhcpOption.messageType)?.[0] ?? 0
      this.heard.push(type)
      if (this.isDeaf || type > DhcpMessageType.request) return
      const isDiscover = type === DhcpMessageType.discover
      const { offer, ack } = DhcpMessageType
      const reply = {
        ...message,
        op: DhcpOp.reply,
        yourAddress: leased,
        options: new Map([
          [DhcpOption.messageType, Uint8Array.of(isDiscover ? offer : ack)],
          [DhcpOption.serverIdentifier, numberOf(ip(address))],
          [DhcpOption.leaseTime, numberOf(10)],
        ]),
      }
      const out = new Uint8Array(dhcpMessageBytes(reply))
      encodeDhcpMessage(reply, out)
      this.#socket.send(out, from.port, from.address)
    })
    this.#socket.bind(67, address)
    await once(this.#socket, 'listening')
  }

  close(): void {
    this.#socket.close()
  }
}

function numberOf(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  putU32(bytes, 0, value)
  return bytes
}

const isRoot = process.getuid?.() === 0

t.test(
  'from a DHCP server: leased, journalled, renewed, and lost when it is not renewed',
  { skip: isRoot ? false : 'port 67 needs root' },
  async t => {
    const [here, there] = ['127.87.0.2', '127.87.0.1']
    const dhcp = new OneLease()
    await dhcp.listen(there)
    t.teardown(() => dhcp.close())
    const text = `ipv4: [10.87.0.0/24], dhcp: {servers: [${there}], relay: ${here}, inform: relay}`
    const { service, folder, lost, elapse } = setUp(t, text)
    await service.start()
    t.ok(service.informRelay)
    const journal = () => readJournal(join(folder, 'dhcp-leases.json'))
    const counted = (name: string) => service.status()?.counters[name] ?? 0
    const stand = () => JSON.stringify([service.status(), dhcp.heard])

    t.same(await service.lease({ userName: 'alice' }), { type: 'leased', address: leased })
    elapse(600)
    t.match(journal(), [{ address: leased, server: ip(there) }])
    t.match(service.status(), { relay: here, leases: 1 })
    elapse(4500)
    await eventually(() => counted('dhcp-renewed') === 1, stand)

    dhcp.isDeaf = true
    elapse(5000)
    elapse(5100)
    t.same(lost, [leased], 'its session must end')
    elapse(600)
    t.same(journal(), [])

    dhcp.isDeaf = false
    await service.lease({ userName: 'alice' })
    const stranger = createSocket('udp4')
    stranger.send(new Uint8Array(300), 67, here)
    await eventually(() => counted('dhcp-from-stranger') === 1, stand)
    stranger.close()
    await service.stop()
    await eventually(() => dhcp.heard.at(-1) === DhcpMessageType.release, stand)
    t.same(journal(), [], 'given back')
    t.equal(lost.length, 1)
  },
)

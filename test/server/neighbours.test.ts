/** Addresses on networks of our own interfaces, with hosts beside us that are played here. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { encodeArpAnnouncement, parseArp } from '../../lib/address/wire/arp.ts'
import { parseConfig } from '../../lib/config.ts'
import { fromHex } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { BindError } from '../../lib/core/errors.ts'
import { formatIpv4, parseIpv4 } from '../../lib/core/ip-address.ts'
import { silentLogger } from '../../lib/core/log.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import type { ArpSocketEvents } from '../../lib/dataplane/index.ts'
import { AddressService } from '../../lib/server/address-service.ts'
import { type Link, Neighbours, systemLinks } from '../../lib/server/neighbours.ts'

const ip = (text: string) => parseIpv4(text) ?? 0
const ours = fromHex('02 00 00 00 00 01')
const theirs = fromHex('02 00 00 00 00 02')
const lan: Link = {
  name: 'lan0',
  index: 7,
  hardware: ours,
  address: ip('192.0.2.1'),
  network: { address: ip('192.0.2.0'), prefixLength: 24 },
  isProxied: true,
}

interface Options {
  readonly link?: Link
  /** What hosts have. */
  readonly taken?: readonly string[]
  readonly addresses?: string
  readonly canOpen?: boolean
}

function setUp(t: Test, { link = lan, taken = [], addresses, canOpen = true }: Options = {}) {
  const clock = new ManualClock()
  const wheel = new TimerWheel(0, { tickMs: 10 })
  const told: string[] = []
  const hosts = new Set(taken.map(ip))
  let opened = 0
  let events: ArpSocketEvents | undefined
  const open = (_link: Link, heard: ArpSocketEvents) => {
    opened++
    if (!canOpen) throw new BindError('it needs CAP_NET_RAW')
    events = heard
    const broadcast = (bytes: Uint8Array) => {
      const packet = parseArp(bytes)
      if (packet === undefined) throw new Error('no ARP')
      const { senderAddress, targetAddress } = packet
      if (senderAddress !== 0) told.push(formatIpv4(senderAddress))
      else if (hosts.has(targetAddress)) {
        queueMicrotask(() => heard.packet(encodeArpAnnouncement(theirs, targetAddress)))
      }
      return true
    }
    return { broadcast, close: () => undefined }
  }
  const links = () => [link]
  const neighbours = new Neighbours({ clock, wheel, log: silentLogger, links, open })
  const folder = mkdtempSync(join(tmpdir(), 'openras-neighbours-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const ranges = addresses ?? 'server: 10.9.0.1, ipv4: [192.0.2.50-192.0.2.60]'
  const service = new AddressService(
    parseConfig(`{state: {directory: ${folder}}, addresses: {${ranges}}}`, 'test'),
    {
      ...{ clock, wheel, random: new SeededRandom(1), neighbours },
      fixedAddresses: () => new Set<number>(),
      onLost: () => undefined,
    },
    silentLogger,
  )
  /** Lets time pass in small steps, with a turn for whoever waits. */
  const elapse = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 50) {
      await new Promise(resolve => setImmediate(resolve))
      clock.advance(50)
      wheel.advance(clock.nowMs())
    }
    await new Promise(resolve => setImmediate(resolve))
  }
  const lease = async (fixed?: string) => {
    const asked = service.lease({
      userName: 'alice',
      ...(fixed !== undefined && { fixedAddress: ip(fixed) }),
    })
    if (asked instanceof Promise) await elapse(2000)
    const given = await asked
    return given.type === 'leased' ? formatIpv4(given.address) : given.reason
  }
  return { service, told, lease, elapse, opened: () => opened, events: () => events, clock, wheel }
}

t.test('an address that a host has is passed over, set aside, and given again later', async t => {
  const { service, told, lease, elapse } = setUp(t, { taken: ['192.0.2.50', '192.0.2.51'] })
  t.equal(await lease(), '192.0.2.52')
  t.same(told, ['192.0.2.52'], 'the network is told where it is now')
  t.same(service.conflicts(), { announced: 1, conflict: 2, probed: 3 })
  service.release(ip('192.0.2.52'))
  t.equal(await lease(), '192.0.2.52', 'nobody asks for the others again')
  t.match(service.conflicts(), { conflict: 2 })
  t.equal(await lease('192.0.2.51'), 'in-use')
  service.release(ip('192.0.2.52'))
  await elapse(600_000)
  t.equal(await lease('192.0.2.51'), 'in-use', 'asked for anew: the host has it still')
  t.match(service.conflicts(), { conflict: 3 })
  await service.stop()
})

t.test('when everything is taken there is an end to asking', async t => {
  const taken = Array.from({ length: 11 }, (_, i) => `192.0.2.${50 + i}`)
  const { lease, service } = setUp(t, { taken })
  t.equal(await lease(), 'exhausted')
  t.match(service.conflicts(), { conflict: 4 })
})

t.test('addresses of no network here are given at once, and our own never', async t => {
  const far = setUp(t, { addresses: 'ipv4: [10.87.0.0/24]' })
  t.type(far.service.lease({ userName: 'alice' }), Object)
  t.notOk(far.service.lease({ userName: 'bob' }) instanceof Promise)
  t.equal(far.opened(), 0)
  t.equal(far.service.conflicts(), undefined)
  const near = setUp(t, { addresses: 'server: 10.9.0.1, ipv4: [192.0.2.1-192.0.2.5]' })
  t.equal(await near.lease(), '192.0.2.2', 'not that of the interface')
})

t.test('without proxy ARP nothing is said, and without the key nothing is asked', async t => {
  const plain = setUp(t, { link: { ...lan, isProxied: false } })
  t.equal(await plain.lease(), '192.0.2.50')
  t.same(plain.told, [])
  const off = setUp(t, {
    addresses: 'server: 10.9.0.1, ipv4: [192.0.2.50-192.0.2.60], conflictProbe: false',
    taken: ['192.0.2.50'],
  })
  t.equal(await off.lease(), '192.0.2.50')
  t.equal(off.opened(), 0)
})

t.test('where ARP cannot be had, or an interface goes, addresses are given unasked', async t => {
  const refused = setUp(t, { canOpen: false, taken: ['192.0.2.50'] })
  t.equal(await refused.lease(), '192.0.2.50')
  const { service, events, opened, elapse } = setUp(t)
  const asked = service.lease({ userName: 'alice' })
  events()?.lost('ENETDOWN')
  t.same(await asked, { type: 'leased', address: ip('192.0.2.50') })
  await elapse(50)
  t.equal(opened(), 2, 'opened again for the announcement')
})

t.test('the interfaces of this machine are read as they are', async t => {
  for (const { name, index, hardware, address, network } of systemLinks()) {
    t.ok(index > 0, name)
    t.equal(hardware.length, 6)
    t.ok(network.prefixLength <= 30)
    t.ok(network.address <= address)
  }
})

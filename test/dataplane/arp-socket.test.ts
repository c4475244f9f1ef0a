/** ARP against the Linux on the other end of a cable, in two namespaces. */
import t from 'tap'
import { ConflictProbe } from '../../lib/address/conflict-probe.ts'
import { encodeArpAnnouncement } from '../../lib/address/wire/arp.ts'
import { fromHex, toHex } from '../../lib/core/bytes.ts'
import { systemClock } from '../../lib/core/clock.ts'
import { BindError } from '../../lib/core/errors.ts'
import { parseIpv4 } from '../../lib/core/ip-address.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { ArpSocket } from '../../lib/dataplane/arp-socket.ts'
import { eventually } from '../support/eventually.ts'
import { existingKernel, Namespace, whyNoNamespaces } from './namespace.ts'

const skip = whyNoNamespaces() ?? false
const ours = '02:00:00:00:00:01'
const theirs = '02:00:00:00:00:02'
const ip = (text: string) => parseIpv4(text) ?? 0

t.test(
  'the kernel of a host beside us answers for its address and hears ours',
  { skip },
  async t => {
    const here = new Namespace('arp-here')
    const there = new Namespace('arp-there')
    t.teardown(() => {
      here.remove()
      there.remove()
    })
    here.ip(
      ...['link', 'add', 'veth0', 'address', ours, 'type', 'veth'],
      ...['peer', 'name', 'veth1', 'address', theirs, 'netns', there.name],
    )
    here.ip('address', 'add', '192.0.2.1/24', 'dev', 'veth0')
    there.ip('address', 'add', '192.0.2.50/24', 'dev', 'veth1')
    here.ip('link', 'set', 'veth0', 'up')
    there.ip('link', 'set', 'veth1', 'up')
    const index = Number(/^(\d+):/.exec(here.ip('-o', 'link', 'show', 'veth0'))?.[1])
    const wheel = new TimerWheel(systemClock.nowMs())
    wheel.start(systemClock)
    const losses: string[] = []
    let probe: ConflictProbe | undefined
    const socket = here.enter(
      () =>
        new ArpSocket(existingKernel(), index, {
          packet: bytes => probe?.receive(bytes),
          lost: reason => losses.push(reason),
        }),
    )
    t.teardown(() => {
      socket.close()
      wheel.stop()
    })
    const send = (packet: Uint8Array) => socket.broadcast(packet)
    const hardware = fromHex(ours.replaceAll(':', ''))
    probe = new ConflictProbe({ hardware, send, clock: systemClock, wheel })
    const owner = await probe.ownerOf(ip('192.0.2.50'))
    t.equal(toHex(owner ?? hardware), theirs.replaceAll(':', ''))
    t.equal(await probe.ownerOf(ip('192.0.2.51')), undefined)

    there.ip(
      ...['neighbour', 'add', '192.0.2.60', 'lladdr', '02:00:00:00:00:99'],
      ...['dev', 'veth1', 'nud', 'stale'],
    )
    await eventually(
      () => {
        // Linux believes no news of what it has learned a moment ago.
        t.ok(socket.broadcast(encodeArpAnnouncement(hardware, ip('192.0.2.60'))))
        return there.ip('neighbour', 'show', '192.0.2.60').includes(ours)
      },
      () => there.ip('neighbour', 'show'),
    )
    t.equal(socket.broadcast(new Uint8Array(200)), false, 'longer than any')
    here.ip('link', 'delete', 'veth0')
    await eventually(
      () => losses.length > 0,
      () => 'the socket outlives its interface',
    )
    t.equal(socket.broadcast(encodeArpAnnouncement(hardware, ip('192.0.2.60'))), false)
  },
)

t.test('an interface that is not there is an error', { skip }, async t => {
  const events = { packet: () => undefined, lost: () => undefined }
  t.throws(() => new ArpSocket(existingKernel(), 999_999, events), BindError)
})

import t from 'tap'
import { TunError } from '../../lib/core/errors.ts'
import { type Kernel, loadKernel } from '../../lib/dataplane/kernel.ts'
import { createMemoryDataplane, openDataplane } from '../../lib/dataplane/open-dataplane.ts'
import { openTun } from '../../lib/dataplane/tun-setup.ts'
import { compliance, complianceOptions, type HostSide } from './compliance.ts'
import { join } from './join.ts'
import { existingKernel, Namespace, outputOf, whyNoNamespaces } from './namespace.ts'
import { PacketSocket } from './packet-socket.ts'
import { ip4, ip6 } from './packets.ts'

const offloads = { checksum: true, tso4: true, tso6: true, uso: true }

for (const [name, options] of [
  ['memory', {}],
  ['memory with offloads', { offloads }],
  ['memory without WebAssembly', { kernels: 'plain' }],
] as const) {
  t.test(name, t =>
    compliance(t, name, () => {
      const { dataplane, memoryDevice } = createMemoryDataplane({
        ...complianceOptions,
        ...options,
      })
      const host: HostSide = {
        send: packet => memoryDevice.fromHost(packet),
        received: () => memoryDevice.toHost.splice(0),
        close: () => {},
      }
      return { dataplane, host }
    }),
  )
}

t.test('what the kernel refuses becomes a sentence that says what to do', async t => {
  const setup = { name: 'ras0', mtuBytes: 1400, txQueuePackets: 100, wantsOffloads: true }
  const refusal = (changes: Partial<Kernel>) => () => openTun(fakeKernel(changes), setup)
  const open = () => -1
  t.throws(refusal({ open, errno: () => 2 }), { message: /modprobe tun/ })
  t.throws(refusal({ open, errno: () => 13 }), { message: /run as root or with CAP_NET_ADMIN/ })
  t.throws(refusal({ open, errno: () => 24 }), { message: /EMFILE/ })
  for (const [errno, message] of [
    [1, /CAP_NET_ADMIN/],
    [16, /in use by another program/],
    [22, /choose another name/],
    [12, /ENOMEM/],
  ] as const) {
    const closed: number[] = []
    const close = (fd: number) => closed.push(fd)
    t.throws(refusal({ ioctl: () => -1, errno: () => errno, close }), { message })
    t.same(closed, [7], 'nothing stays open')
  }
  t.throws(refusal({ socket: () => -1, errno: () => 24 }), TunError)
  t.throws(() => openTun(fakeKernel({}), { ...setup, name: 'a/b' }), TunError)
  t.throws(() => openTun(fakeKernel({}), { ...setup, name: 'longer-than-fifteen' }), TunError)
})

t.test('an older kernel gives fewer offloads', async t => {
  const TUNSETOFFLOAD = 0x400454d0
  const setup = { name: 'ras0', mtuBytes: 1400, txQueuePackets: 100, wantsOffloads: true }
  const withUpTo = (largest: number) =>
    openTun(
      fakeKernel({
        ioctl: (_fd, request, argument) =>
          request === TUNSETOFFLOAD && argument > largest ? -1 : 0,
      }),
      setup,
    ).offloads
  t.same(withUpTo(0x7f), offloads)
  t.same(withUpTo(0x0f), { ...offloads, uso: false })
  t.same(withUpTo(0x01), { checksum: true, tso4: false, tso6: false, uso: false })
  t.same(withUpTo(0), { checksum: false, tso4: false, tso6: false, uso: false })
  const plain = openTun(fakeKernel({}), { ...setup, wantsOffloads: false })
  t.notOk(plain.hasVnetHeader)
})

const skip = whyNoNamespaces() ?? false

t.test('the kernel’s TUN device', { skip }, async t => {
  for (const backend of ['offload', 'plain'] as const) {
    await t.test(backend, async t => {
      const namespace = new Namespace(backend)
      t.teardown(() => namespace.remove())
      await compliance(t, backend, () =>
        namespace.enter(() => {
          const dataplane = openDataplane({ ...complianceOptions, backend, tunName: 'dp%d' })
          const { tunName } = dataplane.status()
          t.equal(tunName, 'dp0')
          t.equal(dataplane.status().backend, backend)
          return { dataplane, host: new PacketSocket(tunName) }
        }),
      )
    })

    await t.test(`${backend}: real TCP and UDP through two devices`, async t => {
      const near = new Namespace(`${backend}-near`)
      const far = new Namespace(`${backend}-far`)
      t.teardown(() => near.remove())
      t.teardown(() => far.remove())
      const open = (namespace: Namespace, ipv4: string, ipv6: string) => {
        const dataplane = namespace.enter(() =>
          openDataplane({ backend, tunName: 'dp0', mtuBytes: 1440, memoryBytes: 96 << 20 }),
        )
        namespace.ip('addr', 'add', `${ipv4}/24`, 'dev', 'dp0')
        namespace.ip('addr', 'add', `${ipv6}/64`, 'dev', 'dp0', 'nodad')
        t.teardown(() => dataplane.stop())
        return { dataplane, addresses: { ipv4: ip4(ipv4), ipv6: ip6(ipv6) } }
      }
      const a = open(near, '10.201.0.1', 'fd00:201::1')
      const b = open(far, '10.201.0.2', 'fd00:201::2')
      join(a.dataplane, a.addresses, b.dataplane, b.addresses, 1440)
      a.dataplane.start()
      b.dataplane.start()

      for (const address of ['10.201.0.2', 'fd00:201::2']) {
        const server = far.spawn(process.execPath, '-e', digestServer, address)
        await new Promise(resolve => server.stdout?.once('data', resolve))
        const digests = outputOf(near.spawn(process.execPath, '-e', digestClient, address))
        t.match(await digests, /^same same same\n$/, `${address}: up, down and datagrams`)
        server.kill()
      }
      if (backend === 'offload') {
        const counters = a.dataplane.status().counters
        t.ok((counters['coalesced-packets'] ?? 0) > 1000, 'super-packets were written')
        t.ok((counters['sent-packets'] ?? 0) > 4 * (counters['tun-read-frames'] ?? 0), 'and read')
      }
    })
  }

  await t.test('a name that is taken is an error', async t => {
    const namespace = new Namespace('taken')
    t.teardown(() => namespace.remove())
    namespace.enter(() => {
      const dataplane = openDataplane({ tunName: 'dp0', memoryBytes: 96 << 20 })
      t.throws(() => openDataplane({ tunName: 'dp0' }), { message: /in use by another program/ })
      t.throws(() => openDataplane({ tunName: 'lo' }), TunError)
      dataplane.stop()
    })
    t.notMatch(namespace.ip('link'), /dp0/, 'a stopped device is gone')
  })

  await t.test('a device that is deleted under traffic is reported once', async t => {
    const namespace = new Namespace('lost')
    t.teardown(() => namespace.remove())
    const reasons: string[] = []
    let report: (reason: string) => void = () => {}
    const lost = new Promise<string>(resolve => {
      report = resolve
    })
    const dataplane = namespace.enter(() =>
      openDataplane({
        tunName: 'dp0',
        memoryBytes: 96 << 20,
        onDeviceLost: reason => {
          reasons.push(reason)
          report(reason)
        },
      }),
    )
    dataplane.start()
    namespace.ip('addr', 'add', '10.201.0.1/24', 'dev', 'dp0')
    const traffic = namespace.spawn('ping', '-q', '-f', '-c', '200', '-w', '1', '10.201.0.9')
    traffic.stdout?.resume()
    const ended = new Promise(resolve => traffic.once('exit', resolve))
    namespace.ip('link', 'delete', 'dp0')
    t.match(await lost, /dp0 is gone: it was deleted/)
    await ended
    const bursts = () => Object.entries(dataplane.status().counters).find(([n]) => n === 'bursts')
    const before = bursts()
    for (let i = 0; i < 50; i++) await new Promise(resolve => setImmediate(resolve))
    t.same(bursts(), before, 'nobody reads any more')
    t.equal(reasons.length, 1)
    dataplane.stop()
  })

  await t.test('an error thrown while reading is not lost', async t => {
    const namespace = new Namespace('throws')
    t.teardown(() => namespace.remove())
    const dataplane = namespace.enter(() =>
      openDataplane({ tunName: 'dp0', memoryBytes: 96 << 20 }),
    )
    const port = dataplane.attach({
      label: 'faulty',
      sink: {
        mtuBytes: 1400,
        reserve: () => {
          throw new TypeError('a bug of the sink')
        },
        commit: () => {},
        flush: () => {},
      },
      onLinkPacket: () => {},
    })
    port.addIpv4(ip4('10.201.0.9'))
    dataplane.start()
    namespace.ip('addr', 'add', '10.201.0.1/24', 'dev', 'dp0')
    const thrown = new Promise<unknown>(resolve => {
      process.setUncaughtExceptionCaptureCallback(resolve)
    })
    const traffic = namespace.spawn('ping', '-q', '-c', '1', '-w', '1', '10.201.0.9')
    traffic.stdout?.resume()
    const ended = new Promise(resolve => traffic.once('exit', resolve))
    t.match(await thrown, { message: 'a bug of the sink' })
    process.setUncaughtExceptionCaptureCallback(null)
    traffic.kill()
    await ended
    dataplane.stop()
  })
})

t.test('system calls are declared once', { skip }, async t => {
  t.equal(loadKernel(), existingKernel())
})

/** Receives a stream and answers its digest, then sends one; echoes the digest of datagrams. */
const digestServer = `
const { createHash } = require('node:crypto')
const address = process.argv[1]
const data = Buffer.alloc(6 << 20, 'openras dataplane ')
require('node:net').createServer({ allowHalfOpen: true }, socket => {
  const hash = createHash('sha256')
  socket.on('data', chunk => hash.update(chunk))
  socket.on('end', () => { socket.write(hash.digest()); socket.end(data) })
}).listen(7001, address, () => {
  const udp = require('node:dgram').createSocket(address.includes(':') ? 'udp6' : 'udp4')
  udp.on('message', (message, peer) => udp.send(createHash('sha256').update(message).digest(), peer.port, peer.address))
  udp.bind(7002, address, () => console.log('ready'))
})`

const digestClient = `
const { createHash } = require('node:crypto')
const address = process.argv[1]
const sha = data => createHash('sha256').update(data).digest()
const up = Buffer.alloc(6 << 20, 'the quick brown fox ')
const down = Buffer.alloc(6 << 20, 'openras dataplane ')
const chunks = []
const same = (a, b) => Buffer.compare(a, b) === 0 ? 'same' : 'different'
const socket = require('node:net').connect(7001, address, () => socket.end(up))
socket.on('data', chunk => chunks.push(chunk))
socket.on('end', () => {
  const all = Buffer.concat(chunks)
  const datagram = Buffer.alloc(1200, 'datagram')
  const udp = require('node:dgram').createSocket(address.includes(':') ? 'udp6' : 'udp4')
  udp.on('message', digest => {
    console.log(same(all.subarray(0, 32), sha(up)), same(sha(all.subarray(32)), sha(down)), same(digest, sha(datagram)))
    process.exit(0)
  })
  udp.send(datagram, 7002, address)
})
setTimeout(() => { console.log('late'); process.exit(1) }, 20000).unref()`

/** A kernel that agrees to everything, except for what is changed. */
function fakeKernel(changes: Partial<Kernel>): Kernel {
  const agree = () => 0
  return {
    open: () => 7,
    close: agree,
    ioctl: agree,
    read: agree,
    write: agree,
    readv: agree,
    writev: agree,
    socket: () => 8,
    bind: agree,
    connect: agree,
    setsockopt: agree,
    getsockopt: agree,
    sendmsg: agree,
    recvmsg: agree,
    sendmmsg: agree,
    recvmmsg: agree,
    setns: agree,
    errno: () => 0,
    addressOf: () => 0,
    uv: {
      pollHandleBytes: () => 160,
      pollInit: agree,
      pollStart: agree,
      pollStop: agree,
      close: () => {},
      pollCallback: () => 0n,
      closeCallback: () => 0n,
      release: () => {},
    },
    ...changes,
  }
}

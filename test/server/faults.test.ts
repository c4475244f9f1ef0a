import t, { type Test } from 'tap'
import { copyBytes, fromHex } from '../../lib/core/bytes.ts'
import { formatIpv4 } from '../../lib/core/ip-address.ts'
import { udp } from '../dataplane/packets.ts'
import { persona } from '../personas/personas.ts'
import { contentLength, headText, RawCall } from '../personas/raw-call.ts'
import { StockClient, type StockClientOptions } from '../personas/stock-client.ts'
import { DialIn, secretWord, turn } from '../support/dial-in.ts'

// A hundred calls, and the machine may be busy.
t.setTimeout(120_000)
const linux = persona('sstp-client with pppd')

async function setUp(t: Test) {
  const server = new DialIn()
  await server.listener.start()
  t.teardown(async () => {
    await server.stop()
    const leaks = server.leaks()
    if (leaks.length > 0) throw new Error(`lost: ${leaks.join(', ')}`)
  })
  const dial = (more: Partial<StockClientOptions> = {}) =>
    StockClient.dial(linux, {
      port: server.port,
      userName: 'alice',
      password: secretWord,
      ...more,
    })
  const bystander = await (await dial({ userName: 'bob' })).up()
  const stays = async () => {
    const packet = udp({ source: '192.0.2.9', destination: formatIpv4(bystander.address) })
    bystander.packets.length = 0
    server.host.fromHost(packet)
    await bystander.until(one => one.packets.length === 1)
    t.strictSame(bystander.packets[0], packet, 'another call goes on')
  }
  return { server, dial, bystander, stays }
}

t.test(
  'a wrong nonce, hash bit, certificate hash or MAC is an abort, and no IP passes',
  async t => {
    const { server, dial, stays } = await setUp(t)
    // Offsets of [MS-SSTP] §2.2.12, and the counter of each.
    for (const [at, counter] of [
      [15, 'binding-hash-not-offered'],
      [16, 'binding-nonce'],
      [47, 'binding-nonce'],
      [48, 'binding-certificate'],
      [79, 'binding-certificate'],
      [80, 'binding-mac'],
      [111, 'binding-mac'],
    ] as const) {
      const before = server.count(counter)
      const forged = await dial({
        forge: message => {
          message[at] = (message[at] ?? 0) ^ 1
        },
      })
      await forged.until(one => one.messages.includes('call-abort'))
      t.equal(server.count(counter), before + 1, `byte ${at}: ${counter}`)
      forged.send(udp({ source: '10.87.0.11', destination: '192.0.2.9' }))
      forged.call.message('call-abort')
      await server.elapse(5_000)
      await server.until(() => server.sessions.size === 1)
      forged.call.destroy()
    }
    t.same(server.host.toHost, [])
    t.equal(server.of('session-up').length, 1)
    await stays()
  },
)

t.test('LCP, CHAP, PAP and IPCP that are wrong at any byte harm nobody else', async t => {
  const { server, dial, stays } = await setUp(t)
  const frames = [
    'ff03c021 01 07 0012 010405dc 0506 11223344 0702 0802',
    'ff03c021 09 08 0008 11223344',
    'ff03c223 02 09 0010 04 01020304 616c696365 0000',
    'ff03c023 01 0a 000a 0161 03626364',
    'ff038021 01 0b 0010 0306 00000000 8106 00000000',
    'ff038057 01 0c 000e 010a 021a4bfffe00c0de',
  ].map(fromHex)
  const variants = frames.flatMap(frame =>
    [...frame].flatMap((byte, at) => [
      copyBytes(frame, 0, at),
      frame.with(at, 0),
      frame.with(at, 0xff),
      frame.with(at, byte ^ 1),
    ]),
  )
  let client = await (await dial()).up()
  let calls = 1
  for (const variant of variants) {
    client.call.frame(variant)
    // What the server says to it, and what the client says to that.
    for (let i = 0; i < 3; i++) await turn()
    if (client.isUp && !client.call.isClosed) continue
    // However that link stands now, it goes, and a new call comes up at once.
    client.call.destroy()
    await server.until(() => server.sessions.size === 1)
    client = await (await dial()).up()
    calls++
  }
  t.ok(calls > 10, `${calls} calls for ${variants.length} frames`)
  t.equal(server.of('session-up').length, 1 + calls)
  t.equal(server.of('session-down').length, calls - 1)
  await stays()
  await client.leave()
})

t.test('a client that vanishes at any step of the set-up leaves nothing behind', async t => {
  const { server, dial, bystander, stays } = await setUp(t)
  const isBystander = () => server.sessions.size === 1 && server.ipv4Pool.leasedCount === 1
  const steps: [string, (client: StockClient) => boolean][] = [
    ['asked for a call', one => one.messages.length > 0],
    ['LCP is open', one => one.isOpen],
    ['authenticated', one => one.authenticatedCount > 0],
    ['IPv4 is up', one => one.ipv4Count > 0],
    ['all is up', one => one.isUp],
  ]
  for (const [name, isThere] of steps) {
    for (const isSilent of [false, true]) {
      const client = await dial({ doesNotBind: name === 'IPv4 is up' })
      await client.until(isThere)
      if (isSilent) client.vanish()
      else client.call.destroy()
      for (let i = 0; isSilent && i < 10 && !isBystander(); i++) await server.elapse(20_000)
      await server.until(isBystander)
      t.pass(`${name}, ${isSilent ? 'silent' : 'reset'}`)
      client.call.destroy()
    }
  }
  const early = await RawCall.open({ port: server.port, head: headText(contentLength) })
  await server.until(() => early.status !== '')
  await server.elapse(70_000)
  await server.until(() => server.listener.status().connections === 1)
  early.destroy()
  t.notOk(bystander.call.isClosed)
  await stays()
})

t.test('a client that never reads loses its packets, and nobody else does', async t => {
  const { server, dial, stays } = await setUp(t)
  const client = await (await dial()).up()
  client.call.stopReading()
  const packet = udp({
    source: '192.0.2.9',
    destination: formatIpv4(client.address),
    payload: new Uint8Array(1372),
  })
  const { totalCount } = server.dataplane.streamSlots
  for (let i = 0; i < 200 && server.count('droppedNoRoom') === 0; i++) {
    server.host.burstFromHost(Array(200).fill(packet))
    await server.until(() => server.host.waitingCount === 0)
  }
  t.ok(server.count('droppedNoRoom') > 0, 'what did not fit was counted')
  t.ok(server.dataplane.streamSlots.freeCount >= totalCount - 70, 'it holds its share at most')
  await stays()
  client.call.destroy()
  await server.until(() => server.sessions.size === 1)
})

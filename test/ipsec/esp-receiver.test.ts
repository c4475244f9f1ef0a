import t from 'tap'
import { EncryptionId } from '../../lib/crypto/transforms.ts'
import type { Envelope } from '../../lib/dataplane/datagrams.ts'
import { type EspOwner, EspReceiver } from '../../lib/ipsec/esp-receiver.ts'
import { SaDatabase } from '../../lib/ipsec/sa-database.ts'
import { suiteOf } from '../crypto/suites.ts'

import { ipv4Packet, memory, pairOf } from './sa-pair.ts'

const envelope = {} as Envelope
const packet = ipv4Packet(40)

/** Peers with an SA each; what they are handed is noted as peer and place. */
function receiverOf(peers: number) {
  const database = new SaDatabase<EspOwner>()
  const receiver = new EspReceiver(memory, database)
  const handed: { readonly peer: number; readonly at: number; readonly bytes: Uint8Array }[] = []
  const heard: number[] = []
  const outbound = Array.from({ length: peers }, (_, peer) => {
    const pair = pairOf(suiteOf(EncryptionId.aesGcm16, 128), { spi: 0x1000 + peer })
    database.add(pair.inbound, {
      payload: (at, length) =>
        handed.push({ peer, at, bytes: memory.bytes.slice(at, at + length) }),
      heardFrom: () => heard.push(peer),
    })
    return pair.outbound
  })
  /** A sealed packet of the peer at its place of 128 bytes; returns the place and length of the ESP packet. */
  const seal = (peer: number, place: number): [number, number] => {
    const sa = outbound[peer]
    if (sa === undefined) throw new RangeError(`no peer ${peer}`)
    const at = place * 128 + sa.headroomBytes
    memory.bytes.set(packet, at)
    return [place * 128, sa.sealIp(at, packet.length)]
  }
  return { receiver, handed, heard, seal, database }
}

t.test('payloads wait for the end of the burst and keep their order over all peers', async t => {
  const { receiver, handed, heard, seal, database } = receiverOf(2)
  const peers = [0, 1, 1, 0]
  const places = peers.map((peer, i) => seal(peer, i))
  for (const [at, length] of places) receiver.receive(at, length, envelope)
  t.same(heard, peers, 'who lives is known at once')
  t.same(handed, [])
  receiver.receive(0, 64, envelope)
  receiver.receive(0, 7, envelope)
  receiver.deliver()
  t.same(
    handed.map(({ peer }) => peer),
    peers,
  )
  for (const { bytes } of handed) t.same(bytes, packet)
  receiver.deliver()
  t.equal(handed.length, peers.length, 'each of them once')
  t.same(database.get(0x1000)?.sa.drops.toJSON(), { replayed: 1 })
  t.same(database.drops.toJSON(), { truncated: 1 })
})

t.test('a burst of more packets than may wait loses none', async t => {
  const { receiver, handed, seal } = receiverOf(1)
  const count = 400
  for (let i = 0; i < count; i++) receiver.receive(...seal(0, i), envelope)
  t.ok(handed.length > 0 && handed.length < count)
  receiver.deliver()
  t.same(
    handed.map(({ at }) => at - 16),
    Array.from({ length: count }, (_, i) => i * 128),
  )
})

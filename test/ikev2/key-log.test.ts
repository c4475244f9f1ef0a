/** Wireshark reads our exchanges with the keys that we log: an independent view of cipher and format. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { concatBytes, putU16, putU32 } from '../../lib/core/bytes.ts'
import { EncryptionId, IntegrityId } from '../../lib/crypto/transforms.ts'
import { defaultIkeAlgorithms, type IkeAlgorithms } from '../../lib/ikev2/suite.ts'
import { Pair } from './pair.ts'

const hasTshark = spawnSync('tshark', ['--version']).status === 0
const skip = hasTshark ? false : 'tshark is not installed'

/** https://www.tcpdump.org/manpages/pcap-savefile.5.html, link type 101: raw IP. */
function captureFile(datagrams: Pair['datagrams']): Uint8Array {
  const view = new DataView(new ArrayBuffer(24))
  view.setUint32(0, 0xa1b2c3d4, true)
  view.setUint16(4, 2, true)
  view.setUint16(6, 4, true)
  view.setUint32(16, 65_535, true)
  view.setUint32(20, 101, true)
  const records = datagrams.map(({ from, bytes }, i) => {
    const packet = new Uint8Array(28 + bytes.length)
    const isFromInitiator = from === 'initiator'
    packet[0] = 0x45
    putU16(packet, 2, packet.length)
    packet[8] = 64
    packet[9] = 17
    putU32(packet, 12, isFromInitiator ? 0xc0000201 : 0xc0000202)
    putU32(packet, 16, isFromInitiator ? 0xc0000202 : 0xc0000201)
    putU16(packet, 20, 500)
    putU16(packet, 22, 500)
    putU16(packet, 24, 8 + bytes.length)
    packet.set(bytes, 28)
    const head = new DataView(new ArrayBuffer(16))
    head.setUint32(0, i, true)
    head.setUint32(8, packet.length, true)
    head.setUint32(12, packet.length, true)
    return concatBytes(new Uint8Array(head.buffer), packet)
  })
  return concatBytes(new Uint8Array(view.buffer), ...records)
}

const suites: Record<string, Pick<IkeAlgorithms, 'encryption' | 'integrity'>> = {
  'AES-GCM-256': {
    encryption: [{ id: EncryptionId.aesGcm16, keyBits: 256 }],
    integrity: [],
  },
  'AES-CBC-128 with HMAC-SHA-256': {
    encryption: [{ id: EncryptionId.aesCbc, keyBits: 128 }],
    integrity: [IntegrityId.hmacSha256_128],
  },
  'AES-CBC-256 with HMAC-SHA-512': {
    encryption: [{ id: EncryptionId.aesCbc, keyBits: 256 }],
    integrity: [IntegrityId.hmacSha512_256],
  },
}

for (const [name, algorithms] of Object.entries(suites)) {
  t.test(`tshark decrypts what we exchange under ${name}`, { skip }, async t => {
    const ikeAlgorithms = { ...defaultIkeAlgorithms, ...algorithms }
    const pair = new Pair({ initiator: { ikeAlgorithms }, responder: { ikeAlgorithms } })
    t.ok(pair.dial())
    pair.send('initiator', { type: 'rekey-ike' })
    pair.settle(1000)
    pair.send('initiator', { type: 'close', cause: 'user-request', detail: 'test' })
    pair.settle(1000)
    const lines = pair.initiator.of('key-log').map(event => event.line)
    t.equal(lines.length, 2, 'one for each IKE SA')
    t.same(
      pair.responder.of('key-log').map(event => event.line),
      lines,
    )
    const file = join(t.testdir(), 'ike.pcap')
    writeFileSync(file, captureFile(pair.datagrams))
    const read = (keys: readonly string[]) => {
      const preferences = keys.flatMap(line => ['-o', `uat:ikev2_decryption_table:${line}`])
      const { stdout, stderr, status } = spawnSync('tshark', ['-r', file, '-V', ...preferences], {
        encoding: 'utf8',
      })
      if (status !== 0) t.fail(stderr)
      return stdout
    }
    const blind = read([])
    const seeing = read(lines)
    t.notMatch(blind, /branch@example\.com/)
    t.match(seeing, /branch@example\.com/, 'IDi')
    t.match(seeing, /vpn\.example\.com/, 'IDr')
    t.match(seeing, /Payload: Traffic Selector - Initiator/)
    t.match(seeing, /Payload: Delete/, 'also under the keys after rekeying')
    t.notMatch(seeing, /Malformed Packet|incorrect, should be/)
  })
}

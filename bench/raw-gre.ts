/**
 * The raw socket alone, a process of its own. Arguments: `send` or `receive`, our address, the other's,
 * payload bytes. Sends as fast as it can for two seconds, or prints the packets per second that arrive
 * in one.
 */

import { SystemError } from '../lib/core/errors.ts'
import { parseIpv4 } from '../lib/core/ip-address.ts'
import { loadKernel } from '../lib/dataplane/kernel.ts'
import { openRawSocket } from '../lib/dataplane/open-raw-socket.ts'
import { PacketMemory } from '../lib/dataplane/pinned-memory.ts'
import { GRE_PROTOCOL } from '../lib/pptp/index.ts'

const durationMs = 2000
const measuredMs = 1000
const [role = '', own = '', other = '', lengthText = '1400'] = process.argv.slice(2)
const kernel = loadKernel()
if (kernel instanceof SystemError) throw kernel
const memory = new PacketMemory({
  sizeBytes: 4 * 1024 * 1024,
  addressOf: bytes => kernel.addressOf(bytes),
})
const socket = openRawSocket(memory, GRE_PROTOCOL)
const [source = 0, destination = 0] = [parseIpv4(own), parseIpv4(other)]

function send(): void {
  const length = Number(lengthText)
  for (const startMs = performance.now(); performance.now() - startMs < durationMs; ) {
    for (let i = 0; i < 1024; i++) {
      const at = socket.reserve()
      if (at >= 0) socket.commit(at, length, source, destination)
    }
    socket.flush()
  }
  socket.close()
}

function receive(): void {
  let packets = 0
  let startMs = 0
  let endMs = 0
  socket.start({
    onPacket: () => {
      packets++
    },
    onBurstEnd: () => {
      endMs = performance.now()
      if (startMs === 0) {
        startMs = endMs
        packets = 0
        setTimeout(() => {
          process.stdout.write(`${(packets * 1000) / (endMs - startMs)}\n`)
          socket.close()
        }, measuredMs)
      }
    },
    onLost: () => {},
  })
  process.stdout.write('ready\n')
}

if (role === 'send') send()
else receive()

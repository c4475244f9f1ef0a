/** The leases of a server and a DHCP server at the other end of a line, by hand: no sockets, no clocks. */
import { DhcpLeases } from '../../lib/address/dhcp/dhcp-leases.ts'
import type { Ipv4Lease } from '../../lib/address/ipv4-pool.ts'
import { Ipv4Pools } from '../../lib/address/ipv4-pools.ts'
import { DhcpMessageType, DhcpOption } from '../../lib/address/wire/dhcp.ts'
import {
  checkDhcpMessage,
  type DhcpMessage,
  DhcpOp,
  dhcpMessageBytes,
  encodeDhcpMessage,
  parseDhcpMessage,
} from '../../lib/address/wire/dhcp-message.ts'
import { putU32, utf8Text } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { parseIpv4 } from '../../lib/core/ip-address.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'

export const ip = (text: string) => parseIpv4(text) ?? 0
export const dhcpServer = ip('192.0.2.1')
export const relay = ip('192.0.2.2')
export const link = ip('10.87.0.1')

export const four = (value: number) => {
  const bytes = new Uint8Array(4)
  putU32(bytes, 0, value)
  return bytes
}

export function bytesOf(message: DhcpMessage): Uint8Array {
  const bytes = new Uint8Array(dhcpMessageBytes(message)).fill(0xa5)
  encodeDhcpMessage(message, bytes)
  return bytes
}

export interface Sent {
  readonly type: number
  readonly server: number | undefined
  readonly atMs: number
  readonly client: string
  readonly message: DhcpMessage
}

const typeNames = Object.entries(DhcpMessageType)

export class DhcpLine {
  readonly clock = new ManualClock()
  readonly wheel = new TimerWheel(0)
  readonly sent: Sent[] = []
  readonly lost: [number, string][] = []
  readonly asked: (Ipv4Lease | Promise<Ipv4Lease>)[] = []
  readonly local = new Ipv4Pools({
    ranges: [],
    pools: new Map([['staff', { ranges: [{ first: ip('10.88.0.1'), last: ip('10.88.0.9') }] }]]),
    serverAddress: link,
  })
  changes = 0
  leases: DhcpLeases
  readonly #seed = new SeededRandom(20261121)

  constructor() {
    this.leases = this.restart()
  }

  /** New leases, as after a start of the server. */
  restart(): DhcpLeases {
    this.leases = new DhcpLeases({
      serverName: 'vpn',
      local: this.local,
      isUsable: address => address >>> 16 === link >>> 16 && address !== link,
      relayAddress: relay,
      linkAddress: link,
      clock: this.clock,
      wheel: this.wheel,
      random: this.#seed,
      send: (bytes, server) => this.#take(bytes, server),
      onLost: (address, reason) => this.lost.push([address, reason]),
      onChange: () => {
        this.changes++
      },
    })
    return this.leases
  }

  /** Asks, and does not wait. */
  ask(userName: string): void {
    this.asked.push(this.leases.lease({ userName }))
  }

  /** Names of the messages that were sent since the last question. */
  take(): string[] {
    return this.sent
      .splice(0)
      .map(({ type }) => typeNames.find(([, number]) => number === type)?.[0] ?? String(type))
  }

  advance(ms: number): void {
    for (let passed = 0; passed < ms; passed += 50) {
      this.clock.advance(50)
      this.wheel.advance(this.clock.nowMs())
    }
  }

  answer(
    to: Sent | undefined,
    type: keyof typeof DhcpMessageType,
    address: number,
    options: readonly [number, Uint8Array][] = [],
  ): void {
    if (to === undefined) throw new Error('nothing was sent')
    const { transactionId, hardwareAddress } = to.message
    this.leases.receive(
      bytesOf({
        op: DhcpOp.reply,
        transactionId,
        seconds: 0,
        clientAddress: 0,
        yourAddress: address,
        relayAddress: relay,
        hardwareAddress,
        options: new Map([
          [DhcpOption.messageType, Uint8Array.of(DhcpMessageType[type])],
          [DhcpOption.serverIdentifier, four(dhcpServer)],
          [DhcpOption.leaseTime, four(3600)],
          ...options,
        ]),
      }),
    )
  }

  /** Offer and acknowledgement of what was asked last. */
  give(address: number, options: readonly [number, Uint8Array][] = []): void {
    this.answer(this.sent.at(-1), 'offer', address)
    this.answer(this.sent.at(-1), 'ack', address, options)
  }

  #take(bytes: Uint8Array, server: number | undefined): void {
    if (checkDhcpMessage(bytes)) throw new Error('malformed')
    const message = parseDhcpMessage(bytes)
    this.sent.push({
      type: message.options.get(DhcpOption.messageType)?.[0] ?? 0,
      server,
      atMs: this.clock.nowMs(),
      client: utf8Text(message.options.get(DhcpOption.clientIdentifier)?.slice(1) ?? four(0)),
      message,
    })
  }
}

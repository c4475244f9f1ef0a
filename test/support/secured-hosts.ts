/** Hosts with IKEv1 and ESP on an imagined network, some of them behind one NAT, and one clock. */
import { ManualClock } from '../../lib/core/clock.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import { SocketAddress } from '../../lib/dataplane/socket-address.ts'
import type { IsakmpEvent } from '../../lib/ikev1/event.ts'
import { createPolicy, type PolicyChoices } from '../../lib/ikev1/index.ts'
import { Ikev1Listener } from '../../lib/ikev1/listener.ts'
import type { PeerService, SecuredPeer } from '../../lib/ikev1/secured-peer.ts'
import { type EspOwner, EspReceiver } from '../../lib/ipsec/esp-receiver.ts'
import { IkeSockets } from '../../lib/ipsec/ike-sockets.ts'
import { SaDatabase } from '../../lib/ipsec/sa-database.ts'
import { DatagramLink, LinkPlane } from './datagram-link.ts'

export const serverAddress = '192.0.2.1'
export const natAddress = '203.0.113.5'

export interface HostOptions {
  readonly seed: number
  readonly key?: string
  readonly policy?: PolicyChoices
  readonly dpdAfterMs?: number
  readonly sendsInitialContact?: boolean
  open?(peer: SecuredPeer): PeerService | undefined
}

export class World {
  readonly clock = new ManualClock(1000)
  readonly wheel = new TimerWheel(this.clock.nowMs())
  readonly link = new DatagramLink()
  readonly #outside = new Map<string, SocketAddress>()
  readonly #inside = new Map<string, SocketAddress>()
  #nextPort = 30_000

  constructor() {
    this.link.onWay = ({ from, to, bytes }) => ({
      from: this.#leave(from),
      to: this.#inside.get(nameOf(to)) ?? to,
      bytes,
    })
  }

  /** The NAT gives everybody other ports. */
  rebind(): void {
    this.#outside.clear()
  }

  /** Lets time pass in steps, with what it sets in motion. */
  elapse(durationMs: number, stepMs = 500): void {
    for (let gone = 0; gone < durationMs; gone += stepMs) {
      this.clock.advance(stepMs)
      this.wheel.advance(this.clock.nowMs())
      this.link.deliver()
    }
  }

  #leave(from: SocketAddress): SocketAddress {
    if (!from.text.startsWith('10.')) return from
    const name = nameOf(from)
    const known = this.#outside.get(name)
    if (known !== undefined) return known
    const outside = SocketAddress.of(natAddress, this.#nextPort)
    this.#nextPort++
    this.#outside.set(name, outside)
    this.#inside.set(nameOf(outside), from)
    return outside
  }
}

export class SecuredHost {
  readonly memory = new PacketMemory({ sizeBytes: 1024 * 1024 })
  readonly database = new SaDatabase<EspOwner>()
  readonly events: IsakmpEvent[] = []
  readonly peers: SecuredPeer[] = []
  readonly address: string
  readonly listener: Ikev1Listener
  readonly plane: LinkPlane
  readonly random: SeededRandom

  constructor({ link, clock, wheel }: World, address: string, options: HostOptions) {
    const { memory, database } = this
    this.address = address
    this.random = new SeededRandom(options.seed)
    this.plane = new LinkPlane(link, memory)
    const sockets = new IkeSockets({
      plane: this.plane,
      memory,
      esp: new EspReceiver(memory, database),
      hosts: [address],
      takesPlainEsp: false,
      onLost: () => {},
    })
    this.listener = new Ikev1Listener({
      sockets,
      sender: this.plane,
      memory,
      database,
      clock,
      wheel,
      random: this.random,
      owner: {
        settings: {
          policy: createPolicy(options.policy),
          preSharedKeys: [
            { scope: { type: 'anyone' }, key: Secret.fromText(options.key ?? 'a shared key') },
          ],
          forcesEncapsulation: true,
          dpdAfterMs: options.dpdAfterMs ?? 30_000,
          sendsInitialContact: options.sendsInitialContact ?? false,
        },
        open: peer => {
          this.peers.push(peer)
          return options.open?.(peer)
        },
        event: (_peer, event) => this.events.push(event),
      },
    })
    sockets.open()
  }

  dial(server = serverAddress) {
    return this.listener.dial({
      local: { address: this.address, port: 500 },
      peer: { address: server, port: 500 },
      isFloated: false,
    })
  }

  count(type: IsakmpEvent['type']): number {
    return this.events.filter(event => event.type === type).length
  }

  /** Sends bytes to a peer, as a packet of the protected protocol. */
  send(peer: SecuredPeer, packet: Uint8Array): boolean {
    const at = peer.esp.reserve(packet.length)
    if (at < 0) return false
    this.memory.bytes.set(packet, at)
    peer.esp.commit(at, packet.length)
    peer.esp.flush()
    return true
  }
}

function nameOf(address: SocketAddress): string {
  return `${address.text} ${address.port}`
}

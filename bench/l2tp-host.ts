/** A host that dials L2TP/IPsec: its TUN device, its sockets, its client roles of IKEv1 and L2TP. */
import { systemClock } from '../lib/core/clock.ts'
import { Counters } from '../lib/core/faults.ts'
import { systemRandom } from '../lib/core/random.ts'
import { Secret } from '../lib/core/secret.ts'
import { TimerWheel } from '../lib/core/timers.ts'
import { DatagramHub } from '../lib/dataplane/datagram-hub.ts'
import { type Dataplane, openDataplane } from '../lib/dataplane/index.ts'
import type { IkePolicy } from '../lib/ikev1/index.ts'
import { Ikev1Listener } from '../lib/ikev1/listener.ts'
import { type EspOwner, EspReceiver } from '../lib/ipsec/esp-receiver.ts'
import { IKE_PORT, IkeSockets } from '../lib/ipsec/ike-sockets.ts'
import { SaDatabase } from '../lib/ipsec/sa-database.ts'
import { EspPath, L2tpListener } from '../lib/l2tp/index.ts'
import type { LinkFactory } from '../lib/ppp/carrier.ts'
import { type DialSettings, PppDial } from '../lib/server/ppp-dial.ts'

export const mtuBytes = 1400

/** Nobody calls us. */
const nobody: LinkFactory = { open: () => undefined }

export class L2tpHost {
  readonly dataplane: Dataplane
  readonly #wheel = new TimerWheel(systemClock.nowMs())
  readonly #sockets: IkeSockets
  readonly #ikev1: Ikev1Listener
  readonly #l2tp: L2tpListener
  /** Calls whose peer has no ESP yet. One is like the other, so who comes first is served first. */
  readonly #waiting: PppDial[] = []

  /** `address` is what to bind: any of our own with `0.0.0.0`. */
  constructor(address: string, preSharedKey: string, policy: IkePolicy) {
    const [clock, wheel, random] = [systemClock, this.#wheel, systemRandom]
    wheel.start(clock)
    this.dataplane = openDataplane({ mtuBytes, tunName: 'dial%d' })
    const { memory } = this.dataplane
    const database = new SaDatabase<EspOwner>()
    const sender = new DatagramHub(this.dataplane)
    const sockets = new IkeSockets({
      plane: sender,
      memory,
      esp: new EspReceiver(memory, database),
      hosts: [address],
      takesPlainEsp: false,
      onLost: reason => process.stderr.write(`bench client: socket lost: ${reason}\n`),
    })
    this.#sockets = sockets
    const l2tp = new L2tpListener({
      ...{ memory, clock, wheel, random },
      links: nobody,
      settings: { hostName: 'bench' },
      event: () => {},
    })
    this.#l2tp = l2tp
    const counters = new Counters()
    this.#ikev1 = new Ikev1Listener({
      ...{ sockets, sender, memory, database, clock, wheel, random },
      owner: {
        settings: {
          policy,
          preSharedKeys: [{ scope: { type: 'anyone' }, key: Secret.fromText(preSharedKey) }],
          forcesEncapsulation: true,
        },
        open: peer => {
          const dial = this.#waiting.shift()
          if (dial === undefined) return undefined
          // The pair stands when this returns: then there is ESP to dial through.
          setImmediate(() => l2tp.dial(new EspPath(peer, memory, counters), dial))
          return l2tp.open(peer)
        },
        event: () => {},
      },
    })
    sockets.open()
  }

  /** Dials from one of our addresses. */
  start(own: string, server: string, settings: DialSettings): PppDial {
    const dial = new PppDial(settings, {
      dataplane: this.dataplane,
      clock: systemClock,
      wheel: this.#wheel,
      random: systemRandom,
    })
    this.#waiting.push(dial)
    this.#ikev1.dial({
      local: { address: own, port: IKE_PORT },
      peer: { address: server, port: IKE_PORT },
      isFloated: false,
    })
    return dial
  }

  /** What IKE saw, by name. */
  get counters(): Readonly<Record<string, number>> {
    return this.#ikev1.status().counters
  }

  async close(): Promise<void> {
    await this.#l2tp.stop()
    await this.#ikev1.stop()
    this.#sockets.close()
    this.dataplane.stop()
    this.#wheel.stop()
  }
}

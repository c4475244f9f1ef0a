/** One host that speaks IKEv2 and ESP, on imagined or on real sockets. */
import { type Clock, ManualClock } from '../../lib/core/clock.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import type { DatagramPlane } from '../../lib/dataplane/datagrams.ts'
import type { PinnedMemory } from '../../lib/dataplane/dataplane.ts'
import type { IkeServices } from '../../lib/ikev2/ike-connection.ts'
import { type EspOwner, EspReceiver } from '../../lib/ipsec/esp-receiver.ts'
import { IkeSockets } from '../../lib/ipsec/ike-sockets.ts'
import { SaDatabase } from '../../lib/ipsec/sa-database.ts'
import type { DatagramNetwork } from './datagram-network.ts'

export interface IkeSiteOptions {
  readonly plane: DatagramPlane
  readonly memory: PinnedMemory
  readonly hosts: readonly string[]
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly seed: number
  readonly takesPlainEsp?: boolean
}

/** Sockets, SAs and services; what dials or listens is made on top. */
export function createIkeSite(options: IkeSiteOptions): IkeServices {
  const { plane, memory, clock, wheel } = options
  const database = new SaDatabase<EspOwner>()
  const sockets = new IkeSockets({
    plane,
    memory,
    esp: new EspReceiver(memory, database),
    hosts: options.hosts,
    takesPlainEsp: options.takesPlainEsp ?? false,
    onLost: () => {},
  })
  const random = new SeededRandom(options.seed)
  return { sockets, sender: plane, memory, database, clock, wheel, random }
}

/** Time for sites on an imagined network: it stands still while datagrams fly. */
export class SiteTime {
  readonly clock = new ManualClock(1_000_000)
  readonly wheel = new TimerWheel(this.clock.nowMs())
  readonly #network: DatagramNetwork

  constructor(network: DatagramNetwork) {
    this.#network = network
  }

  /** Delivers what flies and moves time until `done`, at most for `forMs`. */
  async run(forMs: number, done: () => boolean = () => false, stepMs = 100): Promise<boolean> {
    for (let gone = 0; ; gone += stepMs) {
      for (let i = 0; i < 4; i++) {
        this.#network.settle()
        // Verdicts are promises.
        await new Promise(resolve => {
          setImmediate(resolve)
        })
      }
      this.#network.settle()
      if (done()) return true
      if (gone >= forMs) return false
      this.clock.advance(stepMs)
      this.wheel.advance(this.clock.nowMs())
    }
  }
}

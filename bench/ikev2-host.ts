/** A host that dials IKEv2: its TUN device, its sockets, its dialler. */
import { systemClock } from '../lib/core/clock.ts'
import { SystemError } from '../lib/core/errors.ts'
import { systemRandom } from '../lib/core/random.ts'
import { TimerWheel } from '../lib/core/timers.ts'
import { DatagramHub } from '../lib/dataplane/datagram-hub.ts'
import { type Dataplane, openDataplane } from '../lib/dataplane/index.ts'
import { Ikev2Dialler } from '../lib/ikev2/dialler.ts'
import type { IkeConnection } from '../lib/ikev2/ike-connection.ts'
import { IKE_PORT } from '../lib/ikev2/path.ts'
import { type EspOwner, EspReceiver } from '../lib/ipsec/esp-receiver.ts'
import { IkeSockets } from '../lib/ipsec/ike-sockets.ts'
import { SaDatabase } from '../lib/ipsec/sa-database.ts'
import type { Ikev2Dial } from '../lib/server/ikev2-dial.ts'

export const mtuBytes = 1400

export class Ikev2Host {
  readonly dataplane: Dataplane
  readonly #address: string
  readonly #wheel = new TimerWheel(systemClock.nowMs())
  readonly #sockets: IkeSockets
  readonly #dialler: Ikev2Dialler

  constructor(address: string, takesPlainEsp = false) {
    this.#address = address
    this.#wheel.start(systemClock)
    this.dataplane = openDataplane({ mtuBytes, tunName: 'dial%d' })
    const { memory } = this.dataplane
    const database = new SaDatabase<EspOwner>()
    const sender = new DatagramHub(this.dataplane)
    const sockets = new IkeSockets({
      plane: sender,
      memory,
      esp: new EspReceiver(memory, database),
      hosts: [address],
      takesPlainEsp,
      onLost: reason => process.stderr.write(`bench client: socket lost: ${reason}\n`),
    })
    sockets.open()
    this.#sockets = sockets
    const [clock, wheel, random] = [systemClock, this.#wheel, systemRandom]
    this.#dialler = new Ikev2Dialler({ sockets, sender, memory, database, clock, wheel, random })
  }

  start(dial: Ikev2Dial, server: string): IkeConnection {
    const peer = { address: server, port: IKE_PORT }
    const limits = { mtuBytes, rekeyBytes: Number.POSITIVE_INFINITY }
    const settings = dial.ikeSettings(systemRandom)
    const connection = this.#dialler.dial(this.#address, peer, settings, limits, dial)
    if (connection === undefined) throw new SystemError(`no socket at ${this.#address}`)
    dial.start(connection)
    return connection
  }

  close(): void {
    this.#sockets.close()
    this.dataplane.stop()
    this.#wheel.stop()
  }
}

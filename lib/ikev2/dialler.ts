/** Dials IKEv2: a host that only calls others, or a load generator. */
import { Counters, faultName } from '../core/faults.ts'
import type { Envelope } from '../dataplane/datagrams.ts'
import type { IkeHandler } from '../ipsec/ike-sockets.ts'
import {
  IkeConnection,
  type IkeConnectionOwner,
  type IkeServices,
  type IkeSettings,
  type TunnelLimits,
} from './ike-connection.ts'
import { type Endpoint, IKE_PORT } from './path.ts'
import { routeTo } from './route.ts'
import { SpiMap } from './spi-map.ts'
import { checkHeader, parseHeader } from './wire/header.ts'

export class Ikev2Dialler implements IkeHandler {
  readonly #services: IkeServices
  readonly #spis = new SpiMap()
  readonly counters = new Counters()

  /** Takes over all of IKEv2 on these sockets. */
  constructor(services: IkeServices) {
    this.#services = services
    services.sockets.handle(2, this)
  }

  get size(): number {
    return this.#spis.size
  }

  /** Undefined when no socket is open at `localAddress`. Give it `start` to begin. */
  dial(
    localAddress: string,
    peer: Endpoint,
    settings: IkeSettings,
    limits: TunnelLimits,
    owner: IkeConnectionOwner,
  ): IkeConnection | undefined {
    const local = { address: localAddress, port: IKE_PORT }
    const route = routeTo(this.#services.sockets, { local, peer })
    if (route === undefined) return undefined
    return new IkeConnection(settings, route, this.#services, limits, owner, this.#spis)
  }

  message(bytes: Uint8Array, envelope: Envelope): void {
    const fault = checkHeader(bytes)
    if (fault) {
      this.counters.count(`malformed-${faultName(fault)}`)
      return
    }
    const connection = this.#spis.find(parseHeader(bytes))
    if (connection === undefined) this.counters.count('unknown-ike-spi')
    else connection.message(bytes, envelope)
  }
}

/** IKEv2 as the server runs it: sockets, listener and what calls are answered with. */
import type { CertificatePair } from '../certificates/certificate-pair.ts'
import { ClientAuthorities } from '../certificates/client-authorities.ts'
import type { Config } from '../config.ts'
import { systemWallClock } from '../core/clock.ts'
import type { Logger } from '../core/log.ts'
import { DatagramHub } from '../dataplane/datagram-hub.ts'
import { defaultHalfOpenLimits, Ikev2Listener, type Ikev2Status } from '../ikev2/listener.ts'
import { type EspOwner, EspReceiver } from '../ipsec/esp-receiver.ts'
import { IkeSockets } from '../ipsec/ike-sockets.ts'
import { SaDatabase } from '../ipsec/sa-database.ts'
import { type Ikev2CallServices, Ikev2Calls } from './ikev2-call.ts'
import { responderSettings, tunnelLimits } from './ikev2-settings.ts'
import type { CallServices } from './ppp-call.ts'
import { loadIkeCertificates } from './server-certificates.ts'

/** What the configuration names and files hold. */
export interface IkeParts {
  readonly certificates: readonly CertificatePair[]
  readonly authorities: ClientAuthorities
}

/** Throws CertificateError. */
export function loadIkeParts(config: Config): IkeParts {
  return {
    certificates: loadIkeCertificates(config),
    authorities: ClientAuthorities.load(config.ikev2.clientAuthorities),
  }
}

export class Ikev2Service {
  readonly #sockets: IkeSockets
  readonly #listener: Ikev2Listener
  #callServices: Ikev2CallServices

  /** Opens the sockets. Throws BindError and SystemError. */
  constructor(config: Config, parts: IkeParts, services: CallServices, log: Logger) {
    const { dataplane, clock, wheel, random } = services
    const { memory } = dataplane
    const database = new SaDatabase<EspOwner>()
    const plane = new DatagramHub(dataplane, clock)
    this.#sockets = new IkeSockets({
      plane,
      memory,
      esp: new EspReceiver(memory, database),
      hosts: config.server.listen,
      takesPlainEsp: config.ikev2.takesPlainEsp,
      onLost: reason => log.error({ event: 'socket-lost', reason }, 'an ipsec socket is gone'),
    })
    this.#callServices = callServices(config, parts, services)
    this.#listener = new Ikev2Listener({
      sockets: this.#sockets,
      sender: plane,
      memory,
      database,
      clock,
      wheel,
      random,
      calls: new Ikev2Calls(() => this.#callServices),
      halfOpen: defaultHalfOpenLimits,
    })
    this.#sockets.open()
  }

  status(): Ikev2Status {
    return this.#listener.status()
  }

  /** New calls are answered so; those that are up keep what they have. */
  reload(config: Config, parts: IkeParts, services: CallServices): void {
    this.#callServices = callServices(config, parts, services)
  }

  async stop(): Promise<void> {
    await this.#listener.stop()
    this.#sockets.close()
  }
}

function callServices(
  config: Config,
  { certificates, authorities }: IkeParts,
  services: CallServices,
): Ikev2CallServices {
  const { random } = services
  return {
    dataplane: services.dataplane,
    sessions: services.sessions,
    authenticator: services.authenticator,
    authorities,
    ipv4Pool: services.ipv4Pool,
    ipv6Pool: services.ipv6Pool,
    wallClock: systemWallClock,
    config,
    settings: responderSettings({ config, certificates, authorities, random }),
    limits: tunnelLimits(config),
  }
}

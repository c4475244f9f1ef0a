/** IKEv2 as the server runs it: the listener and what calls are answered with. */
import type { UserStore } from '../aaa/users/user-store.ts'
import type { CertificatePair } from '../certificates/certificate-pair.ts'
import { ClientAuthorities } from '../certificates/client-authorities.ts'
import type { Config } from '../config.ts'
import { systemWallClock } from '../core/clock.ts'
import { defaultHalfOpenLimits, Ikev2Listener, type Ikev2Status } from '../ikev2/listener.ts'
import { TicketOffice } from '../ikev2/ticket-office.ts'
import { clientSelectors } from './client-networks.ts'
import { type Ikev2CallServices, Ikev2Calls } from './ikev2-call.ts'
import { responderSettings, tunnelLimits } from './ikev2-settings.ts'
import type { IpsecService } from './ipsec-service.ts'
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
    authorities: ClientAuthorities.load(
      config.ikev2.clientAuthorities,
      config.ikev2.revocationLists,
    ),
  }
}

const isTcp = true

export class Ikev2Service {
  readonly #listener: Ikev2Listener
  readonly #tickets: TicketOffice
  readonly #ipsec: IpsecService
  readonly #users: (() => UserStore) | undefined
  #callServices: Ikev2CallServices

  /** `users` are looked up when a certificate names one of them. */
  constructor(
    config: Config,
    parts: IkeParts,
    services: CallServices,
    ipsec: IpsecService,
    users?: () => UserStore,
  ) {
    const { dataplane, clock, wheel, random } = services
    const { memory } = dataplane
    this.#ipsec = ipsec
    this.#users = users
    this.#tickets = new TicketOffice(random, config.ikev2.resumptionMs, clock.nowMs())
    this.#callServices = callServices(config, parts, services, this.#tickets, users)
    this.#listener = new Ikev2Listener({
      sockets: ipsec.sockets,
      sender: ipsec.plane,
      memory,
      database: ipsec.database,
      clock,
      wheel,
      random,
      calls: new Ikev2Calls(() => this.#callServices),
      halfOpen: defaultHalfOpenLimits,
    })
  }

  status(): Ikev2Status {
    const { streams } = this.#ipsec
    const listening = this.#listener.status()
    const counters = { ...listening.counters, ...this.#tickets.counters.toJSON() }
    const status = { ...listening, counters }
    if (streams === undefined) return status
    return {
      ...status,
      addresses: [
        ...status.addresses,
        ...streams.addresses.map(({ address, port }) => ({ host: address, port, isTcp }) as const),
      ],
      streams: streams.size,
      counters: { ...counters, ...streams.counters.toJSON() },
    }
  }

  /** New calls are answered so; those that are up keep what they have. */
  reload(config: Config, parts: IkeParts, services: CallServices): void {
    const before = this.#callServices.config.ikev2.redirectTo
    const { redirectTo, resumptionMs } = config.ikev2
    this.#tickets.lifetimeMs = resumptionMs
    this.#callServices = callServices(config, parts, services, this.#tickets, this.#users)
    if (redirectTo !== undefined && redirectTo !== before) this.#listener.redirect(redirectTo)
  }

  async stop(): Promise<void> {
    await this.#listener.stop()
    this.#tickets.destroy()
  }
}

function callServices(
  config: Config,
  { certificates, authorities }: IkeParts,
  services: CallServices,
  tickets: TicketOffice,
  users: (() => UserStore) | undefined,
): Ikev2CallServices {
  const { random } = services
  return {
    dataplane: services.dataplane,
    sessions: services.sessions,
    authenticator: services.authenticator,
    authorities,
    ...(users !== undefined && { users }),
    ipv4Pool: services.ipv4Pool,
    ipv6Pool: services.ipv6Pool,
    ...(services.informRelay !== undefined && { informRelay: services.informRelay }),
    wallClock: systemWallClock,
    config,
    settings: responderSettings({
      config,
      certificates,
      authorities,
      random,
      ...(config.ikev2.resumptionMs > 0 && { tickets }),
      ...(services.eapMethods !== undefined && { eapMethods: services.eapMethods }),
      ...(services.relayedEap !== undefined && { relayedEap: services.relayedEap }),
    }),
    limits: tunnelLimits(config),
    reachable: { ipv4: clientSelectors(config, 4), ipv6: clientSelectors(config, 6) },
  }
}

/** One IKEv2 call that we dial as a user: the client's side of what `Ikev2Call` answers. */
import { createHash, X509Certificate } from 'node:crypto'
import { toHex } from '../core/bytes.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { ConnectError } from '../core/errors.ts'
import type { RandomSource } from '../core/random.ts'
import type { Secret } from '../core/secret.ts'
import type { Dataplane, Port } from '../dataplane/dataplane.ts'
import { Mschapv2PeerMethod } from '../eap/mschapv2-method.ts'
import type { ConfigurationGrant } from '../ikev2/configuration.ts'
import type { IkeSaEvent } from '../ikev2/event.ts'
import { identityOf } from '../ikev2/identity.ts'
import type { IkeConnection, IkeConnectionOwner, IkeSettings } from '../ikev2/ike-connection.ts'
import {
  defaultAlgorithms,
  defaultFeatures,
  defaultSignaturePolicy,
  defaultTiming,
  type ResumableSession,
} from '../ikev2/options.ts'
import type { EspAlgorithms, IkeAlgorithms } from '../ikev2/suite.ts'
import { everything } from '../ikev2/traffic-selectors.ts'
import { ConfigurationAttributeType as Attribute } from '../ikev2/wire/configuration.ts'

export interface Ikev2DialSettings {
  readonly userName: string
  readonly password: Secret
  /** SHA-256 of the server's certificate, 32 bytes: it is trusted for this alone. */
  readonly serverSha256: Uint8Array
  readonly wantsIpv6: boolean
  readonly ikeAlgorithms?: IkeAlgorithms
  readonly espAlgorithms?: EspAlgorithms
  /** ESP as IP protocol 50 where no NAT is in the way; in UDP when absent. */
  readonly takesPlainEsp?: boolean
  /** Ask for tickets; the last one is `ticket`. */
  readonly wantsTicket?: boolean
  /** Come back with a ticket of an earlier call. */
  readonly resume?: ResumableSession
}

export interface Ikev2DialEnd {
  readonly cause: DisconnectCause
  readonly detail: string
}

export class Ikev2Dial implements IkeConnectionOwner {
  /** What we were given. Rejects with ConnectError when the call ends before. */
  readonly up: Promise<ConfigurationGrant>
  readonly closed: Promise<Ikev2DialEnd>
  /** To come back with, within `ticketSeconds` of its coming. */
  ticket: ResumableSession | undefined
  ticketSeconds = 0
  /** Where the server wants us to be. */
  redirectedTo: string | undefined
  readonly #settings: Ikev2DialSettings
  readonly #dataplane: Dataplane | undefined
  #connection: IkeConnection | undefined
  #port: Port | undefined
  #onUp: (grant: ConfigurationGrant) => void = () => {}
  #onFailed: (error: ConnectError) => void = () => {}
  #onClosed: (end: Ikev2DialEnd) => void = () => {}

  /** Without a dataplane no packets are carried: load generators. */
  constructor(settings: Ikev2DialSettings, dataplane: Dataplane | undefined) {
    this.#settings = settings
    this.#dataplane = dataplane
    this.up = new Promise((resolve, reject) => {
      this.#onUp = resolve
      this.#onFailed = reject
    })
    this.closed = new Promise(resolve => {
      this.#onClosed = resolve
    })
    // Who asks for `closed` alone must not be hit by an unhandled rejection.
    this.up.catch(() => undefined)
  }

  /** What the connection is made with. */
  ikeSettings(random: RandomSource): IkeSettings {
    const { userName, password, wantsIpv6 } = this.#settings
    return {
      role: 'initiator',
      localIdentities: [
        {
          identity: identityOf(userName),
          credential: {
            type: 'eap',
            userName,
            methods: [() => new Mschapv2PeerMethod({ random, userName, password })],
          },
        },
      ],
      peer: { acceptsCertificates: true, authorities: [], presharedKeys: [] },
      signature: defaultSignaturePolicy,
      ikeAlgorithms: this.#settings.ikeAlgorithms ?? defaultAlgorithms.ike,
      child: {
        algorithms: this.#settings.espAlgorithms ?? defaultAlgorithms.esp,
        transportMode: false,
        localSelectors: everything,
        remoteSelectors: everything,
      },
      configurationAttributes: [
        Attribute.INTERNAL_IP4_ADDRESS,
        Attribute.INTERNAL_IP4_DNS,
        ...(wantsIpv6 ? [Attribute.INTERNAL_IP6_ADDRESS, Attribute.INTERNAL_IP6_DNS] : []),
      ],
      ...(this.#settings.resume !== undefined && { resume: this.#settings.resume }),
      vendorIds: [],
      timing: defaultTiming,
      features: {
        ...defaultFeatures,
        forcesEncapsulation: this.#settings.takesPlainEsp !== true,
        requestsTicket: this.#settings.wantsTicket === true,
      },
    }
  }

  start(connection: IkeConnection): void {
    this.#connection = connection
    connection.handle({ type: 'start' })
  }

  hangUp(): void {
    this.#connection?.handle({ type: 'close', cause: 'user-request', detail: 'hung-up' })
  }

  /** Exchanges the keys of the IKE SA, or of all Child SAs, now. */
  rekey(what: 'ike' | 'child'): void {
    const connection = this.#connection
    if (what === 'ike') connection?.handle({ type: 'rekey-ike' })
    else {
      for (const { inbound } of connection?.tunnel.children ?? []) {
        connection?.handle({ type: 'rekey-child', inboundSpi: inbound.spi })
      }
    }
  }

  event(event: IkeSaEvent): void {
    switch (event.type) {
      case 'verify-certificate':
        this.#verify(event.ticket, event.certificates)
        break
      case 'established':
        this.#establish(event.configuration)
        break
      case 'ticket':
        this.ticket?.d.destroy()
        this.ticket = event.session
        this.ticketSeconds = event.lifetimeSeconds
        break
      case 'redirected':
        this.redirectedTo = event.gateway
        break
      case 'closed': {
        const { cause, detail } = event
        this.#port?.detach()
        this.#onFailed(new ConnectError(`the call ended: ${detail} (${cause})`))
        this.#onClosed({ cause, detail })
        break
      }
      default:
        break
    }
  }

  #verify(ticket: number, certificates: readonly Uint8Array[]): void {
    const [leaf] = certificates
    const sha256 = leaf && createHash('sha256').update(leaf).digest()
    const isPinned = sha256 !== undefined && toHex(sha256) === toHex(this.#settings.serverSha256)
    this.#connection?.handle({
      type: 'certificate-verdict',
      ticket,
      verdict:
        isPinned && leaf !== undefined
          ? {
              type: 'accept',
              publicKey: new X509Certificate(leaf).publicKey,
              authorization: { userName: 'server' },
            }
          : { type: 'reject', detail: 'not-the-pinned-one' },
    })
  }

  #establish(configuration: ConfigurationGrant): void {
    const connection = this.#connection
    if (connection !== undefined && this.#dataplane !== undefined) {
      const port = this.#dataplane.attach({
        label: 'dial',
        isUplink: true,
        sink: connection.tunnel,
        onLinkPacket: () => {},
      })
      this.#port = port
      // Behind the server is everything.
      port.addIpv4Network(0, 0)
      if (configuration.ipv6Address !== undefined) port.addIpv6(new Uint8Array(16), 0)
      connection.tunnel.connect(port)
    }
    this.#onUp(configuration)
  }
}

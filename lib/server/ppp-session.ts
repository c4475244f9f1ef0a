/**
 * What a client is given, for as long as any of its calls is up: addresses, a DHCP server, a router, and
 * its place in the session. One call is behind it, or the links of a bundle.
 */
import type { Authorization } from '../aaa/authenticator.ts'
import type { Session } from '../aaa/session.ts'
import { type DhcpLink, DhcpResponder } from '../address/dhcp-responder.ts'
import { serverDuid } from '../address/dhcpv6-responder.ts'
import type { Ipv4Lease } from '../address/ipv4-pool.ts'
import { InvariantError, messageOf } from '../core/errors.ts'
import type { Ipv6Network } from '../core/ip-address.ts'
import type { WheelEntry } from '../core/timers.ts'
import type { Port } from '../dataplane/dataplane.ts'
import type { Ipv4Up, Ipv6Up, NetworkEvent } from '../ppp/event.ts'
import type { CompressionSettings, ServerNetwork } from '../ppp/settings.ts'
import { Ipv6Link } from './ipv6-link.ts'
import type { CallServices } from './ppp-call.ts'
import { PppNetwork, type PppNetworkOwner } from './ppp-network.ts'

/** How long a client may take to name the address that it wants before it gets any, ms. */
const requestWaitMs = 2000

export class PppSession implements PppNetworkOwner, WheelEntry {
  readonly isUplink = false
  readonly session: Session
  readonly label: string
  readonly network: PppNetwork
  readonly #services: CallServices
  #isOver = false
  #ipv4: number | undefined
  #ipv6: Ipv6Network | undefined
  /** Ours to give back; a prefix of the authorization is not. */
  #isIpv6Leased = false
  /** Leased for a client that is a router. */
  #delegated: Ipv6Network | undefined
  #hasNetwork = false
  #ipv6Link: Ipv6Link | undefined
  #dhcp: DhcpLink | undefined

  /** Without `compression` tunnels protect what they carry. */
  constructor(
    session: Session,
    compression: CompressionSettings | undefined,
    services: CallServices,
  ) {
    this.session = session
    this.label = `${session.protocol}/${session.number}`
    this.#services = services
    const settings = compression === undefined ? {} : { compression }
    this.network = new PppNetwork(settings, services, this)
  }

  /** The client may have its addresses; with some patience, if it may ask for one. */
  begin(): void {
    if (this.#hasNetwork) return
    const { settings, wheel, clock } = this.#services
    if (settings.isRequestable && this.#given.ipv4Address === undefined) {
      wheel.schedule(this, clock.nowMs() + requestWaitMs)
    } else {
      this.#give(0)
    }
  }

  // PppNetworkOwner

  networkEvent(event: NetworkEvent): void {
    switch (event.type) {
      case 'ipv4-requested':
        this.#give(event.address)
        break
      case 'compression-up':
      case 'compression-down':
      case 'failed':
        this.session.log.debug({ ...event, event: event.type }, event.type)
        break
      case 'ipv6-down':
        this.#ipv6Link?.close()
        this.#ipv6Link = undefined
        break
      case 'ipv4-up':
      case 'ipv4-down':
      case 'ipv6-up':
      case 'reset-requested':
      case 'reject':
      case 'unexpected':
        break
    }
  }

  openIpv4(port: Port, up: Ipv4Up): void {
    port.addIpv4(up.peerAddress)
    this.session.bind(port)
    this.#dhcp?.close?.()
    this.#dhcp = this.#dhcpLink(up.peerAddress)
    this.#up({ ipv4: up.peerAddress })
  }

  openIpv6(port: Port, up: Ipv6Up): void {
    const prefix = this.#ipv6
    if (prefix === undefined) throw new InvariantError('IPv6 opened without a prefix')
    addNetwork(port, prefix)
    this.session.bind(port)
    if (this.#delegated !== undefined) addNetwork(port, this.#delegated)
    this.#up({ ipv6: prefix })
    const { settings } = this.#services
    const domain = settings.dhcp?.domain
    this.#ipv6Link?.close()
    this.#ipv6Link = new Ipv6Link(
      {
        interfaceId: up.localIdentifier,
        prefix,
        mtuBytes: up.mtuBytes,
        dnsServers: this.#given.dnsIpv6 ?? settings.dnsIpv6,
        ...(domain !== undefined && { domain }),
        serverId: serverDuid(settings.serverName),
        delegate: () => this.#delegate(port),
      },
      this.#services,
      packet => this.network.transmit(packet),
    )
  }

  /** That of the authorization is routed with the session. */
  #delegate(port: Port): Ipv6Network | undefined {
    const { delegatedIpv6Prefix, userName } = this.#given
    if (delegatedIpv6Prefix !== undefined) return delegatedIpv6Prefix
    if (this.#delegated === undefined) {
      this.#delegated = this.#services.delegationPool?.lease(userName)
      if (this.#delegated !== undefined) addNetwork(port, this.#delegated)
    }
    return this.#delegated
  }

  #dhcpLink(client: number): DhcpLink | undefined {
    const { settings, informRelay } = this.#services
    const { dhcp } = settings
    if (informRelay !== undefined) {
      return informRelay.link(client, packet => this.network.transmit(packet))
    }
    return dhcp && new DhcpResponder(dhcp, client, this.network.counters)
  }

  linkPacket(bytes: Uint8Array): void {
    const answer = this.#dhcp?.answer(bytes)
    if (answer !== undefined) this.network.transmit(answer)
    else this.#ipv6Link?.receive(bytes)
  }

  /** The client has not said which address it wants: it gets any. */
  onDeadline(): void {
    this.#give(0)
  }

  ended(): void {
    this.#isOver = true
    const { ipv4Pool, ipv6Pool, delegationPool, wheel } = this.#services
    wheel.cancel(this)
    this.#ipv6Link?.close()
    this.#dhcp?.close?.()
    if (this.#ipv4 !== undefined) ipv4Pool.release(this.#ipv4)
    if (this.#ipv6 !== undefined && this.#isIpv6Leased) ipv6Pool?.release(this.#ipv6)
    if (this.#delegated !== undefined) delegationPool?.release(this.#delegated)
  }

  // Addresses

  #give(requestedAddress: number): void {
    if (this.#hasNetwork || this.#isOver) return
    this.#hasNetwork = true
    const { ipv4Pool, wheel } = this.#services
    wheel.cancel(this)
    const { userName, ipv4Address, ipv4Pool: poolName } = this.#given
    const lease = ipv4Pool.lease({
      userName,
      requestedAddress,
      ...(poolName !== undefined && { poolName }),
      ...(ipv4Address !== undefined && { fixedAddress: ipv4Address }),
    })
    if (!(lease instanceof Promise)) {
      this.#onLease(lease)
      return
    }
    lease
      .then(later => {
        if (!this.#isOver) this.#onLease(later)
        else if (later.type === 'leased') ipv4Pool.release(later.address)
      })
      .catch((error: unknown) => this.#onFault(error))
  }

  get #given(): Authorization {
    return this.session.authorization ?? { userName: '' }
  }

  #onLease(lease: Ipv4Lease): void {
    const { settings, ipv6Pool } = this.#services
    const { userName, ipv6Prefix, dnsIpv4, winsIpv4 } = this.#given
    if (lease.type === 'leased') this.#ipv4 = lease.address
    this.#isIpv6Leased = ipv6Prefix === undefined
    this.#ipv6 = ipv6Prefix ?? ipv6Pool?.lease(userName)
    if (this.#ipv4 === undefined && this.#ipv6 === undefined) {
      const detail = lease.type === 'refused' ? `IPv4 address: ${lease.reason}` : ''
      this.network.close('no-address', detail)
      return
    }
    const network: ServerNetwork = {
      ipv4:
        this.#ipv4 === undefined
          ? null
          : {
              localAddress: settings.serverIpv4,
              peerAddress: this.#ipv4,
              dns: dnsIpv4 ?? settings.dnsIpv4,
              wins: winsIpv4 ?? settings.winsIpv4,
            },
      ipv6: this.#ipv6 === undefined ? null : {},
    }
    this.network.handle({ type: 'network', network })
  }

  #up(addresses: { ipv4?: number; ipv6?: Ipv6Network }): void {
    const { session } = this
    if (session.state === 'setup') session.up(addresses, () => this.network.usage())
    else session.addAddresses(addresses)
  }

  #onFault(error: unknown): void {
    this.session.log.error({ event: 'call-fault', reason: messageOf(error) }, 'call fault')
    if (!this.#isOver) this.network.close('nas-error', 'fault')
  }
}

function addNetwork(port: Port, { address, prefixLength }: Ipv6Network): void {
  port.addIpv6(address, prefixLength)
}

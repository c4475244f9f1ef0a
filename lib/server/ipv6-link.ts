/** IPv6 on one link: our answers as its router and DHCPv6 server, and our advertisements in time. */
import { type Dhcpv6Options, Dhcpv6Responder } from '../address/dhcpv6-responder.ts'
import {
  advertisementIntervalMs,
  LinkResponder,
  type LinkResponderOptions,
} from '../address/link-responder.ts'
import type { WheelEntry } from '../core/timers.ts'
import type { NetworkServices } from './ppp-network.ts'

export class Ipv6Link implements WheelEntry {
  readonly #responder: LinkResponder
  readonly #dhcp: Dhcpv6Responder
  readonly #services: NetworkServices
  readonly #transmit: (packet: Uint8Array) => void

  /** Advertises at once: Windows waits for it (RFC 4861 §6.2.4). */
  constructor(
    options: LinkResponderOptions & Omit<Dhcpv6Options, 'linkLocalAddress'>,
    services: NetworkServices,
    transmit: (packet: Uint8Array) => void,
  ) {
    this.#responder = new LinkResponder({ ...options, hasDhcpv6: true })
    const { linkLocalAddress } = this.#responder
    this.#dhcp = new Dhcpv6Responder({ ...options, linkLocalAddress })
    this.#services = services
    this.#transmit = transmit
    this.onDeadline(services.clock.nowMs())
  }

  /** A packet of the link. */
  receive(packet: Uint8Array): void {
    const answer = this.#responder.answer(packet) ?? this.#dhcp.answer(packet)
    if (answer !== undefined) this.#transmit(answer)
  }

  onDeadline(nowMs: number): void {
    this.#transmit(this.#responder.advertisement())
    this.#services.wheel.schedule(this, nowMs + advertisementIntervalMs)
  }

  close(): void {
    this.#services.wheel.cancel(this)
  }
}

/**
 * What may pass between one session and the rest: filter, rates, routes. They can change while
 * packets flow, and outlive the port, which a renegotiated link opens anew.
 */
import type { Ipv4Network, Ipv6Network } from '../core/ip-address.ts'
import type { PacketFilter, Port, RateLimits } from '../dataplane/index.ts'
import type { Authorization } from './authenticator.ts'
import { type FilterCatalogue, nothing } from './filter-catalogue.ts'

interface Routes {
  readonly ipv4: readonly Ipv4Network[]
  readonly ipv6: readonly Ipv6Network[]
}

/** Of most sessions, which share them. */
const noRates: RateLimits = {}
const noRoutes: Routes = { ipv4: [], ipv6: [] }

export class SessionTraffic {
  #filter: PacketFilter | undefined
  #rates = noRates
  #routes = noRoutes
  #port: Port | undefined

  /** Everything as `authorization` has it; the reason when it names what there is not, and then nothing changes. */
  set(
    authorization: Authorization,
    isQuarantined: boolean,
    filters: FilterCatalogue,
  ): string | undefined {
    const { quarantine } = authorization
    // Checked even if it does not hold now: what a release brings must exist.
    const usual = filters.filterOf(authorization)
    const wish = hasFilter(quarantine) ? quarantine : nothing
    const restricted = quarantine === undefined ? usual : filters.filterOf(wish)
    if (usual.type === 'unknown') return usual.reason
    if (restricted.type === 'unknown') return restricted.reason
    this.#filter = (isQuarantined ? restricted : usual).filter
    this.#rates = ratesOf(authorization)
    this.#port?.limit(this.#filter, this.#rates)
    this.#setRoutes(authorization)
    return undefined
  }

  /** The session's packets pass here from now on. */
  bind(port: Port): void {
    if (this.#port === port) return
    this.#port = port
    port.limit(this.#filter, this.#rates)
    this.#addRoutes(this.#routes)
  }

  #setRoutes(authorization: Authorization): void {
    const routes = routesOf(authorization)
    const port = this.#port
    if (port?.isAttached === true) {
      for (const { address, prefixLength } of this.#routes.ipv4) {
        port.removeIpv4Network(address, prefixLength)
      }
      for (const { address, prefixLength } of this.#routes.ipv6) {
        port.removeIpv6(address, prefixLength)
      }
    }
    this.#routes = routes
    this.#addRoutes(routes)
  }

  #addRoutes({ ipv4, ipv6 }: Routes): void {
    const port = this.#port
    if (port?.isAttached !== true) return
    for (const { address, prefixLength } of ipv4) port.addIpv4Network(address, prefixLength)
    for (const { address, prefixLength } of ipv6) port.addIpv6(address, prefixLength)
  }
}

function hasFilter(
  wish: Authorization['quarantine'],
): wish is NonNullable<Authorization['quarantine']> {
  return wish?.filterName !== undefined || (wish?.filterRules ?? []).length > 0
}

function routesOf({ ipv4Routes, ipv6Routes, delegatedIpv6Prefix }: Authorization): Routes {
  const delegated = delegatedIpv6Prefix === undefined ? [] : [delegatedIpv6Prefix]
  const ipv6 = [...(ipv6Routes ?? []), ...delegated]
  return ipv4Routes === undefined && ipv6.length === 0 ? noRoutes : { ipv4: ipv4Routes ?? [], ipv6 }
}

/** Bursts are those of a rate: alone they limit nothing. */
function ratesOf(authorization: Authorization): RateLimits {
  const { receiveBitsPerSecond, sendBitsPerSecond } = authorization
  const { receiveBurstBytes, sendBurstBytes } = authorization
  if (receiveBitsPerSecond === undefined && sendBitsPerSecond === undefined) return noRates
  return {
    ...(receiveBitsPerSecond !== undefined && { receiveBitsPerSecond }),
    ...(sendBitsPerSecond !== undefined && { sendBitsPerSecond }),
    ...(receiveBurstBytes !== undefined && { receiveBurstBytes }),
    ...(sendBurstBytes !== undefined && { sendBurstBytes }),
  }
}

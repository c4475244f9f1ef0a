/** A NAT between the private network 10.0.0.0/8 and everybody else, which may change its mappings. */
import type { Endpoint, Flight } from './datagram-network.ts'

export const natAddress = '203.0.113.5'

export class Nat {
  readonly #outside = new Map<string, Endpoint>()
  readonly #inside = new Map<string, Endpoint>()
  #nextPort = 30_000

  /** Gives everybody other ports; the old ones lead nowhere any more. */
  rebind(): void {
    this.#outside.clear()
    this.#inside.clear()
  }

  /** What becomes of a datagram: undefined when it is for a mapping that is not there. */
  pass(flight: Flight): Flight | undefined {
    if (flight.from.address.startsWith('10.')) return { ...flight, from: this.#leave(flight.from) }
    if (flight.to.address !== natAddress) return flight
    const to = this.#inside.get(nameOf(flight.to))
    return to === undefined ? undefined : { ...flight, to }
  }

  #leave(from: Endpoint): Endpoint {
    const known = this.#outside.get(nameOf(from))
    if (known !== undefined) return known
    const outside = { address: natAddress, port: this.#nextPort++ }
    this.#outside.set(nameOf(from), outside)
    this.#inside.set(nameOf(outside), from)
    return outside
  }
}

function nameOf({ address, port }: Endpoint): string {
  return `${address} ${port}`
}

/** The TUN device as the kernel sees it: state, MTU, the server's addresses, routes to the pools. */
import { messageOf, SystemError } from '../core/errors.ts'
import {
  formatIpv4,
  formatIpv4Network,
  formatIpv6,
  formatIpv6Network,
  type Ipv4Network,
  type Ipv6Network,
} from '../core/ip-address.ts'
import { runTool } from './command.ts'

export interface TunSettings {
  readonly mtuBytes: number
  /** The server's own address in the tunnels, host order. */
  readonly serverIpv4: number | undefined
  readonly serverIpv6: Uint8Array | undefined
  /** Networks whose packets belong into the tunnels. */
  readonly ipv4Networks: readonly Ipv4Network[]
  readonly ipv6Networks: readonly Ipv6Network[]
}

export class TunInterface {
  readonly #name: string
  /** Address and route arguments of `ip` that are in force: `addr 10.0.0.1/32`. */
  #inForce: readonly string[] = []

  /** `name` is an open TUN device. */
  constructor(name: string) {
    this.#name = name
  }

  /**
   * Brings the device to `settings`; may be called again with others, and then changes only what
   * differs. Throws SystemError, for example when a network is already routed elsewhere, and
   * MissingToolError.
   */
  async configure(settings: TunSettings): Promise<void> {
    const name = this.#name
    const wanted = wantedItems(settings)
    // The tunnels have no link layer: the kernel's own link-local address would only make noise.
    if (settings.serverIpv6 !== undefined && this.#inForce.length === 0) {
      await runTool('ip', ['link', 'set', 'dev', name, 'addrgenmode', 'none'])
    }
    await runTool('ip', ['link', 'set', 'dev', name, 'mtu', String(settings.mtuBytes), 'up'])
    const old = this.#inForce.filter(item => !wanted.includes(item))
    for (const item of old.toReversed()) await this.#change('del', item)
    this.#inForce = this.#inForce.filter(item => wanted.includes(item))
    for (const item of wanted) {
      if (this.#inForce.includes(item)) continue
      await this.#change('add', item)
      this.#inForce = [...this.#inForce, item]
    }
  }

  /** Takes addresses and routes away. A device that is gone already took them along. */
  async teardown(): Promise<void> {
    const items = this.#inForce.toReversed()
    this.#inForce = []
    for (const item of items) {
      try {
        await this.#change('del', item)
      } catch (error) {
        if (!/Cannot find device|No such (device|process)/.test(messageOf(error))) throw error
      }
    }
  }

  async #change(action: 'add' | 'del', item: string): Promise<void> {
    const [kind = '', target = ''] = item.split(' ')
    const family = target.includes(':') ? '-6' : '-4'
    const extra = kind === 'addr' && family === '-6' && action === 'add' ? ['nodad'] : []
    try {
      await runTool('ip', [family, kind, action, target, 'dev', this.#name, ...extra])
    } catch (error) {
      if (action === 'add' && /File exists|already assigned/.test(messageOf(error))) {
        throw new SystemError(
          `${target} is already ${kind === 'addr' ? 'an address' : 'routed'} on this machine (ip ${family} route show ${target}): choose other addresses for the tunnels`,
          { cause: error },
        )
      }
      throw error
    }
  }
}

/** In the order in which they are added. */
function wantedItems(settings: TunSettings): string[] {
  const items: string[] = []
  if (settings.serverIpv4 !== undefined) items.push(`addr ${formatIpv4(settings.serverIpv4)}/32`)
  if (settings.serverIpv6 !== undefined) items.push(`addr ${formatIpv6(settings.serverIpv6)}/128`)
  // The kernel has a route to the server's own addresses already.
  for (const network of settings.ipv4Networks) {
    if (network.prefixLength === 32 && network.address === settings.serverIpv4) continue
    items.push(`route ${formatIpv4Network(network)}`)
  }
  for (const network of settings.ipv6Networks) items.push(`route ${formatIpv6Network(network)}`)
  return [...new Set(items)]
}

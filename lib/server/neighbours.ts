/**
 * The hosts beside us, on the networks of our own interfaces: whether one of them has an address that a
 * client is to get, and the news that it has it from now on.
 */
import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { ConflictProbe } from '../address/conflict-probe.ts'
import { encodeArpAnnouncement, hardwareAddressBytes } from '../address/wire/arp.ts'
import { fromHex, toHex } from '../core/bytes.ts'
import type { Clock } from '../core/clock.ts'
import { messageOf, SystemError } from '../core/errors.ts'
import {
  formatIpv4,
  type Ipv4Network,
  ipv4Mask,
  isInIpv4Network,
  parseIpv4,
} from '../core/ip-address.ts'
import type { Logger } from '../core/log.ts'
import type { TimerWheel } from '../core/timers.ts'
import { ArpSocket, type ArpSocketEvents, loadKernel } from '../dataplane/index.ts'

/** A network that one of our interfaces is on. */
export interface Link {
  readonly name: string
  readonly index: number
  readonly hardware: Uint8Array
  /** Ours on it, host order. */
  readonly address: number
  readonly network: Ipv4Network
  /** Linux answers on it for addresses that it has routes to elsewhere (proxy_arp). */
  readonly isProxied: boolean
}

/** What goes to and comes from the hosts of a link. */
export interface LinkSocket {
  broadcast(packet: Uint8Array): boolean
  close(): void
}

export interface NeighbourOptions {
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly log: Logger
  readonly links?: () => readonly Link[]
  /** Throws SystemError or BindError. */
  readonly open?: (link: Link, events: ArpSocketEvents) => LinkSocket
}

interface Watch {
  readonly link: Link
  readonly socket: LinkSocket
  readonly probe: ConflictProbe
}

/** Between two looks at the interfaces, ms. */
const lookIntervalMs = 10_000

export class Neighbours {
  readonly #options: NeighbourOptions
  /** By interface. */
  readonly #watches = new Map<number, Watch>()
  #links: readonly Link[] = []
  #lookedMs = Number.NEGATIVE_INFINITY
  #hasFailed = false

  constructor(options: NeighbourOptions) {
    this.#options = options
  }

  /** The host that has the address, undefined when there is none or when no host can have it. */
  ownerOf(address: number): Promise<string | undefined> | undefined {
    const watch = this.#watchOf(address)
    if (watch?.link.address === address) return Promise.resolve(hardwareText(watch.link.hardware))
    return watch?.probe.ownerOf(address).then(owner => owner && hardwareText(owner))
  }

  /** Where Linux answers for the addresses of clients, hosts may still know another owner. */
  announce(address: number): void {
    const watch = this.#watchOf(address)
    if (watch?.link.isProxied !== true) return
    watch.socket.broadcast(encodeArpAnnouncement(watch.link.hardware, address))
    watch.probe.counters.count('announced')
  }

  /** By name, over all links. */
  counters(): Record<string, number> {
    const sums: Record<string, number> = {}
    for (const { probe } of this.#watches.values()) {
      for (const [name, count] of Object.entries(probe.counters.toJSON())) {
        sums[name] = (sums[name] ?? 0) + count
      }
    }
    return sums
  }

  close(): void {
    for (const index of [...this.#watches.keys()]) this.#end(index)
  }

  #watchOf(address: number): Watch | undefined {
    const link = this.#linkOf(address)
    return link && (this.#watches.get(link.index) ?? this.#begin(link))
  }

  #linkOf(address: number): Link | undefined {
    const { clock, links = systemLinks } = this.#options
    const nowMs = clock.nowMs()
    if (nowMs - this.#lookedMs >= lookIntervalMs) {
      this.#lookedMs = nowMs
      this.#links = links()
    }
    return this.#links.find(link => isInIpv4Network(link.network, address))
  }

  #begin(link: Link): Watch | undefined {
    const { clock, wheel, log, open = openSocket } = this.#options
    let probe: ConflictProbe | undefined
    try {
      const socket = open(link, {
        packet: bytes => probe?.receive(bytes),
        lost: () => this.#end(link.index),
      })
      const send = (packet: Uint8Array) => {
        if (!socket.broadcast(packet)) probe?.counters.count('arp-unsent')
      }
      probe = new ConflictProbe({ hardware: link.hardware, send, clock, wheel })
      const watch = { link, socket, probe }
      this.#watches.set(link.index, watch)
      const network = `${formatIpv4(link.network.address)}/${link.network.prefixLength}`
      log.info(
        { event: 'on-link', interface: link.name, network },
        'addresses are on a network here',
      )
      return watch
    } catch (thrown) {
      if (!this.#hasFailed) {
        const reason = messageOf(thrown)
        log.warn({ event: 'no-arp', interface: link.name, reason }, 'addresses are given unasked')
      }
      this.#hasFailed = true
      return undefined
    }
  }

  #end(index: number): void {
    const watch = this.#watches.get(index)
    this.#watches.delete(index)
    watch?.probe.close()
    watch?.socket.close()
  }
}

/** Interfaces with a hardware address and an IPv4 network of more than themselves. */
export function systemLinks(): Link[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    addresses.flatMap(({ family, internal, mac, cidr, address }): Link[] => {
      const prefixLength = Number(cidr?.split('/')[1] ?? 32)
      const hardware = fromHex(mac.replaceAll(':', ''))
      const own = parseIpv4(address)
      if (family !== 'IPv4' || internal || own === undefined) return []
      if (hardware.length !== hardwareAddressBytes || hardware.every(byte => byte === 0)) return []
      if (prefixLength > 30) return []
      const index = Number(readText(`/sys/class/net/${name}/ifindex`))
      if (!Number.isInteger(index) || index <= 0) return []
      const isProxied = readText(`/proc/sys/net/ipv4/conf/${name}/proxy_arp`) === '1'
      const network = { address: (own & ipv4Mask(prefixLength)) >>> 0, prefixLength }
      return [{ name, index, hardware, address: own, network, isProxied }]
    }),
  )
}

function openSocket({ index }: Link, events: ArpSocketEvents): LinkSocket {
  const kernel = loadKernel()
  if (kernel instanceof SystemError) throw kernel
  return new ArpSocket(kernel, index, events)
}

/** Empty when there is no such file. */
function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return ''
  }
}

function hardwareText(hardware: Uint8Array): string {
  return toHex(hardware).replaceAll(/..(?!$)/g, '$&:')
}

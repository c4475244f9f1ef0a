/**
 * The server with its PPTP listener on a free port of loopback, and GRE over arrays: a path that loses
 * and reorders as it is told. Time stands still until the test moves it.
 */
import type { Test } from 'tap'
import { copyBytes } from '../../lib/core/bytes.ts'
import { parseIpv4 } from '../../lib/core/ip-address.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import type { CompressionSettings } from '../../lib/ppp/settings.ts'
import { PptpListener } from '../../lib/pptp/index.ts'
import { PppCalls } from '../../lib/server/ppp-call.ts'
import { FakePacketSocket } from '../pptp/packet-socket.ts'
import { DialIn, type DialInOptions } from './dial-in.ts'
import { eventually, turn } from './eventually.ts'

export const mppeRequired: CompressionSettings = {
  encryption: 'required',
  strengths: [128],
  allowsStateful: false,
  prefersStateful: false,
  hasMppc: false,
}

export interface PptpSiteOptions extends DialInOptions {
  /** MPPE-128 stateless is required when absent. */
  readonly compression?: CompressionSettings
  readonly obeysWindow?: boolean
}

/** Somebody with a raw socket and a clock, at the other end. */
export interface Remote {
  readonly address: string
  /** Packets for IP protocol 47, in the order of their leaving. */
  readonly outgoing: Uint8Array[]
  receive(packet: Uint8Array): void
  onTime(nowMs: number): void
}

export interface Impairment {
  readonly lossPercent: number
  /** A packet that is overtaken by the next. */
  readonly reorderPercent: number
}

const perfect: Impairment = { lossPercent: 0, reorderPercent: 0 }

export class PptpSite {
  readonly home: DialIn
  readonly listener: PptpListener
  readonly socket: FakePacketSocket
  readonly remotes = new Set<Remote>()
  impairment = perfect
  lostPackets = 0
  reorderedPackets = 0
  readonly #random = new SeededRandom(47)
  readonly #held = new Map<Remote, { up?: Uint8Array | undefined; down?: Uint8Array | undefined }>()

  constructor(options: PptpSiteOptions = {}) {
    this.home = new DialIn(options)
    const { dataplane, clock, wheel, log, services } = this.home
    const settings = { ...services.settings, compression: options.compression ?? mppeRequired }
    this.socket = new FakePacketSocket(dataplane.memory)
    this.listener = new PptpListener({
      addresses: [{ host: '127.0.0.1', port: 0 }],
      hostName: 'openras',
      links: new PppCalls({ ...services, settings }),
      ...{ dataplane, socket: this.socket, clock, wheel, log },
      random: new SeededRandom(1723),
      obeysWindow: options.obeysWindow ?? false,
    })
  }

  /** A started one, which is stopped and looked through for leaks when the test ends. */
  static async open(t: Test, options: PptpSiteOptions = {}): Promise<PptpSite> {
    const site = new PptpSite(options)
    await site.listener.start()
    t.teardown(async () => {
      site.impairment = perfect
      site.home.sessions.drain()
      site.home.sessions.disconnectAll('nas-reboot')
      const stopped = site.listener.stop()
      for (let i = 0; i < 40 && site.listener.status().connections > 0; i++) await site.elapse(1000)
      await stopped
      await site.home.stop()
      const leaks = site.home.leaks()
      if (!site.socket.isWhole) leaks.push('places of the raw socket')
      if (leaks.length > 0) throw new Error(`lost: ${leaks.join(', ')}`)
    })
    return site
  }

  get port(): number {
    return this.listener.status().addresses[0]?.port ?? 0
  }

  get nowMs(): number {
    return this.home.clock.nowMs()
  }

  /** Carries what flies, and what that causes, until nothing moves any more. */
  settle(): void {
    for (let isMoving = true; isMoving; ) {
      isMoving = false
      this.home.dataplane.flush()
      for (const remote of this.remotes) {
        for (const packet of remote.outgoing.splice(0)) {
          isMoving = true
          this.#pass(remote, 'up', packet)
        }
      }
      for (const { bytes, destination } of this.socket.sent.splice(0)) {
        isMoving = true
        for (const remote of this.remotes) {
          if (parseIpv4(remote.address) === destination) this.#pass(remote, 'down', bytes)
        }
      }
    }
  }

  /** Lets time pass in steps; sockets get their turns between them. */
  async elapse(durationMs: number, stepMs = 250): Promise<void> {
    for (let gone = 0; gone < durationMs; gone += stepMs) {
      this.settle()
      for (const [remote, held] of this.#held) {
        const { up, down } = held
        this.#held.delete(remote)
        if (up !== undefined) this.#arrive(remote, 'up', up)
        if (down !== undefined) this.#arrive(remote, 'down', down)
      }
      await this.home.elapse(stepMs, stepMs)
      for (const remote of this.remotes) remote.onTime(this.nowMs)
    }
    this.settle()
  }

  /** Turns the event loop until `holds`; no time passes. */
  async until(
    holds: () => boolean,
    what = () => this.home.rawLines.slice(-3).join(''),
  ): Promise<void> {
    await eventually(() => {
      this.settle()
      return holds()
    }, what)
  }

  /** Lets time pass until `holds`. */
  async within(durationMs: number, holds: () => boolean, what?: () => string): Promise<void> {
    for (let gone = 0; gone < durationMs && !holds(); gone += 250) {
      await this.elapse(250)
      // The control connection is a real one, and its bytes take turns of their own.
      for (let i = 0; i < 20 && !holds(); i++) await turn()
    }
    await this.until(holds, what)
  }

  /** What the host behind the server sends into the tunnels. */
  fromHost(...packets: Uint8Array[]): void {
    this.home.host.burstFromHost(packets)
    this.settle()
  }

  #pass(remote: Remote, direction: 'up' | 'down', packet: Uint8Array): void {
    const { lossPercent, reorderPercent } = this.impairment
    if (this.#random.next() % 100 < lossPercent) {
      this.lostPackets++
      return
    }
    const held = this.#held.get(remote) ?? {}
    this.#held.set(remote, held)
    const before = held[direction]
    if (before === undefined && this.#random.next() % 100 < reorderPercent) {
      this.reorderedPackets++
      held[direction] = copyBytes(packet)
      return
    }
    held[direction] = undefined
    this.#arrive(remote, direction, packet)
    if (before !== undefined) this.#arrive(remote, direction, before)
  }

  #arrive(remote: Remote, direction: 'up' | 'down', packet: Uint8Array): void {
    if (direction === 'up') this.socket.receive([packet], parseIpv4(remote.address) ?? 0)
    else remote.receive(copyBytes(packet))
  }
}

/**
 * One PPP link in either role: a tunnel on one side, the engine of the link in the middle, and on the
 * other side the networks that it carries, alone or as one of a bundle.
 */
import type { MasterKeys } from '../aaa/authenticator.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { Driver } from '../core/driver.ts'
import { Counters } from '../core/faults.ts'
import type { Carrier, Link } from '../ppp/carrier.ts'
import type { LinkEvent, LinkInput } from '../ppp/event.ts'
import { LinkEngine } from '../ppp/link-engine.ts'
import type { Bundle } from '../ppp/multilink/bundle.ts'
import type { EntranceRefusal, UserLimits } from '../ppp/multilink/bundle-table.ts'
import { LinkInBundle } from '../ppp/multilink/link-in-bundle.ts'
import type { PppSettings } from '../ppp/settings.ts'
import { PppProtocol, peel } from '../ppp/wire/frame.ts'
import type { NetworkLink, NetworkServices, PppNetwork } from './ppp-network.ts'

/** Who has the link: the server's side of a call, or a dialler. */
export interface PppLinkOwner {
  /** Everything that the link reports, after it has done its own part. */
  event(event: LinkEvent): void
}

/** Who comes in. */
export interface LinkEntrant {
  readonly userKey: string
  /** Its data may pass in clear nowhere. */
  readonly needsEncryption: boolean
  readonly limits: UserLimits
}

export type JoinRefusal = EntranceRefusal | 'not-bundled'

export class PppLink implements Link, NetworkLink {
  readonly carrier: Carrier
  /** What the link has dropped, by name. */
  readonly counters = new Counters()
  readonly #owner: PppLinkOwner
  readonly #driver: Driver<LinkInput, LinkEvent>
  readonly #bytes: Uint8Array
  readonly #ownMruBytes: number
  /** Absent: the carrier cannot carry fragments, or nobody is to bundle. */
  readonly #bundling: LinkInBundle<PppNetwork> | undefined
  #peerMruBytes = 0
  #isPermitted = false
  #isCarrierLost = false
  #isBound = false
  #hasHeard = false
  #droppedIpPackets = 0
  /** Of the proof that is being reported. */
  #keys: MasterKeys | undefined
  /** What it carries for, from the first proof on. */
  #network: PppNetwork | undefined
  /** It is up, and carries. */
  #isPlaced = false

  constructor(
    carrier: Carrier,
    settings: PppSettings,
    services: NetworkServices,
    owner: PppLinkOwner,
  ) {
    this.carrier = carrier
    this.#owner = owner
    this.#bytes = services.dataplane.memory.bytes
    this.#ownMruBytes = settings.mruBytes
    const bundles = carrier.setSealer === undefined ? undefined : services.bundles
    if (bundles !== undefined) {
      this.#bundling = new LinkInBundle(bundles, {
        bytes: this.#bytes,
        sink: carrier.sink,
        setSealer: sealer => carrier.setSealer?.(sealer),
        end: () => this.handle({ type: 'close', cause: 'port-unneeded', detail: 'dropped by bap' }),
      })
    }
    const engine = new LinkEngine(
      { ...settings, ...(bundles !== undefined && { multilink: bundles.linkSettings() }) },
      services.random,
    )
    // IP does not pass the engine, so it learns that the peer lives when it is about to ask.
    const machine = {
      handle: (input: Parameters<typeof engine.handle>[0], nowMs: number) => {
        if (input.type === 'timeout' && this.#hasHeard) {
          this.#hasHeard = false
          engine.handle({ type: 'alive' }, nowMs)
        }
        engine.handle(input, nowMs)
      },
      poll: () => engine.poll(),
      nextDeadlineMs: () => engine.nextDeadlineMs(),
    }
    this.#driver = new Driver(machine, services.clock, services.wheel, {
      transmit: frame => carrier.sendFrame(frame),
      event: event => this.#onEvent(event),
    })
  }

  handle(input: LinkInput): void {
    this.#driver.handle(input)
  }

  /** The tunnel leaves it to PPP to protect what it carries. */
  get leavesProtection(): boolean {
    return this.carrier.setSealer !== undefined && this.carrier.isProtected !== true
  }

  get bundle(): Bundle<PppNetwork> | undefined {
    return this.#bundling?.bundle
  }

  get peerMruBytes(): number {
    return this.#peerMruBytes
  }

  get mruBytes(): number {
    return Math.min(this.#ownMruBytes, this.#peerMruBytes)
  }

  /** IP packets from the peer that came while the link carried nothing. */
  get droppedIpPackets(): number {
    return this.#droppedIpPackets
  }

  /** What the link carries for, or would join if it were this user's; undefined: for nothing yet. */
  networkOf(userKey: string): PppNetwork | undefined {
    return this.#network ?? this.#bundling?.ownerOf(userKey)
  }

  /**
   * While `authenticated` is reported: the link carries for `network` from now on. It must be the only
   * one, or be bundled with the others. Why it may not, if so.
   */
  join(
    network: PppNetwork,
    { userKey, needsEncryption, limits }: LinkEntrant,
  ): JoinRefusal | undefined {
    if (this.#bundling?.isAgreed === true) {
      const refusal = this.#bundling.enter({
        ...{ userKey, needsEncryption, owner: network, sealer: network.sealer },
        ...(limits.maxLinks !== undefined && { maxLinks: limits.maxLinks }),
        deliver: (at, lengthBytes) => network.receiveFrame(at, lengthBytes),
      })
      if (refusal !== undefined) return refusal
    } else if (network.linkCount > 0) return 'not-bundled'
    this.#network = network
    this.#isPlaced = true
    network.add(this, this.#keys, limits)
    if (this.#isPermitted) this.#carry()
    this.#driver.handle({ type: 'placed' })
    return undefined
  }

  // Link

  receive(at: number, lengthBytes: number): void {
    const peeled = peel(this.#bytes, at, lengthBytes)
    const headerBytes = peeled >>> 16
    const protocol = peeled & 0xffff
    if (!isOfNetwork(protocol)) {
      this.#driver.handle({ type: 'frame', bytes: this.#bytes.subarray(at, at + lengthBytes) })
      return
    }
    this.#hasHeard = true
    const from = at + headerBytes
    const informationBytes = lengthBytes - headerBytes
    const isFragment = protocol === PppProtocol.multilink
    if (isFragment && this.#bundling?.receiveFragment(from, informationBytes) === true) return
    if (this.#network === undefined || !this.#isPlaced) {
      this.#receiveEarly(protocol, at, lengthBytes)
    } else if (!this.#isPermitted && isData(protocol)) this.#droppedIpPackets++
    else this.#network.receive(protocol, from, informationBytes)
  }

  permitTraffic(): void {
    this.#isPermitted = true
    if (this.#isPlaced) this.#carry()
  }

  carrierLost(cause: DisconnectCause): void {
    this.#isCarrierLost = true
    this.#driver.handle({ type: 'carrier-lost', cause })
  }

  #receiveEarly(protocol: number, at: number, lengthBytes: number): void {
    if (isData(protocol)) this.#droppedIpPackets++
    else this.#driver.handle({ type: 'frame', bytes: this.#bytes.subarray(at, at + lengthBytes) })
  }

  #carry(): void {
    this.#bundling?.carry()
    this.#network?.permit()
  }

  // PPP

  #onEvent(event: LinkEvent): void {
    switch (event.type) {
      case 'authenticated':
        // A tunnel binds itself to the first proof; later ones are the same user's.
        if (!this.#isBound) this.carrier.authenticated(event.higherLayerKey)
        this.#isBound = true
        this.#keys = event.keys
        break
      case 'link-up':
        this.#peerMruBytes = event.peerMruBytes
        this.#bundling?.agreed(event.multilink, Math.min(event.peerMruBytes, this.carrier.mruBytes))
        break
      case 'link-down':
        this.#leaveBundle()
        break
      case 'packet':
        this.#receivePacket(event)
        break
      case 'protocol-rejected':
        this.#network?.protocolRejected(event.protocol)
        break
      case 'unexpected':
        this.counters.count(event.counter)
        break
      case 'closed':
        this.#leaveBundle()
        this.#network?.leave(this)
        this.#driver.close()
        break
      case 'renegotiating':
      case 'authenticate':
      case 'authorize':
      case 'pending':
      case 'refused':
      case 'identification':
        break
    }
    this.#owner.event(event)
    this.#keys = undefined
    if (event.type === 'closed' && !this.#isCarrierLost) this.carrier.close(event.cause)
  }

  /** What came early, or was shown to the engine for another reason. */
  #receivePacket({ protocol, bytes }: Extract<LinkEvent, { type: 'packet' }>): void {
    this.#network?.handle({ type: 'packet', protocol, bytes })
  }

  #leaveBundle(): void {
    this.#isPlaced = false
    this.#bundling?.leave()
    this.#network?.remove(this)
  }
}

/** RFC 1661 §2: LCP, authentication and the like, which each link has for itself. */
const firstLinkProtocol = 0xc000
const firstControlProtocol = 0x8000

/** What belongs to the networks as a whole, with or without the head of a fragment (RFC 1990 §3). */
function isOfNetwork(protocol: number): boolean {
  return (
    (protocol !== 0 && protocol < firstLinkProtocol) ||
    protocol === PppProtocol.bacp ||
    protocol === PppProtocol.bap
  )
}

function isData(protocol: number): boolean {
  return protocol < firstControlProtocol
}

/**
 * All bundles by who has proved what: the name of the user and the endpoint discriminator of the
 * peer, both (RFC 1990 §5.1.3, the fourth row of its table). Links of two users never join, whatever
 * they say of their endpoint.
 */
import type { Authorization } from '../../aaa/authenticator.ts'
import { toHex } from '../../core/bytes.ts'
import type { Clock } from '../../core/clock.ts'
import { Counters } from '../../core/faults.ts'
import { type RandomSource, randomBytes } from '../../core/random.ts'
import type { TimerWheel } from '../../core/timers.ts'
import type { Dataplane, SlotPool } from '../../dataplane/dataplane.ts'
import type { FrameSealer } from '../carrier.ts'
import type { MultilinkSettings } from '../settings.ts'
import { longSequence, shortSequence } from '../wire/multilink.ts'
import type { BandwidthSettings } from './bandwidth-control.ts'
import { Bundle } from './bundle.ts'
import { EndpointClass, type MultilinkAgreement } from './lcp-multilink.ts'
import type { LoadSettings } from './load-watch.ts'

const endpointBytes = 8

export interface BundleTableOptions {
  readonly dataplane: Dataplane
  /** Where early fragments of all bundles wait. */
  readonly slots: SlotPool
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
  /** Largest packet that we put together, bytes. */
  readonly mrruBytes: number
  readonly linksPerBundle: number
  /** Absent: links come and go without BAP. */
  readonly bandwidth?: LoadSettings
}

/** What an authorization says of bundles. */
export type UserLimits = Pick<Authorization, 'maxLinks' | 'linkLoad'>

/** A link that has proved whose it is. */
export interface Entrant<Owner> {
  readonly userKey: string
  readonly agreement: MultilinkAgreement
  /** Its data may pass in clear nowhere: the bundle must be encrypted by PPP. */
  readonly needsEncryption: boolean
  /** Links that this user's bundles may have, if fewer than all may. */
  readonly maxLinks?: number
  /** Whose the link is. It joins no bundle of another owner. */
  readonly owner: Owner
  /** How packets of that owner are made frames. */
  readonly sealer: FrameSealer
  /** What the owner's bundle has received. */
  deliver(at: number, lengthBytes: number): void
}

export type EntranceRefusal = 'too-many-links' | 'other-options' | 'other-owner' | 'not-encrypted'

/** `Owner` has what there is above the links: networks, and what they were given. */
export class BundleTable<Owner = undefined> {
  readonly counters = new Counters()
  readonly settings: MultilinkSettings
  readonly #options: BundleTableOptions
  readonly #bundles = new Map<string, Bundle<Owner>>()
  readonly #stagingAt: number
  readonly #stagingBytes: number
  /** RFC 2125 §2.1: no two links of a bundle have the same. */
  #lastDiscriminator = 0

  constructor(options: BundleTableOptions) {
    this.#options = options
    this.#stagingBytes = options.mrruBytes + 128
    this.#stagingAt = options.dataplane.memory.allocate(this.#stagingBytes)
    const endpoint = new Uint8Array(1 + endpointBytes)
    endpoint[0] = EndpointClass.local
    endpoint.set(randomBytes(options.random, endpointBytes), 1)
    this.settings = { mrruBytes: options.mrruBytes, endpoint, wantsShort: false }
  }

  /** What LCP says of one more link. */
  linkSettings(): MultilinkSettings {
    if (this.#options.bandwidth === undefined) return this.settings
    this.#lastDiscriminator = (this.#lastDiscriminator + 1) & 0xffff
    return { ...this.settings, discriminator: this.#lastDiscriminator }
  }

  /** For the bundle of a user with limits of their own; undefined: without BAP. */
  bandwidth({ maxLinks, linkLoad = {} }: UserLimits = {}): BandwidthSettings | undefined {
    const { bandwidth, linksPerBundle } = this.#options
    if (bandwidth === undefined || linkLoad.usesBap === false) return undefined
    const { dropBelowPercent, dropAfterSeconds } = linkLoad
    const { addAbovePercent } = bandwidth
    return {
      ...bandwidth,
      mostLinks: Math.min(linksPerBundle, maxLinks ?? Number.POSITIVE_INFINITY),
      // Else what was added would be dropped again.
      ...(dropBelowPercent !== undefined && {
        dropBelowPercent: Math.min(dropBelowPercent, addAbovePercent - 1),
      }),
      ...(dropAfterSeconds !== undefined && { dropAfterMs: dropAfterSeconds * 1000 }),
    }
  }

  get size(): number {
    return this.#bundles.size
  }

  /** The bundle that a link of `userKey` would join; undefined: it would be the first. */
  find(userKey: string, agreement: MultilinkAgreement): Bundle<Owner> | undefined {
    return this.#bundles.get(keyOf(userKey, agreement))
  }

  /** The bundle of a link: that of its user and endpoint, or a new one when there is none. */
  enter(entrant: Entrant<Owner>): Bundle<Owner> | EntranceRefusal {
    const key = keyOf(entrant.userKey, entrant.agreement)
    const present = this.#bundles.get(key)
    if (present !== undefined) {
      const refusal = this.#refusalOf(entrant, present)
      if (refusal === undefined) return present
      this.counters.count(`multilink-${refusal}`)
      return refusal
    }
    const bundle = this.#create(key, entrant)
    this.#bundles.set(key, bundle)
    return bundle
  }

  #refusalOf(
    { agreement, needsEncryption, owner, maxLinks = Number.POSITIVE_INFINITY }: Entrant<Owner>,
    bundle: Bundle<Owner>,
  ): EntranceRefusal | undefined {
    if (bundle.owner !== owner) return 'other-owner'
    if (bundle.linkCount >= Math.min(this.#options.linksPerBundle, maxLinks)) {
      return 'too-many-links'
    }
    // RFC 1990 §5.1.1 and §5.1.2: all links of a bundle agree on these.
    const { sendForm, peerMrruBytes } = bundle.agreement
    const isSame =
      (sendForm === shortSequence) === agreement.sendsShort &&
      peerMrruBytes === agreement.peerMrruBytes
    if (!isSame) return 'other-options'
    // What goes in clear through tunnels that protect it would go in clear over this link.
    return needsEncryption && !bundle.isEncryptionDue ? 'not-encrypted' : undefined
  }

  #create(
    key: string,
    { agreement, sealer, needsEncryption, owner, deliver }: Entrant<Owner>,
  ): Bundle<Owner> {
    const { dataplane, slots, wheel, clock, mrruBytes } = this.#options
    const { sendsShort, receivesShort, peerMrruBytes } = agreement
    return new Bundle(
      {
        receiveForm: receivesShort ? shortSequence : longSequence,
        sendForm: sendsShort ? shortSequence : longSequence,
        mrruBytes,
        peerMrruBytes,
      },
      { sealer, isEncryptionDue: needsEncryption, owner },
      {
        memory: dataplane.memory,
        slots,
        wheel,
        counters: this.counters,
        staging: { at: this.#stagingAt, lengthBytes: this.#stagingBytes },
        nowMs: () => clock.nowMs(),
        intake: lengthBytes => dataplane.intake(lengthBytes),
        deliver,
        ended: () => this.#bundles.delete(key),
      },
    )
  }
}

function keyOf(userKey: string, { endpoint }: MultilinkAgreement): string {
  return `${toHex(endpoint)} ${userKey}`
}

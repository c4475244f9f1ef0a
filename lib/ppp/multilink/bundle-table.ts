/**
 * All bundles by who has proved what: the name of the user and the endpoint discriminator of the
 * peer, both (RFC 1990 §5.1.3, the fourth row of its table). Links of two users never join, whatever
 * they say of their endpoint.
 */
import { toHex } from '../../core/bytes.ts'
import type { Clock } from '../../core/clock.ts'
import { Counters } from '../../core/faults.ts'
import { type RandomSource, randomBytes } from '../../core/random.ts'
import type { TimerWheel } from '../../core/timers.ts'
import type { Dataplane, SlotPool } from '../../dataplane/dataplane.ts'
import type { FrameSealer } from '../carrier.ts'
import type { MultilinkSettings } from '../settings.ts'
import { longSequence, shortSequence } from '../wire/multilink.ts'
import { Bundle } from './bundle.ts'
import { EndpointClass, type MultilinkAgreement } from './lcp-multilink.ts'

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
}

export interface Entrance {
  readonly bundle: Bundle
  /** The bundle is new, and this link leads it. */
  readonly isFirst: boolean
}

export class BundleTable {
  readonly counters = new Counters()
  readonly settings: MultilinkSettings
  readonly #options: BundleTableOptions
  readonly #bundles = new Map<string, Bundle>()
  readonly #stagingAt: number
  readonly #stagingBytes: number

  constructor(options: BundleTableOptions) {
    this.#options = options
    this.#stagingBytes = options.mrruBytes + 128
    this.#stagingAt = options.dataplane.memory.allocate(this.#stagingBytes)
    const endpoint = new Uint8Array(1 + endpointBytes)
    endpoint[0] = EndpointClass.local
    endpoint.set(randomBytes(options.random, endpointBytes), 1)
    this.settings = { mrruBytes: options.mrruBytes, endpoint, wantsShort: false }
  }

  get size(): number {
    return this.#bundles.size
  }

  /**
   * The bundle of a link that has proved to be `userKey`'s; a new one when there is none. Undefined:
   * it has as many links as it may have, or the link was negotiated differently. `deliver` is used when
   * the link leads.
   */
  enter(
    userKey: string,
    agreement: MultilinkAgreement,
    sealer: FrameSealer,
    deliver: (at: number, lengthBytes: number) => void,
  ): Entrance | undefined {
    const key = `${toHex(agreement.endpoint)} ${userKey}`
    const present = this.#bundles.get(key)
    if (present !== undefined) {
      if (present.linkCount >= this.#options.linksPerBundle) {
        this.counters.count('multilink-too-many-links')
        return undefined
      }
      // RFC 1990 §5.1.1 and §5.1.2: all links of a bundle agree on these.
      const { sendForm, peerMrruBytes } = present.agreement
      const isSame =
        (sendForm === shortSequence) === agreement.sendsShort &&
        peerMrruBytes === agreement.peerMrruBytes
      if (!isSame) {
        this.counters.count('multilink-other-options')
        return undefined
      }
      return { bundle: present, isFirst: false }
    }
    const bundle = this.#create(key, agreement, sealer, deliver)
    this.#bundles.set(key, bundle)
    return { bundle, isFirst: true }
  }

  #create(
    key: string,
    { sendsShort, receivesShort, peerMrruBytes }: MultilinkAgreement,
    sealer: FrameSealer,
    deliver: (at: number, lengthBytes: number) => void,
  ): Bundle {
    const { dataplane, slots, wheel, clock, mrruBytes } = this.#options
    return new Bundle(
      {
        receiveForm: receivesShort ? shortSequence : longSequence,
        sendForm: sendsShort ? shortSequence : longSequence,
        mrruBytes,
        peerMrruBytes,
      },
      sealer,
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

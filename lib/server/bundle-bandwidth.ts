/** BACP and BAP of one bundle: frames in and out, links added and dropped. */
import { copyBytes } from '../core/bytes.ts'
import { Driver } from '../core/driver.ts'
import {
  BandwidthControl,
  type BandwidthEvent,
  type BandwidthInput,
  type BandwidthSettings,
} from '../ppp/multilink/bandwidth-control.ts'
import type { Bundle } from '../ppp/multilink/bundle.ts'
import type { Traffic } from '../ppp/multilink/load-watch.ts'
import type { NetworkServices } from './ppp-network.ts'

export interface BundleBandwidthPorts {
  /** A control frame on any link. */
  sendFrame(frame: Uint8Array): void
  traffic(): Traffic
  count(name: string): void
  /** Where we can dial: once more, for the same bundle; resolves when that call has joined. */
  readonly addLink?: () => Promise<void>
}

export class BundleBandwidth {
  readonly #bundle: Bundle<unknown>
  readonly #ports: BundleBandwidthPorts
  readonly #driver: Driver<BandwidthInput, BandwidthEvent>

  constructor(
    settings: BandwidthSettings,
    bundle: Bundle<unknown>,
    { random, clock, wheel }: NetworkServices,
    ports: BundleBandwidthPorts,
  ) {
    this.#bundle = bundle
    this.#ports = ports
    const dials = ports.addLink !== undefined
    const control = new BandwidthControl(settings, {
      dials,
      random,
      traffic: () => ports.traffic(),
    })
    this.#driver = new Driver(control, clock, wheel, {
      transmit: frame => ports.sendFrame(frame),
      event: event => this.#onEvent(event),
    })
    bundle.onChange = () => this.#tellOfLinks()
    this.#tellOfLinks()
    this.#driver.handle({ type: 'open' })
  }

  /** A frame of BACP or BAP, on any link of the bundle. */
  receive(protocol: number, bytes: Uint8Array, at: number, lengthBytes: number): void {
    // copied: a few dozen bytes, a few times a minute
    this.#driver.handle({ type: 'packet', protocol, bytes: copyBytes(bytes, at, at + lengthBytes) })
  }

  protocolRejected(protocol: number): void {
    this.#driver.handle({ type: 'protocol-rejected', protocol })
  }

  close(): void {
    this.#bundle.onChange = undefined
    this.#driver.close()
  }

  #tellOfLinks(): void {
    this.#driver.handle({ type: 'links', links: this.#bundle.linkNames })
  }

  #onEvent(event: BandwidthEvent): void {
    switch (event.type) {
      case 'add-link':
        this.#addLink()
        break
      case 'drop-link':
        this.#ports.count(this.#bundle.drop(event.own) ? 'bap-link-dropped' : 'bap-link-gone')
        break
      case 'unexpected':
        this.#ports.count(event.counter)
        break
      case 'bandwidth-up':
        this.#ports.count('bacp-opened')
        break
      case 'bandwidth-down':
        break
    }
  }

  #addLink(): void {
    const dialled = (isUp: boolean) => this.#driver.handle({ type: 'dialled', isUp })
    this.#ports.count('bap-link-added')
    this.#ports.addLink?.().then(
      () => dialled(true),
      () => dialled(false),
    )
  }
}

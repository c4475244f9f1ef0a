/**
 * Informational exchanges of an SA that is up (RFC 2409 §5.7): protected notifications and deletes, each
 * acted upon once.
 */
import { equalBytes, u32 } from '../core/bytes.ts'
import type { ChildStore } from './child-store.ts'
import type { DeadPeerDetection } from './dead-peer-detection.ts'
import type { IsakmpEvent } from './event.ts'
import type { IsakmpOptions } from './isakmp-options.ts'
import { type IsakmpWriter, notification } from './isakmp-writer.ts'
import { openCounted } from './message.ts'
import type { Path } from './path.ts'
import type { Phase1 } from './phase1.ts'
import type { QuickModes } from './quick-modes.ts'
import type { IsakmpHeader } from './wire/header.ts'
import { NotifyType, notifyName, ProtocolId } from './wire/numbers.ts'
import type { PayloadOf } from './wire/payload.ts'

/** Implementation constant: messages that are known again. */
const keptMessageIds = 256

export interface InformationalHost {
  readonly isClosed: boolean
  /** What came from `path` is the peer's. */
  authentic(path: Path): void
  event(event: IsakmpEvent): void
  /** The peer has deleted this ISAKMP SA. */
  deleted(phase1: Phase1): void
  /** The peer has deleted that ESP SA of ours. */
  childDeleted(inboundSpi: number): void
}

/** What notifications are about. */
export interface InformationalParts {
  readonly writer: IsakmpWriter
  readonly dpd: DeadPeerDetection
  readonly quickModes: QuickModes
  readonly children: ChildStore
}

export class Informationals {
  readonly #options: IsakmpOptions
  readonly #host: InformationalHost
  readonly #parts: InformationalParts
  readonly #messageIds = new Set<number>()

  constructor(options: IsakmpOptions, host: InformationalHost, parts: InformationalParts) {
    this.#options = options
    this.#host = host
    this.#parts = parts
  }

  /** False: not a message of the peer, or not one more. */
  receive(header: IsakmpHeader, message: Uint8Array, phase1: Phase1, path: Path): boolean {
    const { keys } = phase1
    const { messageId } = header
    if (keys === undefined || messageId === 0) return false
    if (this.#messageIds.has(messageId)) {
      this.#options.counters.count('ikev1-replay')
      return false
    }
    const chain = phase1.exchangeChain(messageId)
    if (chain === undefined) return false
    const payloads = openCounted(
      header,
      message,
      chain,
      rest => keys.messageHash(messageId, rest),
      this.#options,
    )
    if (payloads === undefined) return false
    this.#messageIds.add(messageId)
    for (const oldest of this.#messageIds) {
      if (this.#messageIds.size <= keptMessageIds) break
      this.#messageIds.delete(oldest)
    }
    this.#host.authentic(path)
    for (const payload of payloads) {
      if (payload.type === 'N') this.#notified(payload)
      else if (payload.type === 'D') this.#deleted(payload, phase1)
      if (this.#host.isClosed) break
    }
    return true
  }

  #notified(notify: PayloadOf<'N'>): void {
    const { writer, dpd, quickModes } = this.#parts
    const { notifyType } = notify
    switch (notifyType) {
      case NotifyType['R-U-THERE']:
        writer.informational([
          notification(
            ProtocolId.isakmp,
            NotifyType['R-U-THERE-ACK'],
            writer.cookieSpi(),
            notify.data,
          ),
        ])
        return
      case NotifyType['R-U-THERE-ACK']:
        // The message is authentic, so the peer lives; an old number is only worth a count.
        if (!dpd.isAnswer(notify.data)) this.#options.counters.count('ikev1-dpd-old-sequence')
        return
      case NotifyType['INITIAL-CONTACT']:
        this.#host.event({ type: 'initial-contact' })
        return
      default:
        break
    }
    // RFC 2408 §3.14.1: below 16384 are errors. Without an SPI it means the one that waits.
    if (notifyType < 16_384) quickModes.refused(notifyName(notifyType))
    this.#host.event({ type: 'notified', notifyType, name: notifyName(notifyType) })
  }

  #deleted(payload: PayloadOf<'D'>, phase1: Phase1): void {
    const { writer, children } = this.#parts
    if (payload.protocolId === ProtocolId.isakmp) {
      const own = writer.cookieSpi()
      if (payload.spis.some(spi => equalBytes(spi, own))) this.#host.deleted(phase1)
      return
    }
    if (payload.protocolId !== ProtocolId.esp) return
    for (const spi of payload.spis) {
      if (spi.length !== 4) continue
      const outboundSpi = u32(spi, 0)
      const child = children.findByOutboundSpi(outboundSpi)
      if (child === undefined) this.#host.event({ type: 'foreign-delete', outboundSpi })
      else this.#host.childDeleted(child.inboundSpi)
    }
  }
}

/** EAP over PPP, the side that proves itself. Silence is bounded by the phase: the server repeats. */

import { serverKeysOfMsk } from '../../eap/conversation.ts'
import type { EapPeerMethod } from '../../eap/method.ts'
import { EapPeer } from '../../eap/peer.ts'
import {
  type ControlPacket,
  encodeControlPacket,
  parseControlPacket,
} from '../wire/control-packet.ts'
import type { ClientExchange, ClientExchangePorts } from './exchange.ts'

export class EapClient implements ClientExchange {
  readonly #peer: EapPeer
  readonly #ports: ClientExchangePorts
  /** Of the last Request that was not Identity, Notification or Nak: the method that ran. */
  #eapType = 0

  constructor(
    identity: string,
    methods: readonly (() => EapPeerMethod)[],
    ports: ClientExchangePorts,
  ) {
    this.#peer = new EapPeer({ identity, methods, requiresMsk: false })
    this.#ports = ports
  }

  start(): void {
    // The server speaks first (RFC 3748 §2).
  }

  receive(packet: ControlPacket, nowMs: number): void {
    const eapType = packet.data[0] ?? 0
    if (packet.data.length > 0 && eapType > 3) this.#eapType = eapType
    this.#peer.handle({ type: 'packet', bytes: encodeControlPacket(packet) })
    this.#drain(nowMs)
  }

  /** The server negotiates networks: its Success was lost, and is not repeated (RFC 3748 §4.2). */
  networkHeard(nowMs: number): void {
    this.#peer.handle({ type: 'success-implied' })
    this.#drain(nowMs)
  }

  #drain(nowMs: number): void {
    for (let out = this.#peer.poll(); out !== undefined; out = this.#peer.poll()) {
      if (out.type === 'transmit') {
        this.#ports.send(parseControlPacket(out.bytes, 0))
        continue
      }
      const { event } = out
      switch (event.type) {
        case 'success': {
          const keys =
            event.msk === undefined ? undefined : serverKeysOfMsk(this.#eapType, event.msk)
          event.msk?.destroy()
          this.#ports.accepted(keys, false, nowMs)
          break
        }
        case 'failure':
          this.#ports.refused(0, event.detail, nowMs)
          break
        case 'unexpected':
          this.#ports.unexpected(event.what)
          break
      }
    }
  }

  timer(): void {
    // None is set.
  }

  destroy(): void {
    this.#peer.destroy()
  }
}

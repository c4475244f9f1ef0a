/** Deleting Child SAs, RFC 7296 §1.4.1. */
import type { Association } from '../association.ts'
import { spiBytes } from '../child-sa.ts'
import type { Connection } from '../connection.ts'
import type { ChildDownReason } from '../event.ts'
import type { Task } from '../task.ts'
import type { Payload } from '../wire/payload.ts'
import { ProtocolId } from '../wire/security-association.ts'

export class ChildDelete implements Task {
  readonly name = 'child-delete'
  readonly exchange = 'INFORMATIONAL'
  readonly #inboundSpis: readonly number[]
  readonly #reason: ChildDownReason

  constructor(inboundSpis: readonly number[], reason: ChildDownReason) {
    this.#inboundSpis = inboundSpis
    this.#reason = reason
  }

  build(connection: Connection): readonly Payload[] | undefined {
    const spis: Uint8Array[] = []
    for (const inboundSpi of this.#inboundSpis) {
      const child = connection.child(inboundSpi)
      if (child === undefined || child.isDeleting) continue
      child.isDeleting = true
      connection.timers.clear(`child-rekey:${inboundSpi}`)
      spis.push(spiBytes(inboundSpi))
    }
    return spis.length === 0 ? undefined : [{ type: 'D', protocolId: ProtocolId.ESP, spis }]
  }

  /** Whatever the answer: the Child SAs are gone, on the peer's side too. */
  process(connection: Connection, _association: Association): void {
    for (const inboundSpi of this.#inboundSpis) {
      const child = connection.child(inboundSpi)
      if (child) connection.removeChild(child, this.#reason)
    }
  }
}

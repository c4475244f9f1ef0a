/**
 * A tunnel without a protocol: what one dataplane sends to its session arrives at another dataplane
 * as received from its session. Both run in this process.
 */
import { noRoom, type PacketSink } from '../../lib/core/packet-sink.ts'
import type { Dataplane, Port } from '../../lib/dataplane/dataplane.ts'

const BATCH_BYTES = 65_536

/** Collects packets one behind the other and copies each batch over as one. */
export class JoinSink implements PacketSink {
  readonly mtuBytes: number
  far: Port | undefined
  readonly #near: Dataplane
  readonly #farDataplane: Dataplane
  readonly #batchAt: number
  #batchBytes = 0
  readonly #lengths: number[] = []

  constructor(near: Dataplane, far: Dataplane, mtuBytes: number) {
    this.mtuBytes = mtuBytes
    this.#near = near
    this.#farDataplane = far
    this.#batchAt = near.memory.allocate(BATCH_BYTES)
  }

  reserve(lengthBytes: number): number {
    if (this.#batchBytes + lengthBytes > BATCH_BYTES) this.flush()
    return lengthBytes > BATCH_BYTES ? noRoom : this.#batchAt + this.#batchBytes
  }

  commit(_at: number, lengthBytes: number): void {
    this.#lengths.push(lengthBytes)
    this.#batchBytes += lengthBytes
  }

  flush(): void {
    if (this.#batchBytes === 0) return
    const from = this.#near.memory.bytes
    let at = this.#farDataplane.intake(this.#batchBytes)
    this.#farDataplane.memory.bytes.set(
      from.subarray(this.#batchAt, this.#batchAt + this.#batchBytes),
      at,
    )
    for (const length of this.#lengths) {
      this.far?.deliver(at, length)
      at += length
    }
    this.#lengths.length = 0
    this.#batchBytes = 0
  }
}

export interface Addresses {
  readonly ipv4: number
  readonly ipv6: Uint8Array
}

/** Joins two dataplanes: `nearAddresses` live behind `near`, `farAddresses` behind `far`. */
export function join(
  near: Dataplane,
  nearAddresses: Addresses,
  far: Dataplane,
  farAddresses: Addresses,
  mtuBytes: number,
): { readonly nearPort: Port; readonly farPort: Port } {
  const toFar = new JoinSink(near, far, mtuBytes)
  const toNear = new JoinSink(far, near, mtuBytes)
  const ignore = () => {}
  const nearPort = near.attach({ label: 'to-far', sink: toFar, onLinkPacket: ignore })
  const farPort = far.attach({ label: 'to-near', sink: toNear, onLinkPacket: ignore })
  nearPort.addIpv4(farAddresses.ipv4)
  nearPort.addIpv6(farAddresses.ipv6, 128)
  farPort.addIpv4(nearAddresses.ipv4)
  farPort.addIpv6(nearAddresses.ipv6, 128)
  toFar.far = farPort
  toNear.far = nearPort
  return { nearPort, farPort }
}

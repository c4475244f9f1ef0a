/**
 * Where the bytes of calls land. Node allocates a buffer for every read, and a stream object's worth of
 * work around it; on a busy call that is a tenth of the CPU time. A socket that connects can be given
 * buffers instead (`onread` of `net.Socket`), but Node takes that option for no accepted TLS socket, so
 * we set the same three fields. Where a Node has them not, `data` events go on.
 *
 * One buffer serves all quiet calls: the reader has used the bytes up before the next read begins. A busy
 * call has a place of its own in packet memory, where its packets stay.
 */
import type { TLSSocket } from 'node:tls'
import type { LandingPlaces } from './landing-places.ts'

/** Four records of TLS. A longer read comes in pieces. */
const LANDING_BYTES = 65_536

const quietPlace = new Uint8Array(LANDING_BYTES)
/** What was read last; records of a busy call have one length, so the next read rarely needs another. */
let landed = quietPlace

interface UserBufferHandle {
  useUserBuffer(buffer: Uint8Array): void
}

/** A read of this length or more: others will follow soon. */
const BUSY_READ_BYTES = 8192

/** `nextAt` of a reader whose next bytes come from outside packet memory; no place is there. */
export const elsewhere = 0

export interface LandedReader {
  /** `bytes` are valid during the call only. */
  receive(bytes: Uint8Array): void
  /**
   * The bytes stand in packet memory and stay there until the burst ends. What is read next comes to
   * `nextAt`, before which there is room for a frame, or `elsewhere`.
   */
  receiveInPlace(at: number, lengthBytes: number, nextAt: number): void
}

/**
 * From now on `reader` gets what the socket reads, and no `data` event comes. False when this Node
 * cannot, and nothing has changed.
 */
export function landReads(socket: TLSSocket, places: LandingPlaces, reader: LandedReader): boolean {
  const fields = Object.getOwnPropertySymbols(socket)
  const field = (name: string) => fields.find(({ description }) => description === name)
  const [buffer, callback, generator] = ['kBuffer', 'kBufferCb', 'kBufferGen'].map(field)
  const handle: unknown = Reflect.get(socket, '_handle')
  if (buffer === undefined || callback === undefined || generator === undefined) return false
  if (!hasUserBuffer(handle)) return false
  const landing = new Landing(places, reader)
  Reflect.set(socket, buffer, quietPlace)
  Reflect.set(socket, callback, (lengthBytes: number) => landing.land(lengthBytes))
  Reflect.set(socket, generator, () => landing.place)
  socket.once('close', () => landing.close())
  handle.useUserBuffer(quietPlace)
  return true
}

/** Where one socket reads to. */
class Landing {
  readonly #places: LandingPlaces
  readonly #reader: LandedReader
  /** Its own place, while it is busy. */
  #held: Uint8Array | undefined

  constructor(places: LandingPlaces, reader: LandedReader) {
    this.#places = places
    this.#reader = reader
  }

  get place(): Uint8Array {
    return this.#held ?? quietPlace
  }

  /** So many bytes were read to `place`, which may be another afterwards. Always true: read on. */
  land(lengthBytes: number): boolean {
    const held = this.#held
    const next = lengthBytes < BUSY_READ_BYTES ? undefined : this.#places.take()
    this.#held = next
    if (held === undefined) {
      if (landed.length !== lengthBytes) landed = quietPlace.subarray(0, lengthBytes)
      this.#reader.receive(landed)
    } else {
      this.#reader.receiveInPlace(held.byteOffset, lengthBytes, next?.byteOffset ?? elsewhere)
      this.#places.give(held)
    }
    return true
  }

  close(): void {
    if (this.#held !== undefined) this.#places.give(this.#held)
    this.#held = undefined
  }
}

function hasUserBuffer(handle: unknown): handle is UserBufferHandle {
  return (
    typeof handle === 'object' &&
    handle !== null &&
    typeof Reflect.get(handle, 'useUserBuffer') === 'function'
  )
}

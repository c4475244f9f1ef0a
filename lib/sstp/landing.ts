/**
 * Where the bytes of all calls land. Node allocates a buffer for every read, and a stream object's
 * worth of work around it; on a busy call that is a tenth of the CPU time. A socket that connects can
 * be given a buffer instead (`onread` of `net.Socket`), but Node takes that option for no accepted TLS
 * socket, so we set the same three fields. Where a Node has them not, `data` events go on.
 *
 * One buffer serves everybody: the reader has used the bytes up before the next read begins.
 */
import type { TLSSocket } from 'node:tls'

/** Four records of TLS. A longer read comes in pieces. */
const LANDING_BYTES = 65_536

const landing = new Uint8Array(LANDING_BYTES)
/** What was read last; records of a busy call have one length, so the next read rarely needs another. */
let landed = landing

interface UserBufferHandle {
  useUserBuffer(buffer: Uint8Array): void
}

/**
 * From now on `receive` gets what the socket reads, and no `data` event comes; `bytes` are valid
 * during the call only. False when this Node cannot, and nothing has changed.
 */
export function landReads(socket: TLSSocket, receive: (bytes: Uint8Array) => void): boolean {
  const fields = Object.getOwnPropertySymbols(socket)
  const field = (name: string) => fields.find(({ description }) => description === name)
  const [buffer, callback, generator] = ['kBuffer', 'kBufferCb', 'kBufferGen'].map(field)
  const handle: unknown = Reflect.get(socket, '_handle')
  if (buffer === undefined || callback === undefined || generator === undefined) return false
  if (!hasUserBuffer(handle)) return false
  Reflect.set(socket, buffer, landing)
  Reflect.set(socket, generator, null)
  Reflect.set(socket, callback, (lengthBytes: number) => {
    if (landed.length !== lengthBytes) landed = landing.subarray(0, lengthBytes)
    receive(landed)
    return true
  })
  handle.useUserBuffer(landing)
  return true
}

function hasUserBuffer(handle: unknown): handle is UserBufferHandle {
  return (
    typeof handle === 'object' &&
    handle !== null &&
    typeof Reflect.get(handle, 'useUserBuffer') === 'function'
  )
}

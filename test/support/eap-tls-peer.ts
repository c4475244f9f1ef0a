/** A peer of EAP-TLS, PEAP and EAP-TTLS: records in type-data, Node's TLS as client. */
import { Duplex } from 'node:stream'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import { concatBytes, u32 } from '../../lib/core/bytes.ts'

export class EapTlsPeer {
  readonly socket: TLSSocket
  readonly heard: Uint8Array[] = []
  readonly #wire: Duplex
  #records: Uint8Array[] = []
  #incoming: Uint8Array[] = []
  /** What the first piece announced. */
  announced = 0

  constructor(options: ConnectionOptions) {
    this.#wire = new Duplex({
      read: () => {},
      write: (chunk: Buffer, _encoding, done) => {
        this.#records.push(Uint8Array.from(chunk))
        done()
      },
    })
    this.socket = connect({ ...options, socket: this.#wire, servername: 'vpn.test' })
    this.socket.on('data', (chunk: Buffer) => this.heard.push(Uint8Array.from(chunk)))
    this.socket.on('error', () => {})
  }

  /** Type-data of the answer to a Request's: an acknowledgement, or records. */
  async answer(typeData: Uint8Array): Promise<Uint8Array> {
    const flags = typeData[0] ?? 0
    const hasLength = (flags & 0x80) !== 0
    if (hasLength) this.announced = u32(typeData, 1)
    this.#incoming.push(typeData.slice(hasLength ? 5 : 1))
    if ((flags & 0x40) !== 0) return Uint8Array.of(0)
    const records = concatBytes(...this.#incoming)
    this.#incoming = []
    if (records.length > 0) this.#wire.push(records)
    return this.flight()
  }

  async say(plain: Uint8Array): Promise<Uint8Array> {
    this.socket.write(plain)
    return this.flight()
  }

  async flight(): Promise<Uint8Array> {
    for (let turn = 0; turn < 12; turn++) await new Promise(resolve => setImmediate(resolve))
    return concatBytes(Uint8Array.of(0), ...this.#records.splice(0))
  }

  destroy(): void {
    this.socket.destroy()
    this.#wire.destroy()
  }
}

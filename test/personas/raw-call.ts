/** TLS, the HTTP head and SSTP packets by hand: everything of a client below PPP. */
import { connect, type TLSSocket } from 'node:tls'
import { concatBytes, copyBytes, utf8 } from '../../lib/core/bytes.ts'
import {
  FRAME_HEADER_BYTES,
  frameBytes,
  isControlFrame,
  needMore,
  putFrameHeader,
} from '../../lib/sstp/wire/frame.ts'
import { type Message, messageBytes, parseMessage } from '../../lib/sstp/wire/message.ts'

export interface RawCallOptions {
  readonly port: number
  readonly maxTlsVersion?: 'TLSv1.2' | 'TLSv1.3'
  /** The whole head, with its empty line. */
  readonly head: string
}

export interface RawCallPeer {
  control(message: Message): void
  frame(bytes: Uint8Array): void
}

export class RawCall {
  /** DER of the server's leaf. */
  readonly certificate: Uint8Array
  readonly tlsVersion: string
  status = ''
  isClosed = false
  readonly #socket: TLSSocket
  #buffer: Uint8Array = new Uint8Array(0)
  #peer: RawCallPeer | undefined
  #corked: Uint8Array[] | undefined

  private constructor(socket: TLSSocket) {
    this.#socket = socket
    this.certificate = Uint8Array.from(socket.getPeerX509Certificate()?.raw ?? [])
    this.tlsVersion = socket.getProtocol() ?? ''
    socket.on('data', (chunk: Uint8Array) => this.#receive(chunk))
    socket.on('error', () => {})
    socket.on('close', () => {
      this.isClosed = true
    })
    // Whoever closes first: both ends are one here, as with every client of SSTP.
    socket.on('end', () => socket.end())
  }

  /** Connects and sends the head; the answer may still be on its way. */
  static open(options: RawCallOptions): Promise<RawCall> {
    return new Promise((resolve, reject) => {
      const socket = connect({
        host: '127.0.0.1',
        port: options.port,
        rejectUnauthorized: false,
        servername: 'localhost',
        ...(options.maxTlsVersion !== undefined && { maxVersion: options.maxTlsVersion }),
      })
      socket.setNoDelay(true)
      socket.once('error', reject)
      socket.once('secureConnect', () => {
        socket.off('error', reject)
        const call = new RawCall(socket)
        socket.write(options.head)
        resolve(call)
      })
    })
  }

  listen(peer: RawCallPeer): void {
    this.#peer = peer
    this.#delineate()
  }

  write(bytes: Uint8Array): void {
    if (this.#corked !== undefined) this.#corked.push(bytes)
    else if (!this.isClosed) this.#socket.write(bytes)
  }

  /** What `action` writes leaves in one TLS record. */
  together(action: () => void): void {
    this.#corked = []
    action()
    const parts = this.#corked
    this.#corked = undefined
    this.write(concatBytes(...parts))
  }

  message(...message: Parameters<typeof messageBytes>): void {
    this.write(messageBytes(...message))
  }

  /** A PPP frame in an SSTP data packet. */
  frame(bytes: Uint8Array): void {
    const packet = new Uint8Array(FRAME_HEADER_BYTES + bytes.length)
    packet.set(bytes, putFrameHeader(packet, 0, false, packet.length))
    this.write(packet)
  }

  /** TLS close_notify and FIN. */
  end(): void {
    this.#socket.end()
  }

  /** The network is gone: a reset at best. */
  destroy(): void {
    this.#socket.destroy()
    this.isClosed = true
  }

  /** From now on nothing is read. */
  stopReading(): void {
    this.#socket.pause()
  }

  #receive(chunk: Uint8Array): void {
    this.#buffer = concatBytes(this.#buffer, chunk)
    this.#delineate()
  }

  #delineate(): void {
    if (this.status === '') {
      const end = Buffer.from(this.#buffer).indexOf('\r\n\r\n')
      if (end < 0) return
      this.status = Buffer.from(this.#buffer.subarray(0, end)).toString('latin1')
      this.#buffer = copyBytes(this.#buffer, end + 4)
    }
    const peer = this.#peer
    if (peer === undefined) return
    for (;;) {
      const bytes = this.#buffer
      const length = frameBytes(bytes, 0, bytes.length)
      if (length < 0) throw new Error('the server sent a packet that cannot be delineated')
      if (length === needMore || length > bytes.length) return
      this.#buffer = copyBytes(bytes, length)
      const packet = copyBytes(bytes, 0, length)
      if (isControlFrame(packet, 0)) peer.control(parseMessage(packet, 0))
      else peer.frame(copyBytes(packet, FRAME_HEADER_BYTES))
    }
  }
}

export const correlationId = '5A433238-8781-11E3-B2E4-4E6D617021FE'

/** [MS-SSTP] §4.1, with the headers in the order given. */
export function headText(...headers: string[]): string {
  const uri = '/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/'
  return `${[`SSTP_DUPLEX_POST ${uri} HTTP/1.1`, ...headers].join('\r\n')}\r\n\r\n`
}

export const contentLength = 'Content-Length: 18446744073709551615'

/** The 16 raw bytes that Windows sends as its third Identification. */
export const rawCorrelationId = Uint8Array.from(
  utf8(correlationId.replaceAll('-', '').slice(0, 16)),
  (byte, i) => (byte * 7 + i) & 0xff,
)

/**
 * RADIUS over TLS, RFC 6614: one connection to one server, TLS 1.3, certificates on both sides. Opened
 * when there is something to send; what comes while it opens waits in a bounded queue.
 */
import { connect, type TLSSocket } from 'node:tls'
import { concatBytes, copyBytes, u16 } from '../../core/bytes.ts'
import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { TimerWheel, WheelEntry } from '../../core/timers.ts'
import { longestPacketBytes, packetHeaderBytes } from './wire/packet.ts'

/** RFC 6614 §2.3: PEM texts. Only this authority is believed. */
export interface RadsecIdentity {
  readonly authority: string
  readonly certificate: string
  readonly key: string
  /** The name that the server's certificate must have. */
  readonly serverName: string
}

export interface RadsecPorts {
  packet(bytes: Uint8Array): void
  /** The connection is over, or did not come up; `send` opens another. */
  lost(reason: string): void
}

export interface RadsecOptions {
  readonly host: string
  readonly port: number
  readonly identity: RadsecIdentity
  readonly clock: Clock
  readonly wheel: TimerWheel
  /** From the first byte to the finished handshake, ms. */
  readonly connectTimeoutMs?: number
}

/** Packets that wait for the handshake: as many as there are identifiers. */
const mostWaiting = 256

export class RadsecConnection implements WheelEntry {
  readonly #options: RadsecOptions
  readonly #ports: RadsecPorts
  #socket: TLSSocket | undefined
  #isReady = false
  #waiting: Uint8Array[] = []
  /** The beginning of a packet whose rest has not come. */
  #partial: Uint8Array = new Uint8Array(0)

  constructor(options: RadsecOptions, ports: RadsecPorts) {
    this.#options = options
    this.#ports = ports
  }

  send(bytes: Uint8Array): void {
    const socket = this.#socket ?? this.#open()
    if (this.#isReady) socket.write(bytes)
    else if (this.#waiting.length < mostWaiting) this.#waiting.push(bytes)
  }

  close(): void {
    this.#options.wheel.cancel(this)
    const socket = this.#socket
    this.#forget()
    socket?.destroy()
  }

  onDeadline(): void {
    this.#lose('the handshake took too long')
  }

  #open(): TLSSocket {
    const { host, port, identity, clock, wheel, connectTimeoutMs = 5000 } = this.#options
    const socket = connect({
      host,
      port,
      servername: identity.serverName,
      ca: identity.authority,
      cert: identity.certificate,
      key: identity.key,
      minVersion: 'TLSv1.3',
      rejectUnauthorized: true,
    })
    this.#socket = socket
    socket.setNoDelay(true)
    wheel.schedule(this, clock.nowMs() + connectTimeoutMs)
    socket.on('secureConnect', () => {
      if (this.#socket !== socket) return
      wheel.cancel(this)
      this.#isReady = true
      for (const bytes of this.#waiting.splice(0)) socket.write(bytes)
    })
    socket.on('data', chunk => {
      if (this.#socket === socket) this.#receive(chunk)
    })
    socket.on('error', error => {
      if (this.#socket === socket) this.#lose(messageOf(error))
    })
    socket.on('close', () => {
      if (this.#socket === socket) this.#lose('closed by the server')
    })
    return socket
  }

  /** RFC 6614 §2.1: packets one after the other, each with its own length. */
  #receive(chunk: Uint8Array): void {
    let rest = this.#partial.length === 0 ? copyBytes(chunk) : concatBytes(this.#partial, chunk)
    while (rest.length >= 4) {
      const lengthBytes = u16(rest, 2)
      if (lengthBytes < packetHeaderBytes || lengthBytes > longestPacketBytes) {
        // The stream cannot be found again.
        this.#lose('a length that no packet has')
        return
      }
      if (rest.length < lengthBytes) break
      this.#ports.packet(copyBytes(rest, 0, lengthBytes))
      rest = copyBytes(rest, lengthBytes)
    }
    this.#partial = rest
  }

  #lose(reason: string): void {
    const socket = this.#socket
    this.#options.wheel.cancel(this)
    this.#forget()
    socket?.destroy()
    this.#ports.lost(reason)
  }

  #forget(): void {
    this.#socket = undefined
    this.#isReady = false
    this.#waiting = []
    this.#partial = new Uint8Array(0)
  }
}

/**
 * A raw IPv4 socket through the package `raw-socket`, where there are no system calls on packet
 * memory: one call a packet. The package cannot say from which address a packet is to go, so the IP
 * header is written here (raw(7), IP_HDRINCL); what is longer than the device's MTU is refused then.
 */
import { createRequire } from 'node:module'
import { BindError, messageOf, SystemError } from '../core/errors.ts'
import { formatIpv4 } from '../core/ip-address.ts'
import type { PinnedMemory } from './dataplane.ts'
import { type PacketSocket, RAW_SLOT_BYTES, type RawSocketEvents } from './packet-socket.ts'
import { StackSlotPool } from './slot-pool.ts'

/** linux/in.h. */
const IPPROTO_IP = 0
const IP_HDRINCL = 3

/** RFC 791 §3.1. */
const IPV4_HEADER_BYTES = 20
const VERSION_AND_LENGTH = 0x45
const TTL_HOPS = 64
const LENGTH_AT = 2
const TTL_AT = 8
const PROTOCOL_AT = 9
const SOURCE_AT = 12
const DESTINATION_AT = 16

/** Implementation constants. */
const SEND_SLOTS = 512
/** Room for the IP header in front of a place, in whole cache lines. */
const HEADROOM_BYTES = 64
const SLOT_BYTES = HEADROOM_BYTES + RAW_SLOT_BYTES

/** The part of the package that is used. */
export interface RawSocketPackage {
  createSocket(options: { readonly protocol: number; readonly bufferSize: number }): PackageSocket
}

export interface PackageSocket {
  on(event: 'message', listener: (packet: Uint8Array) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  on(event: 'close', listener: () => void): unknown
  setOption(level: number, option: number, value: number): void
  pauseRecv(): unknown
  resumeRecv(): unknown
  /** Sends when the kernel has room; calls `sent` then. */
  send(
    buffer: Uint8Array,
    at: number,
    lengthBytes: number,
    destination: string,
    sent: (error: Error | null | undefined) => void,
  ): unknown
  close(): unknown
}

let loaded: RawSocketPackage | SystemError | undefined

/** The package, or the reason why it is not there: it is compiled when it is installed. */
export function loadRawSocketPackage(): RawSocketPackage | SystemError {
  loaded ??= tryLoad()
  return loaded
}

function tryLoad(): RawSocketPackage | SystemError {
  try {
    return createRequire(import.meta.url)('raw-socket') as RawSocketPackage
  } catch (thrown) {
    return new SystemError(
      `raw sockets are not available (raw-socket: ${messageOf(thrown)}); \`npm install\` compiles it where a C++ compiler is`,
      { cause: thrown },
    )
  }
}

export class PortableRawSocket implements PacketSocket {
  readonly #memory: PinnedMemory
  /** The same memory, as the package wants it. */
  readonly #buffer: Buffer
  readonly #socket: PackageSocket
  readonly #protocol: number
  readonly #receiveAt: number
  readonly #pool: StackSlotPool
  readonly #firstAt: number
  /** What is called when a slot was sent, made once for each. */
  readonly #sent: ((error: Error | null | undefined) => void)[] = []
  #events: RawSocketEvents | undefined
  #isOpen = true
  #failure = 'the socket was closed'
  readonly #counts = {
    receivedPackets: 0,
    receivedTruncated: 0,
    receivedMalformed: 0,
    sentPackets: 0,
    droppedNoSlot: 0,
    droppedSendError: 0,
  }

  /** Throws BindError when the process may not have raw sockets. */
  constructor(rawSocketPackage: RawSocketPackage, memory: PinnedMemory, protocol: number) {
    this.#memory = memory
    this.#buffer = Buffer.from(memory.bytes.buffer)
    this.#protocol = protocol
    this.#socket = createSocket(rawSocketPackage, protocol)
    this.#receiveAt = memory.allocate(RAW_SLOT_BYTES)
    this.#pool = new StackSlotPool(memory, SLOT_BYTES, SEND_SLOTS)
    this.#firstAt = this.#pool.take()
    this.#pool.give(this.#firstAt)
    for (let i = 0; i < SEND_SLOTS; i++) {
      const slot = this.#firstAt + i * SLOT_BYTES
      this.#sent.push(error => this.#onSent(slot, error))
    }
    this.#socket.on('message', packet => this.#receive(packet))
    this.#socket.on('error', error => {
      this.#counts.receivedMalformed++
      this.#failure = messageOf(error)
    })
    this.#socket.on('close', () => {
      if (this.#isOpen) this.#events?.onLost(this.#failure)
      this.#isOpen = false
    })
  }

  get counters(): Readonly<Record<string, number>> {
    return { ...this.#counts }
  }

  start(events: RawSocketEvents): void {
    this.#events = events
    this.#socket.resumeRecv()
  }

  /** What is still to be sent is lost. */
  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#socket.close()
  }

  reserve(): number {
    const slot = this.#isOpen ? this.#pool.take() : -1
    if (slot >= 0) return slot + HEADROOM_BYTES
    this.#counts.droppedNoSlot++
    return -1
  }

  release(at: number): void {
    this.#pool.give(this.#slotOf(at))
  }

  commit(at: number, lengthBytes: number, source: number, destination: number): void {
    const slot = this.#slotOf(at)
    const sent = this.#sent[(slot - this.#firstAt) / SLOT_BYTES]
    if (!this.#isOpen || sent === undefined) {
      this.#pool.give(slot)
      return
    }
    const { bytes, view } = this.#memory
    const headerAt = at - IPV4_HEADER_BYTES
    const totalBytes = IPV4_HEADER_BYTES + lengthBytes
    // Identification and checksum are the kernel's.
    bytes.fill(0, headerAt, at)
    bytes[headerAt] = VERSION_AND_LENGTH
    view.setUint16(headerAt + LENGTH_AT, totalBytes)
    bytes[headerAt + TTL_AT] = TTL_HOPS
    bytes[headerAt + PROTOCOL_AT] = this.#protocol
    view.setUint32(headerAt + SOURCE_AT, source)
    view.setUint32(headerAt + DESTINATION_AT, destination)
    this.#socket.send(this.#buffer, headerAt, totalBytes, formatIpv4(destination), sent)
  }

  /** The package sends by itself. */
  flush(): void {}

  #slotOf(at: number): number {
    return at - ((at - this.#firstAt) % SLOT_BYTES)
  }

  #onSent(slot: number, error: Error | null | undefined): void {
    this.#pool.give(slot)
    if (error) this.#counts.droppedSendError++
    else this.#counts.sentPackets++
  }

  #receive(packet: Uint8Array): void {
    const events = this.#events
    if (events === undefined || !this.#isOpen) return
    if (packet.length > RAW_SLOT_BYTES) {
      this.#counts.receivedTruncated++
      return
    }
    const { bytes, view } = this.#memory
    const at = this.#receiveAt
    const headerBytes = ((packet[0] ?? 0) & 15) * 4
    if (headerBytes < IPV4_HEADER_BYTES || headerBytes > packet.length) {
      this.#counts.receivedMalformed++
      return
    }
    this.#counts.receivedPackets++
    bytes.set(packet, at)
    events.onPacket(
      at + headerBytes,
      packet.length - headerBytes,
      view.getUint32(at + SOURCE_AT),
      view.getUint32(at + DESTINATION_AT),
    )
    events.onBurstEnd()
  }
}

function createSocket(rawSocketPackage: RawSocketPackage, protocol: number): PackageSocket {
  try {
    // One byte more than a packet may have: who fills it was cut.
    const socket = rawSocketPackage.createSocket({ protocol, bufferSize: RAW_SLOT_BYTES + 1 })
    socket.pauseRecv()
    socket.setOption(IPPROTO_IP, IP_HDRINCL, 1)
    return socket
  } catch (thrown) {
    throw new BindError(
      `cannot open a raw socket for IP protocol ${protocol} (${messageOf(thrown)}): it needs root or CAP_NET_RAW`,
      { cause: thrown },
    )
  }
}

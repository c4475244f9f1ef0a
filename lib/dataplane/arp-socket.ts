/** ARP on one network interface, packet(7): packets without their frames, to all hosts and from them. */
import { BindError } from '../core/errors.ts'
import { errnoName, type Kernel, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK } from './kernel.ts'
import { UvPoller } from './uv-poller.ts'

/** linux/if_packet.h, linux/if_ether.h, linux/if_arp.h. */
const AF_PACKET = 17
const ETH_P_ARP = 0x0806
const ARPHRD_ETHER = 1
const SOCKADDR_LL_BYTES = 20
const HARDWARE_BYTES = 6

/** Packets that one wake-up reads. */
const burstPackets = 64
/** An ARP packet with the padding of its frame. */
const slotBytes = 128

/** Offsets in the block that the kernel is shown. */
const nameAt = 0
const vectorAt = 32
const messageAt = 48
const slotAt = 128

export interface ArpSocketEvents {
  /** `bytes` is the receiver's. */
  packet(bytes: Uint8Array): void
  /** The interface is gone, or the like; the socket is closed. */
  lost(reason: string): void
}

export class ArpSocket {
  readonly #kernel: Kernel
  readonly #fd: number
  readonly #block = new Uint8Array(new ArrayBuffer(slotAt + slotBytes))
  readonly #view = new DataView(this.#block.buffer)
  readonly #address: number
  readonly #poller: UvPoller
  #isOpen = true

  /** Throws BindError when the process may not, or the interface is not there. */
  constructor(kernel: Kernel, interfaceIndex: number, events: ArpSocketEvents) {
    this.#kernel = kernel
    this.#address = kernel.addressOf(this.#block)
    // In network order, packet(7).
    const protocol = ((ETH_P_ARP & 0xff) << 8) | (ETH_P_ARP >> 8)
    this.#fd = kernel.socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol)
    if (this.#fd < 0) {
      throw new BindError(
        `cannot open a socket for ARP (${errnoName(kernel.errno())}): it needs root or CAP_NET_RAW`,
      )
    }
    this.#putName(interfaceIndex)
    if (kernel.bind(this.#fd, this.#address + nameAt, SOCKADDR_LL_BYTES) < 0) {
      const reason = errnoName(kernel.errno())
      kernel.close(this.#fd)
      throw new BindError(`cannot use ARP on interface ${interfaceIndex} (${reason})`)
    }
    this.#putU64(vectorAt, this.#address + slotAt)
    this.#poller = new UvPoller(kernel, this.#fd, {
      onReadable: () => this.#receive(events),
      onError: reason => {
        this.close()
        events.lost(reason)
      },
    })
  }

  /** To every host; false when the kernel does not take it. */
  broadcast(packet: Uint8Array): boolean {
    if (!this.#isOpen || packet.length > slotBytes) return false
    this.#block.set(packet, slotAt)
    this.#prepare(packet.length, SOCKADDR_LL_BYTES)
    return this.#kernel.sendmsg(this.#fd, this.#address + messageAt, 0) === packet.length
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#poller.close()
    this.#kernel.close(this.#fd)
  }

  #receive(events: ArpSocketEvents): void {
    for (let i = 0; i < burstPackets && this.#isOpen; i++) {
      // Without a name: who sent it stands in the packet.
      this.#prepare(slotBytes, 0)
      const length = this.#kernel.recvmsg(this.#fd, this.#address + messageAt, 0)
      if (length < 0) return
      events.packet(this.#block.slice(slotAt, slotAt + length))
    }
  }

  /** struct sockaddr_ll: the broadcast address of the interface. */
  #putName(interfaceIndex: number): void {
    const view = this.#view
    view.setUint16(nameAt, AF_PACKET, true)
    view.setUint16(nameAt + 2, ETH_P_ARP)
    view.setUint32(nameAt + 4, interfaceIndex, true)
    view.setUint16(nameAt + 8, ARPHRD_ETHER, true)
    view.setUint8(nameAt + 11, HARDWARE_BYTES)
    this.#block.fill(0xff, nameAt + 12, nameAt + 12 + HARDWARE_BYTES)
  }

  /** struct msghdr of 64-bit Linux with one iovec. */
  #prepare(lengthBytes: number, nameBytes: number): void {
    this.#putU64(messageAt, nameBytes === 0 ? 0 : this.#address + nameAt)
    this.#view.setUint32(messageAt + 8, nameBytes, true)
    this.#putU64(messageAt + 16, this.#address + vectorAt)
    this.#putU64(messageAt + 24, 1)
    this.#putU64(vectorAt + 8, lengthBytes)
  }

  #putU64(at: number, value: number): void {
    this.#view.setBigUint64(at, BigInt(value), true)
  }
}

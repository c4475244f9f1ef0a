/** A raw window on a network interface, packet(7): IP packets out of the host and into the host. */
import { SystemError } from '../../lib/core/errors.ts'
import { errnoName, SOCK_CLOEXEC } from '../../lib/dataplane/kernel.ts'
import type { HostSide } from './compliance.ts'
import { existingKernel } from './namespace.ts'

const AF_PACKET = 17
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const ETH_P_ALL = 0x0003
const ETH_P_IP = 0x0800
const ETH_P_IPV6 = 0x86dd
const SIOCGIFINDEX = 0x8933
const PACKET_OUTGOING = 4
const SOCKADDR_LL_BYTES = 20
const MSGHDR_BYTES = 56
const BUFFER_BYTES = 70_000

export class PacketSocket implements HostSide {
  readonly #kernel = existingKernel()
  readonly #fd: number
  readonly #block = new Uint8Array(new ArrayBuffer(256 + BUFFER_BYTES))
  readonly #view = new DataView(this.#block.buffer)
  readonly #address = this.#kernel.addressOf(this.#block)

  /** To be made inside the interface's namespace. */
  constructor(interfaceName: string) {
    const kernel = this.#kernel
    this.#fd = kernel.socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, ETH_P_ALL << 8)
    if (this.#fd < 0) throw new SystemError(`packet socket: ${errnoName(kernel.errno())}`)
    for (let i = 0; i < interfaceName.length; i++) this.#block[i] = interfaceName.charCodeAt(i)
    if (kernel.ioctl(this.#fd, SIOCGIFINDEX, this.#address) < 0) {
      throw new SystemError(`SIOCGIFINDEX: ${errnoName(kernel.errno())}`)
    }
    const index = this.#view.getUint32(16, true)
    // sockaddr_ll at 0: family, protocol (network order), interface index.
    this.#block.fill(0, 0, SOCKADDR_LL_BYTES)
    this.#view.setUint16(0, AF_PACKET, true)
    this.#view.setUint16(2, ETH_P_ALL)
    this.#view.setUint32(4, index, true)
    if (kernel.bind(this.#fd, this.#address, SOCKADDR_LL_BYTES) < 0) {
      throw new SystemError(`bind: ${errnoName(kernel.errno())}`)
    }
    // msghdr at 64: name, one iovec (at 128) over the buffer (at 256).
    this.#view.setBigUint64(64, BigInt(this.#address), true)
    this.#view.setBigUint64(80, BigInt(this.#address + 128), true)
    this.#view.setBigUint64(88, 1n, true)
    this.#view.setBigUint64(128, BigInt(this.#address + 256), true)
  }

  send(packet: Uint8Array): void {
    this.#view.setUint16(2, (packet[0] ?? 0) >> 4 === 6 ? ETH_P_IPV6 : ETH_P_IP)
    this.#block.set(packet, 256)
    this.#prepare(packet.length)
    if (this.#kernel.sendmsg(this.#fd, this.#address + 64, 0) !== packet.length) {
      throw new SystemError(`sendmsg: ${errnoName(this.#kernel.errno())}`)
    }
  }

  received(): Uint8Array[] {
    const packets: Uint8Array[] = []
    const saved = this.#block.slice(0, SOCKADDR_LL_BYTES)
    for (;;) {
      this.#prepare(BUFFER_BYTES)
      const length = this.#kernel.recvmsg(this.#fd, this.#address + 64, 0)
      if (length < 0) break
      // What we sent, and what the kernel sends by itself, is not for us.
      if (this.#block[10] !== PACKET_OUTGOING) packets.push(this.#block.slice(256, 256 + length))
    }
    this.#block.set(saved)
    return packets
  }

  close(): void {
    this.#kernel.close(this.#fd)
  }

  #prepare(lengthBytes: number): void {
    this.#view.setUint32(72, SOCKADDR_LL_BYTES, true)
    this.#view.setBigUint64(136, BigInt(lengthBytes), true)
    this.#block.fill(0, 96, 64 + MSGHDR_BYTES)
  }
}

/**
 * One non-blocking socket for datagrams: UDP with receive offload (many datagrams of one peer in one
 * message, `UDP_GRO`), or a raw IP protocol. udp(7), raw(7).
 */
import { BindError } from '../core/errors.ts'
import type { DatagramCounters, DatagramPort } from './datagrams.ts'
import type { PinnedMemory } from './dataplane.ts'
import {
  AF_INET,
  AF_INET6,
  errnoName,
  type Kernel,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_RAW,
} from './kernel.ts'
import { SOCKET_ADDRESS_BYTES, type SocketAddress } from './socket-address.ts'
import { type PollerEvents, UvPoller } from './uv-poller.ts'

const SOL_SOCKET = 1
const SO_SNDBUF = 7
const SO_RCVBUF = 8
const SO_SNDBUFFORCE = 32
const SO_RCVBUFFORCE = 33
const SOL_IP = 0
const IP_PKTINFO = 8
const SOL_IPV6 = 41
const IPV6_V6ONLY = 26
const IPV6_RECVPKTINFO = 49
const SOL_UDP = 17
const UDP_GRO = 104

/** Implementation constant: what arrives while one burst is worked on, at 10 Gbit/s for 6 ms. */
const BUFFER_BYTES = 8_388_608

export interface DatagramSocketOptions {
  readonly bound: SocketAddress
  /** Absent for UDP. */
  readonly ipProtocol: number | undefined
}

export class DatagramSocket implements DatagramPort {
  readonly bound: SocketAddress
  readonly fd: number
  readonly counters: Mutable<DatagramCounters> = {
    receivedDatagrams: 0,
    receivedBytes: 0,
    sentDatagrams: 0,
    sentBytes: 0,
    droppedQueueFull: 0,
    droppedRefused: 0,
  }
  /** A raw IPv4 socket gives the IP header too. */
  readonly givesIpHeader: boolean
  readonly isUdp: boolean
  /** The kernel has to be told which of our addresses to send from. */
  readonly needsLocal: boolean
  /** Cleared when the kernel or the device cannot cut messages. */
  canSegment: boolean
  readonly #kernel: Kernel
  #poller: UvPoller | undefined
  #isOpen = true
  /** Told once, when it is closed. */
  onClosed: () => void = () => {}

  /** Throws BindError. */
  constructor(
    kernel: Kernel,
    memory: PinnedMemory,
    scratchAt: number,
    options: DatagramSocketOptions,
  ) {
    const { bound, ipProtocol } = options
    this.#kernel = kernel
    this.bound = bound
    this.isUdp = ipProtocol === undefined
    this.givesIpHeader = ipProtocol !== undefined && bound.family === 4
    this.needsLocal = bound.isAny
    this.canSegment = this.isUdp
    const family = bound.family === 4 ? AF_INET : AF_INET6
    const type = this.isUdp ? SOCK_DGRAM : SOCK_RAW
    this.fd = kernel.socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, ipProtocol ?? 0)
    if (this.fd < 0) throw this.#bindError('socket')
    const set = (level: number, name: number, value: number) => {
      memory.view.setUint32(scratchAt, value, true)
      return kernel.setsockopt(this.fd, level, name, memory.address + scratchAt, 4) === 0
    }
    if (!set(SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)) set(SOL_SOCKET, SO_RCVBUF, BUFFER_BYTES)
    if (!set(SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)) set(SOL_SOCKET, SO_SNDBUF, BUFFER_BYTES)
    if (bound.family === 6) set(SOL_IPV6, IPV6_V6ONLY, 1)
    if (this.needsLocal) {
      if (bound.family === 4) set(SOL_IP, IP_PKTINFO, 1)
      else set(SOL_IPV6, IPV6_RECVPKTINFO, 1)
    }
    if (this.isUdp) set(SOL_UDP, UDP_GRO, 1)
    const addressBytes = bound.put(memory, scratchAt)
    if (kernel.bind(this.fd, memory.address + scratchAt, addressBytes) !== 0) {
      const error = this.#bindError('bind')
      kernel.close(this.fd)
      throw error
    }
  }

  get number(): number {
    return this.bound.port
  }

  listen(events: PollerEvents): void {
    this.#poller ??= new UvPoller(this.#kernel, this.fd, events)
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#poller?.close()
    this.#kernel.close(this.fd)
    this.onClosed()
  }

  get isOpen(): boolean {
    return this.#isOpen
  }

  #bindError(step: string): BindError {
    const errno = errnoName(this.#kernel.errno())
    const what = this.isUdp ? `UDP port ${this.bound.port}` : 'a raw IP socket'
    const advice =
      errno === 'EADDRINUSE'
        ? ': another program has it (ss -lunp shows which)'
        : errno === 'EACCES' || errno === 'EPERM'
          ? ': it needs root or CAP_NET_BIND_SERVICE and CAP_NET_RAW'
          : ''
    return new BindError(`cannot open ${what} on ${this.bound.text}: ${step}: ${errno}${advice}`)
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** Room for the options and the address while a socket is opened, bytes. */
export const SOCKET_SCRATCH_BYTES = SOCKET_ADDRESS_BYTES + 4

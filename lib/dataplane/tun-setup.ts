/**
 * Opens a TUN interface and brings it up: linux/if_tun.h and netdevice(7) ioctls on structures built
 * in a small block of memory. Runs to completion without yielding, so that a caller may enter a
 * network namespace around it.
 */
import { TunError } from '../core/errors.ts'
import { type DeviceOffloads, noOffloads } from './device.ts'
import {
  AF_INET,
  errnoName,
  type Kernel,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
} from './kernel.ts'

const IFF_TUN = 0x0001
const IFF_NO_PI = 0x1000
const IFF_VNET_HDR = 0x4000
const TUNSETIFF = 0x400454ca
const TUNSETOFFLOAD = 0x400454d0
const TUNSETVNETHDRSZ = 0x400454d8

const TUN_F_CSUM = 0x01
const TUN_F_TSO4 = 0x02
const TUN_F_TSO6 = 0x04
const TUN_F_TSO_ECN = 0x08
const TUN_F_USO4 = 0x20
const TUN_F_USO6 = 0x40

const SIOCGIFFLAGS = 0x8913
const SIOCSIFFLAGS = 0x8914
const SIOCSIFMTU = 0x8922
const SIOCSIFTXQLEN = 0x8943
const IFF_UP = 0x1

const IFREQ_BYTES = 40
const IFREQ_NAME_BYTES = 16

/** struct virtio_net_hdr without the merge field. */
export const VNET_HEADER_BYTES = 10

export interface TunSetup {
  /** A name, or a pattern such as `ras%d` for which the kernel picks the number. */
  readonly name: string
  readonly mtuBytes: number
  readonly txQueuePackets: number
  /** Ask for super-packets and checksum offload. */
  readonly wantsOffloads: boolean
}

export interface OpenedTun {
  readonly fd: number
  readonly name: string
  /** Every read and write has a virtio_net_hdr in front. */
  readonly hasVnetHeader: boolean
  readonly offloads: DeviceOffloads
}

/** Throws TunError, whose message says what to do. */
export function openTun(kernel: Kernel, setup: TunSetup): OpenedTun {
  if (!/^[A-Za-z0-9_.-]{1,13}(%d)?$|^[A-Za-z0-9_.-]{1,15}$/.test(setup.name)) {
    throw new TunError(`"${setup.name}" is not a name for a network interface: 1 to 15 characters`)
  }
  const fd = kernel.open('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC)
  if (fd < 0) throw new TunError(openFailure(errnoName(kernel.errno())))
  try {
    const request = new Uint8Array(new ArrayBuffer(IFREQ_BYTES))
    const view = new DataView(request.buffer)
    const address = kernel.addressOf(request)
    writeName(request, setup.name)
    view.setUint16(
      IFREQ_NAME_BYTES,
      IFF_TUN | IFF_NO_PI | (setup.wantsOffloads ? IFF_VNET_HDR : 0),
      true,
    )
    if (kernel.ioctl(fd, TUNSETIFF, address) < 0) {
      throw new TunError(createFailure(setup.name, errnoName(kernel.errno())))
    }
    const name = readName(request)
    const offloads = setup.wantsOffloads ? turnOnOffloads(kernel, fd) : noOffloads
    bringUp(kernel, name, setup, request)
    return { fd, name, hasVnetHeader: setup.wantsOffloads, offloads }
  } catch (thrown) {
    kernel.close(fd)
    throw thrown
  }
}

/** From most to least: kernels before 6.2 have no USO. */
const offloadLadder: readonly (readonly [number, DeviceOffloads])[] = [
  [
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
    { checksum: true, tso4: true, tso6: true, uso: true },
  ],
  [
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
    { checksum: true, tso4: true, tso6: true, uso: false },
  ],
  [TUN_F_CSUM, { checksum: true, tso4: false, tso6: false, uso: false }],
]

function turnOnOffloads(kernel: Kernel, fd: number): DeviceOffloads {
  const size = new Uint8Array(new ArrayBuffer(4))
  size[0] = VNET_HEADER_BYTES
  if (kernel.ioctl(fd, TUNSETVNETHDRSZ, kernel.addressOf(size)) < 0) {
    throw new TunError(`TUNSETVNETHDRSZ: ${errnoName(kernel.errno())}`)
  }
  for (const [flags, offloads] of offloadLadder) {
    if (kernel.ioctl(fd, TUNSETOFFLOAD, flags) === 0) return offloads
  }
  return noOffloads
}

function bringUp(kernel: Kernel, name: string, setup: TunSetup, request: Uint8Array): void {
  const socket = kernel.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
  if (socket < 0) throw new TunError(`cannot set up ${name}: ${errnoName(kernel.errno())}`)
  const view = new DataView(request.buffer)
  const address = kernel.addressOf(request)
  const set = (call: number, what: string) => {
    if (kernel.ioctl(socket, call, address) < 0) {
      throw new TunError(`cannot set ${what} of ${name}: ${errnoName(kernel.errno())}`)
    }
  }
  try {
    writeName(request, name)
    view.setInt32(IFREQ_NAME_BYTES, setup.mtuBytes, true)
    set(SIOCSIFMTU, `the MTU (${setup.mtuBytes} bytes)`)
    view.setInt32(IFREQ_NAME_BYTES, setup.txQueuePackets, true)
    set(SIOCSIFTXQLEN, `the queue length (${setup.txQueuePackets} packets)`)
    set(SIOCGIFFLAGS, 'the flags')
    view.setUint16(IFREQ_NAME_BYTES, view.getUint16(IFREQ_NAME_BYTES, true) | IFF_UP, true)
    set(SIOCSIFFLAGS, 'the state (up)')
  } finally {
    kernel.close(socket)
  }
}

function writeName(request: Uint8Array, name: string): void {
  request.fill(0)
  for (let i = 0; i < name.length; i++) request[i] = name.charCodeAt(i)
}

function readName(request: Uint8Array): string {
  let name = ''
  for (let i = 0; i < IFREQ_NAME_BYTES && request[i] !== 0; i++) {
    name += String.fromCharCode(request[i] ?? 0)
  }
  return name
}

function openFailure(errno: string): string {
  switch (errno) {
    case 'ENOENT':
    case 'ENODEV':
    case 'ENXIO':
      return 'there is no /dev/net/tun: load the module with `modprobe tun`, or give the container the device (`--device /dev/net/tun`)'
    case 'EACCES':
    case 'EPERM':
      return '/dev/net/tun may not be opened: run as root or with CAP_NET_ADMIN'
    default:
      return `cannot open /dev/net/tun: ${errno}`
  }
}

function createFailure(name: string, errno: string): string {
  switch (errno) {
    case 'EPERM':
      return `the interface ${name} may not be created: run as root or with CAP_NET_ADMIN`
    case 'EBUSY':
      return `the interface ${name} is in use by another program: choose another name`
    case 'EINVAL':
      return `the interface ${name} exists and is no TUN device of this kind, or its name is not valid: choose another name`
    default:
      return `cannot create the interface ${name}: ${errno}`
  }
}

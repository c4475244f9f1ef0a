/**
 * System calls through koffi. Pointers are native addresses as plain numbers (the fastest way to
 * pass them), structures are built by the caller inside pinned memory, results are the C results:
 * -1 means that `errno()` has the reason.
 */
import { createRequire } from 'node:module'
import { getSystemErrorName } from 'node:util'
import type * as Koffi from 'koffi'
import { messageOf, SystemError } from '../core/errors.ts'

type Address = number

/** linux/asm-generic/fcntl.h, x86-64 and arm64 alike. */
export const O_RDONLY = 0
export const O_RDWR = 2
export const O_NONBLOCK = 0o4000
export const O_CLOEXEC = 0o2000000
export const CLONE_NEWNET = 0x40000000

export const AF_INET = 2
export const AF_INET6 = 10
export const SOCK_DGRAM = 2
export const SOCK_RAW = 3
export const SOCK_NONBLOCK = 0o4000
export const SOCK_CLOEXEC = 0o2000000

export interface Kernel {
  open(path: string, flags: number): number
  close(fd: number): number
  ioctl(fd: number, request: number, argument: Address): number
  read(fd: number, to: Address, lengthBytes: number): number
  write(fd: number, from: Address, lengthBytes: number): number
  readv(fd: number, vectors: Address, count: number): number
  writev(fd: number, vectors: Address, count: number): number
  socket(family: number, type: number, protocol: number): number
  bind(fd: number, address: Address, lengthBytes: number): number
  connect(fd: number, address: Address, lengthBytes: number): number
  setsockopt(fd: number, level: number, name: number, value: Address, lengthBytes: number): number
  getsockopt(fd: number, level: number, name: number, value: Address, length: Address): number
  sendmsg(fd: number, message: Address, flags: number): number
  recvmsg(fd: number, message: Address, flags: number): number
  sendmmsg(fd: number, messages: Address, count: number, flags: number): number
  recvmmsg(fd: number, messages: Address, count: number, flags: number, timeout: Address): number
  setns(fd: number, type: number): number
  /** The reason of the last failure, a positive number. */
  errno(): number
  /** The native address of `bytes[0]`. Keep a reference to `bytes` while it is in use. */
  addressOf(bytes: Uint8Array): Address
  readonly uv: UvCalls
}

/** libuv's poll handles, exported by the node binary. Results are 0 or a negative errno. */
export interface UvCalls {
  pollHandleBytes(): number
  pollInit(handle: Address, fd: number): number
  pollStart(handle: Address, events: number, callback: NativeCallback): number
  pollStop(handle: Address): number
  /** The handle's memory must stay until `closed` has been called. */
  close(handle: Address, closed: NativeCallback): void
  /** Makes a C function of `onEvent`, which must not throw: nobody would see the error. */
  pollCallback(onEvent: (handle: bigint, status: number, events: number) => void): NativeCallback
  closeCallback(onClosed: (handle: bigint) => void): NativeCallback
  /** Not from inside the callback itself. */
  release(callback: NativeCallback): void
}

/** A C function pointer that koffi made. */
export type NativeCallback = bigint

const UV_POLL_HANDLE = 8

let loaded: Kernel | SystemError | undefined

/**
 * The system calls of this process, or the reason why there are none: koffi has no binary for this
 * machine, or the node binary does not export a symbol.
 */
export function loadKernel(): Kernel | SystemError {
  loaded ??= tryLoad()
  return loaded
}

/** `EPERM (operation not permitted)` style name of an errno. */
export function errnoName(errno: number): string {
  try {
    return getSystemErrorName(-errno)
  } catch {
    return `errno ${errno}`
  }
}

function tryLoad(): Kernel | SystemError {
  try {
    // Loaded on demand: where koffi has no binary, the memory backend must still work.
    const koffi = createRequire(import.meta.url)('koffi') as typeof Koffi
    return declareCalls(koffi)
  } catch (thrown) {
    return new SystemError(
      `system calls are not available (koffi: ${messageOf(thrown)}); on x64 and arm64 Linux \`npm install\` brings the binary`,
      { cause: thrown },
    )
  }
}

function declareCalls(koffi: typeof Koffi): Kernel {
  const library = koffi.load(null)
  return {
    open: library.func('int open(const char *, int)'),
    close: library.func('int close(int)'),
    ioctl: library.func('int ioctl(int, unsigned long, intptr_t)'),
    read: library.func('intptr_t read(int, intptr_t, intptr_t)'),
    write: library.func('intptr_t write(int, intptr_t, intptr_t)'),
    readv: library.func('intptr_t readv(int, intptr_t, int)'),
    writev: library.func('intptr_t writev(int, intptr_t, int)'),
    socket: library.func('int socket(int, int, int)'),
    bind: library.func('int bind(int, intptr_t, int)'),
    connect: library.func('int connect(int, intptr_t, int)'),
    setsockopt: library.func('int setsockopt(int, int, int, intptr_t, int)'),
    getsockopt: library.func('int getsockopt(int, int, int, intptr_t, intptr_t)'),
    sendmsg: library.func('intptr_t sendmsg(int, intptr_t, int)'),
    recvmsg: library.func('intptr_t recvmsg(int, intptr_t, int)'),
    sendmmsg: library.func('int sendmmsg(int, intptr_t, int, int)'),
    recvmmsg: library.func('int recvmmsg(int, intptr_t, int, int, intptr_t)'),
    setns: library.func('int setns(int, int)'),
    errno: () => koffi.errno(),
    addressOf: bytes => Number(koffi.address(bytes)),
    uv: declareUv(koffi, library),
  }
}

function declareUv(koffi: typeof Koffi, library: Koffi.LibraryHandle): UvCalls {
  const defaultLoop: () => number = library.func('intptr_t uv_default_loop()')
  const handleSize: (kind: number) => number = library.func('intptr_t uv_handle_size(int)')
  const init: (loop: number, handle: number, fd: number) => number = library.func(
    'int uv_poll_init(intptr_t, intptr_t, int)',
  )
  const close: (handle: number, closed: bigint) => void = library.func(
    'void uv_close(intptr_t, intptr_t)',
  )
  const pollPrototype = koffi.pointer(
    koffi.proto('void openras_poll_callback(intptr_t handle, int status, int events)'),
  )
  const closePrototype = koffi.pointer(koffi.proto('void openras_close_callback(intptr_t handle)'))
  return {
    pollHandleBytes: () => handleSize(UV_POLL_HANDLE),
    pollInit: (handle, fd) => init(defaultLoop(), handle, fd),
    pollStart: library.func('int uv_poll_start(intptr_t, int, intptr_t)'),
    pollStop: library.func('int uv_poll_stop(intptr_t)'),
    close,
    pollCallback: onEvent => koffi.register(onEvent, pollPrototype),
    closeCallback: onClosed => koffi.register(onClosed, closePrototype),
    release: callback => {
      koffi.unregister(callback)
    },
  }
}

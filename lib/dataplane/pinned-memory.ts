/**
 * The one memory that packets live in: a WebAssembly.Memory that never grows, so that its bytes stay
 * where they are and the kernels of wasm-kernels.ts can work on them. Not shared between threads:
 * copies inside a SharedArrayBuffer are several times slower in V8.
 */
import { InvariantError } from '../core/errors.ts'
import { plainChecksum } from './checksum.ts'
import type { PinnedMemory } from './dataplane.ts'
import { bindKernels, createWasmMemory, type Kernels } from './wasm-kernels.ts'

const WASM_PAGE_BYTES = 65_536

export interface PacketMemoryOptions {
  /** Rounded up to 64 KiB. */
  readonly sizeBytes: number
  /** Gives the native address of a byte array; absent where no kernel call will be made. */
  addressOf?(bytes: Uint8Array): number
  /** `plain` does without WebAssembly. */
  readonly kernels?: 'wasm' | 'plain'
}

export class PacketMemory implements PinnedMemory {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly address: number
  /** Whether the checksum and copy loops run as WebAssembly. */
  readonly isAccelerated: boolean
  readonly #kernels: Kernels
  /** Offset 0 is never given out, so that 0 can mean "none". */
  #usedBytes = 64

  constructor(options: PacketMemoryOptions) {
    const pages = Math.ceil(options.sizeBytes / WASM_PAGE_BYTES)
    const memory = options.kernels === 'plain' ? undefined : createWasmMemory(pages)
    const buffer = memory?.buffer ?? new ArrayBuffer(pages * WASM_PAGE_BYTES)
    this.bytes = new Uint8Array(buffer)
    this.view = new DataView(buffer)
    this.address = options.addressOf?.(this.bytes) ?? 0
    const wasm = memory === undefined ? undefined : bindKernels(memory)
    this.isAccelerated = wasm !== undefined
    this.#kernels = wasm ?? plainKernels(this.bytes)
  }

  allocate(lengthBytes: number, alignBytes = 64): number {
    const at = Math.ceil(this.#usedBytes / alignBytes) * alignBytes
    if (!(lengthBytes >= 0) || at + lengthBytes > this.bytes.length) {
      throw new InvariantError(
        `packet memory is used up: ${lengthBytes} bytes wanted, ${this.bytes.length - at} left`,
      )
    }
    this.#usedBytes = at + lengthBytes
    return at
  }

  copy(to: number, from: number, lengthBytes: number): void {
    this.#kernels.copy(to, from, lengthBytes)
  }

  checksum(at: number, lengthBytes: number, seed: number): number {
    return this.#kernels.sum(at, lengthBytes, seed)
  }

  /** Copies between regions that do not overlap and returns the checksum of what was copied. */
  copyChecksum(to: number, from: number, lengthBytes: number, seed: number): number {
    return this.#kernels.copySum(to, from, lengthBytes, seed)
  }
}

/** The same loops in TypeScript. */
function plainKernels(bytes: Uint8Array): Kernels {
  return {
    sum: (at, lengthBytes, seed) => plainChecksum(bytes, at, lengthBytes, seed),
    copy: (to, from, lengthBytes) => {
      bytes.copyWithin(to, from, from + lengthBytes)
    },
    copySum: (to, from, lengthBytes, seed) => {
      bytes.copyWithin(to, from, from + lengthBytes)
      return plainChecksum(bytes, from, lengthBytes, seed)
    },
  }
}

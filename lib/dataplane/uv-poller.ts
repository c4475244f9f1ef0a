/**
 * Wakes us when a file descriptor is readable, on Node's own event loop: a `uv_poll` handle driven
 * through koffi. Level-triggered: what a bounded burst leaves unread wakes us again in the next turn
 * of the loop, after timers and sockets had theirs.
 */
import { isMainThread } from 'node:worker_threads'
import { messageOf, SystemError } from '../core/errors.ts'
import { errnoName, type Kernel, type NativeCallback } from './kernel.ts'

const UV_READABLE = 1

/** Handles that libuv still owns, with the memory they stand in: it must outlive them. */
const closing = new Set<UvPoller>()

export interface PollerEvents {
  onReadable(): void
  /** The kernel reports an error on the descriptor; polling has stopped. */
  onError(reason: string): void
}

export class UvPoller {
  readonly #kernel: Kernel
  readonly #events: PollerEvents
  readonly #memory: Uint8Array
  readonly #handle: number
  readonly #onPoll: NativeCallback
  #isOpen = true
  readonly #onExit = () => this.close()

  constructor(kernel: Kernel, fd: number, events: PollerEvents) {
    if (!isMainThread) {
      throw new SystemError('uv_poll works on the main thread only: it uses the default loop')
    }
    this.#kernel = kernel
    this.#events = events
    this.#memory = new Uint8Array(new ArrayBuffer(kernel.uv.pollHandleBytes() + 64))
    this.#handle = kernel.addressOf(this.#memory)
    const initialized = kernel.uv.pollInit(this.#handle, fd)
    if (initialized !== 0) throw new SystemError(`uv_poll_init: ${errnoName(-initialized)}`)
    this.#onPoll = kernel.uv.pollCallback((_handle, status) => this.#wake(status))
    const started = kernel.uv.pollStart(this.#handle, UV_READABLE, this.#onPoll)
    if (started !== 0) {
      this.close()
      throw new SystemError(`uv_poll_start: ${errnoName(-started)}`)
    }
    // A callback that arrives while the process is torn down would run in a dead engine.
    process.once('exit', this.#onExit)
  }

  /** After this no event is reported, and the descriptor may be closed. */
  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    process.removeListener('exit', this.#onExit)
    const { uv } = this.#kernel
    uv.pollStop(this.#handle)
    closing.add(this)
    const onClosed = uv.closeCallback(() => {
      closing.delete(this)
      // Not from inside the callback that is being released.
      setImmediate(() => {
        uv.release(this.#onPoll)
        uv.release(onClosed)
      })
    })
    uv.close(this.#handle, onClosed)
  }

  #wake(status: number): void {
    if (!this.#isOpen) return
    // An exception cannot cross C: without this it would vanish.
    try {
      if (status < 0) {
        this.close()
        this.#events.onError(errnoName(-status))
      } else {
        this.#events.onReadable()
      }
    } catch (thrown) {
      process.nextTick(() => {
        throw thrown instanceof Error ? thrown : new SystemError(messageOf(thrown))
      })
    }
  }
}

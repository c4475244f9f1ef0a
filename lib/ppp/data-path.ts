/**
 * How the data of one link is carried, from its keys and from what CCP has agreed on: the sealer that
 * the tunnel writes with, and the opener for what arrives.
 */
import type { MasterKeys } from '../aaa/authenticator.ts'
import { copyBytes } from '../core/bytes.ts'
import { Counters } from '../core/faults.ts'
import { wipe } from '../core/secret.ts'
import type { FrameSealer } from './carrier.ts'
import type { CompressionAgreement } from './ccp.ts'
import { FrameOpener } from './frame-opener.ts'
import { BlockedSealer, PlainSealer, ProtectedSealer } from './frame-sealers.ts'
import { MppcCompressor } from './mppc/compressor.ts'
import { MppcDecompressor } from './mppc/decompressor.ts'
import { MppeDecryptor } from './mppe/mppe-decryptor.ts'
import { MppeEncryptor } from './mppe/mppe-encryptor.ts'
import type { PppRole } from './settings.ts'

export interface DataPathPorts {
  /** Packet memory. */
  readonly bytes: Uint8Array
  readonly role: PppRole
  /** Room for a packet that stays until the burst ends. */
  intake(lengthBytes: number): number
  /** The tunnel writes so from now on. */
  setSealer(sealer: FrameSealer): void
}

export class DataPath {
  readonly counters = new Counters()
  readonly #ports: DataPathPorts
  readonly #plain: PlainSealer
  readonly #blocked = new BlockedSealer()
  #keys: { readonly send: Uint8Array; readonly receive: Uint8Array } | undefined
  #protected: ProtectedSealer | undefined
  #opener: FrameOpener | undefined
  #isPlainAllowed = true

  constructor(ports: DataPathPorts) {
    this.#ports = ports
    this.#plain = new PlainSealer(ports.bytes)
    ports.setSealer(this.#plain)
  }

  /** What opens protocol 0x00fd; undefined: such packets are not due. */
  get opener(): FrameOpener | undefined {
    return this.#opener
  }

  /** Whether IP may arrive without protection. */
  get isPlainAllowed(): boolean {
    return this.#isPlainAllowed
  }

  get droppedPackets(): number {
    return this.#blocked.droppedPackets
  }

  /** Keys of a proof, from the server's point of view; they hold until the next. */
  setKeys(keys: MasterKeys | undefined): void {
    this.#forgetKeys()
    if (keys === undefined) return
    const isServer = this.#ports.role === 'server'
    this.#keys = {
      send: copyBytes(isServer ? keys.send : keys.receive),
      receive: copyBytes(isServer ? keys.receive : keys.send),
    }
  }

  /** CCP is open: both directions begin with their first keys. False: there are no keys for that. */
  open({ send, receive }: CompressionAgreement): boolean {
    this.#drop()
    const keys = this.#keys
    if (keys === undefined && (send.keyBits !== 0 || receive.keyBits !== 0)) return false
    const { bytes, intake, setSealer } = this.#ports
    const encryptor =
      keys === undefined || send.keyBits === 0
        ? undefined
        : new MppeEncryptor(keys.send, send.keyBits, send.isStateless)
    const decryptor =
      keys === undefined || receive.keyBits === 0
        ? undefined
        : new MppeDecryptor(
            keys.receive,
            receive.keyBits,
            receive.isStateless,
            receive.isCompressed,
          )
    const compressor = send.isCompressed ? new MppcCompressor(send.isStateless) : undefined
    const decompressor = receive.isCompressed ? new MppcDecompressor() : undefined
    if (decryptor !== undefined || decompressor !== undefined) {
      this.#opener = new FrameOpener(bytes, decryptor, decompressor, this.counters, intake)
    }
    if (encryptor !== undefined || compressor !== undefined) {
      this.#protected = new ProtectedSealer(bytes, encryptor, compressor)
      setSealer(this.#protected)
    } else setSealer(this.#plain)
    this.#isPlainAllowed = decryptor === undefined
    return true
  }

  /** CCP is not open any more. */
  close(isEncryptionDue: boolean): void {
    this.#drop()
    this.#isPlainAllowed = !isEncryptionDue
    this.#ports.setSealer(isEncryptionDue ? this.#blocked : this.#plain)
  }

  /** The peer cannot follow what we send. */
  reset(): void {
    const changes = this.#opener?.changesKeyOnFlush
    if (changes !== undefined) this.#protected?.followFlushesOf(changes)
    this.#protected?.reset()
  }

  /** The link is over. */
  destroy(): void {
    this.#drop()
    this.#forgetKeys()
    this.#isPlainAllowed = false
    this.#ports.setSealer(this.#blocked)
  }

  #drop(): void {
    this.#protected?.destroy()
    this.#opener?.destroy()
    this.#protected = undefined
    this.#opener = undefined
  }

  #forgetKeys(): void {
    if (this.#keys !== undefined) wipe(this.#keys.send, this.#keys.receive)
    this.#keys = undefined
  }
}

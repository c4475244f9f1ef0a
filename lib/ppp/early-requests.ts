/**
 * Configure-Requests of network protocols that came before their layer could answer: the last one of
 * each is kept, so that the peer need not wait for its restart timer.
 */
import { copyBytes } from '../core/bytes.ts'
import { ControlCode, checkControlPacket, parseControlPacket } from './wire/control-packet.ts'
import { PppProtocol } from './wire/frame.ts'
import { ipcpOptions } from './wire/ipcp-options.ts'
import { checkOptions, parseOptions, u32OfOption } from './wire/option.ts'

// Implementation constants.

const mostKept = 4
const mostBytes = 256

export class EarlyRequests {
  readonly #kept = new Map<number, Uint8Array>()

  /** False: not worth keeping. */
  keep(protocol: number, bytes: Uint8Array, at: number, length: number): boolean {
    const isNetworkControl = protocol >= 0x8000 && protocol < 0xc000
    if (!isNetworkControl || length > mostBytes) return false
    if (checkControlPacket(bytes, at, length)) return false
    if (bytes[at] !== ControlCode.configureRequest) return false
    if (!this.#kept.has(protocol) && this.#kept.size >= mostKept) return false
    this.#kept.set(protocol, copyBytes(bytes, at, at + length)) // copied: outlives the burst
    return true
  }

  /** All, in the order of arrival; none is kept after. */
  take(): [protocol: number, packet: Uint8Array][] {
    const kept = [...this.#kept]
    this.#kept.clear()
    return kept
  }

  clear(): void {
    this.#kept.clear()
  }

  /** The address that a request of IPCP asks for, 0 for any; undefined when none is kept. */
  requestedIpv4(): number | undefined {
    const kept = this.#kept.get(PppProtocol.ipcp)
    if (kept === undefined) return undefined
    const { data } = parseControlPacket(kept, 0)
    if (checkOptions(data)) return undefined
    const { type, dataBytes } = ipcpOptions.ipAddress
    const option = parseOptions(data).find(o => o.type === type && o.data.length === dataBytes)
    return option === undefined ? 0 : u32OfOption(option)
  }
}

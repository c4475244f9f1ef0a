/**
 * The host's side of the dataplane: where IP packets for sessions come from and packets of sessions
 * go. The TUN device and the memory device are two; a fault injector and a capture wrap any of them.
 */
import type { BackendName } from './dataplane.ts'
import type { Frame } from './frame.ts'

/** What the kernel does for us, in both directions. */
export interface DeviceOffloads {
  readonly checksum: boolean
  readonly tso4: boolean
  readonly tso6: boolean
  /** UDP super-packets, both families. */
  readonly uso: boolean
}

export const noOffloads: DeviceOffloads = { checksum: false, tso4: false, tso6: false, uso: false }

export interface DeviceEvents {
  /** There may be something to read; called again while there is. */
  onReadable(): void
  /** The device went away by itself; it has stopped reading. */
  onLost(reason: string): void
}

export interface Device {
  readonly name: string
  readonly backend: BackendName
  readonly mtuBytes: number
  readonly offloads: DeviceOffloads
  /**
   * Takes the next packet into `frame`, in one piece that stays until the next `read`. False when
   * there is none now.
   */
  read(frame: Frame): boolean
  /** Hands a packet to the host. False when the host refused it. */
  write(frame: Frame): boolean
  start(events: DeviceEvents): void
  /** Closes the device for good. Harmless when repeated. */
  stop(): void
}

/** The names of the offloads that are on. */
export function offloadNames(offloads: DeviceOffloads): string[] {
  return Object.entries(offloads)
    .filter(([, isOn]) => isOn === true)
    .map(([name]) => name)
}

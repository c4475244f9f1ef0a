/** Kernel settings under /proc/sys, by their path below it: `net/ipv4/ip_forward`. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { SystemError } from '../core/errors.ts'

export type SysctlKey = string

/** The value, or undefined when this kernel has no such setting. */
export function readSysctl(key: SysctlKey): string | undefined {
  try {
    return readFileSync(`/proc/sys/${key}`, 'utf8').trim()
  } catch {
    return undefined
  }
}

/** Throws SystemError when the kernel refuses, for example in a container with a read-only /proc. */
export function writeSysctl(key: SysctlKey, value: string): void {
  try {
    writeFileSync(`/proc/sys/${key}`, value)
  } catch (error) {
    const name = key.replaceAll('/', '.')
    throw new SystemError(
      `the kernel setting ${name} could not be set to ${value}; set it yourself (sysctl -w ${name}=${value}) or run with CAP_NET_ADMIN and a writable /proc/sys`,
      { cause: error },
    )
  }
}

/** Keys of one per-interface setting: `all`, `default` and every interface there is. */
export function interfaceSysctls(family: 'ipv4' | 'ipv6', setting: string): SysctlKey[] {
  try {
    const folder = `net/${family}/conf`
    return readdirSync(`/proc/sys/${folder}`).map(name => `${folder}/${name}/${setting}`)
  } catch {
    return []
  }
}

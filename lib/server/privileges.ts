/**
 * Privileges: a server that starts as root keeps only the capabilities that moving packets needs.
 *
 * Capabilities belong to threads, and by the time JavaScript runs Node has several. So the bounding
 * set is reduced on the main thread and the process executes itself anew (same pid, same arguments,
 * same standard streams): what comes up afterwards never had more, in any thread (capabilities(7)).
 */
import { readFileSync } from 'node:fs'
import koffi from 'koffi'
import { SystemError } from '../core/errors.ts'
import { type ProgramPath, programPath } from './program-path.ts'

/** Linux capability numbers (capability.h) that the server keeps, and why. */
export const keptCapabilities = {
  /** Ports below 1024: 443, 500, 1701, 1723. */
  net_bind_service: 10,
  /** TUN device, addresses, routes, nftables, sysctls below net. */
  net_admin: 12,
  /** Raw sockets: GRE and ESP. */
  net_raw: 13,
} as const

const F_SETFD = 2
const PR_CAPBSET_DROP = 24
const PR_SET_NO_NEW_PRIVS = 38
const PR_CAP_AMBIENT = 47
const PR_CAP_AMBIENT_CLEAR_ALL = 4

const startedAnewKey = 'OPENRAS_PRIVILEGES_DROPPED'

export interface Privileges {
  readonly uid: number
  readonly effective: bigint
  readonly bounding: bigint
  readonly noNewPrivileges: boolean
}

/** What this process may do now, from /proc/self/status. */
export function currentPrivileges(status = readFileSync('/proc/self/status', 'utf8')): Privileges {
  const field = (name: string) => status.match(new RegExp(`^${name}:\\s*(\\S+)`, 'm'))?.[1] ?? '0'
  return {
    uid: Number(field('Uid')),
    effective: BigInt(`0x${field('CapEff')}`),
    bounding: BigInt(`0x${field('CapBnd')}`),
    noNewPrivileges: field('NoNewPrivs') === '1',
  }
}

/** Names of the capabilities that the server needs and this process lacks. */
export function missingCapabilities(privileges: Privileges): string[] {
  return Object.entries(keptCapabilities)
    .filter(([, bit]) => (privileges.effective & (1n << BigInt(bit))) === 0n)
    .map(([name]) => `CAP_${name.toUpperCase()}`)
}

/** Whether the process holds, or could regain, more than the server needs. */
export function hasMoreThanNeeded(privileges: Privileges): boolean {
  const kept = Object.values(keptCapabilities).reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n)
  return (privileges.effective & ~kept) !== 0n || !privileges.noNewPrivileges
}

/**
 * Gives up everything but `keptCapabilities` for good. Does not return when there was something to
 * give up: the process starts again from `main` with the same arguments. Throws SystemError when the
 * kernel refuses.
 */
export function dropPrivileges(): void {
  const before = currentPrivileges()
  if (!hasMoreThanNeeded(before) || process.env[startedAnewKey] !== undefined) return
  const [, main = '', ...args] = process.argv
  const program =
    before.uid === 0 ? programPath(main) : { arguments: [main], descriptor: undefined }
  const libc = koffi.load(null)
  const prctl = libc.func(
    'int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)',
  )
  const kept = new Set<number>(Object.values(keptCapabilities))
  for (let bit = 0n; bit < 64n; bit++) {
    if (kept.has(Number(bit)) || (before.bounding & (1n << bit)) === 0n) continue
    // Without CAP_SETPCAP the bounding set cannot shrink; NoNewPrivs then holds the line.
    if (prctl(PR_CAPBSET_DROP, Number(bit), 0, 0, 0) !== 0) break
  }
  // Ambient capabilities of a service manager that starts us without root must survive the exec.
  if (before.uid === 0) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) {
    throw new SystemError(`the kernel refused PR_SET_NO_NEW_PRIVS: errno ${koffi.errno()}`)
  }
  // A kernel or container that keeps more than we asked to drop must not make us start for ever.
  process.env[startedAnewKey] = '1'
  executeSelf(libc, program, args)
}

function executeSelf(
  libc: ReturnType<typeof koffi.load>,
  program: ProgramPath,
  args: readonly string[],
): never {
  // Node marks its descriptors close-on-exec, those of its standard streams too.
  const fcntl = libc.func('int fcntl(int, int, int)')
  const kept = program.descriptor === undefined ? [0, 1, 2] : [0, 1, 2, program.descriptor]
  for (const fd of kept) fcntl(fd, F_SETFD, 0)
  const execv = libc.func('int execv(const char *path, const char **argv)')
  const argv = [process.execPath, ...process.execArgv, ...program.arguments, ...args, null]
  execv(process.execPath, argv)
  throw new SystemError(`could not execute ${process.execPath} again: errno ${koffi.errno()}`)
}

/**
 * How a program names itself to the kernel when it is about to lose CAP_DAC_OVERRIDE: a root without it
 * is a stranger in the homes of others, and Debian closes homes to strangers. What lies inside is still
 * reached through a descriptor of a folder there, opened before and inherited (proc(5), /proc/PID/fd).
 */
import { constants, existsSync, openSync, realpathSync, type Stats, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { SystemError } from '../core/errors.ts'

export interface ProgramPath {
  /** What `node` is given, options first. */
  readonly arguments: readonly string[]
  /** Must be open in the new program. */
  readonly descriptor: number | undefined
}

/** `main` as root can open it without any capability. Throws SystemError when there is no way. */
export function programPath(main: string): ProgramPath {
  const program = realpathSync(main)
  const folders = foldersOf(program)
  const closed = folders.findLastIndex(folder => !isOpen(statSync(folder), constants.S_IXUSR))
  const own = folders.findLastIndex(folder => existsSync(join(folder, 'package.json')))
  const entry = folders[closed + 1]
  if ((closed >= 0 && closed >= own) || !isOpen(statSync(program), constants.S_IRUSR)) {
    const place = folders[own] ?? dirname(program)
    throw new SystemError(
      `the server gives up the right to read files of other users, and ${place} is closed to it: run "chmod -R go+rX ${place}"`,
    )
  }
  if (closed < 0 || entry === undefined) return { arguments: [main], descriptor: undefined }
  const descriptor = openSync(entry, constants.O_RDONLY | constants.O_DIRECTORY)
  return {
    // Real paths would lead through the closed folder again.
    arguments: [
      ...['--preserve-symlinks', '--preserve-symlinks-main'],
      join(`/proc/self/fd/${descriptor}`, relative(entry, program)),
    ],
    descriptor,
  }
}

/** From `/` down to the folder that `path` is in. */
function foldersOf(path: string): string[] {
  const parent = dirname(path)
  return parent === path ? [path] : [...(parent === '/' ? [] : foldersOf(parent)), parent]
}

/** Whether the mode gives us `ownerBit`, as owner, by group or as anybody (inode(7)). */
function isOpen({ mode, uid, gid }: Stats, ownerBit: number): boolean {
  if (uid === process.geteuid?.()) return (mode & ownerBit) !== 0
  const isOurGroup = gid === process.getegid?.() || process.getgroups?.().includes(gid)
  return (mode & (isOurGroup ? ownerBit >> 3 : ownerBit >> 6)) !== 0
}

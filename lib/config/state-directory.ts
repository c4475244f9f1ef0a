/** Files that outlive a restart: private to their owner, and whole whatever happens while they are written. */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  fchmodSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { messageOf, StoreError } from '../core/errors.ts'

/** Only the owner reads, writes and enters. */
export const directoryMode = 0o700
/** Only the owner reads and writes. */
export const privateFileMode = 0o600

/** Makes the state directory, or checks that nobody but its owner can enter it. */
export function ensureStateDirectory(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: directoryMode })
  } catch (thrown) {
    throw new StoreError(`cannot make the directory ${path}: ${messageOf(thrown)}`, {
      cause: thrown,
    })
  }
  const stat = statSync(path)
  if (!stat.isDirectory()) throw new StoreError(`${path} is not a directory`)
  if ((stat.mode & 0o077) !== 0) {
    throw new StoreError(
      `${path} has mode ${octal(stat.mode)}, so others can reach the secrets in it: chmod 700 ${path}`,
    )
  }
}

/** Replaces `path` as a whole: a reader, or a crash, sees the old content or the new. */
export function writeFileAtomically(
  path: string,
  content: Uint8Array | string,
  mode = privateFileMode,
): void {
  const temporary = writeTemporary(path, content, mode)
  try {
    renameSync(temporary, path)
  } catch (thrown) {
    rmSync(temporary, { force: true })
    throw new StoreError(`cannot write ${path}: ${messageOf(thrown)}`, { cause: thrown })
  }
  syncDirectory(path)
}

/** Makes `path` with its whole content at once; false when it is there already, whoever made it. */
export function createFileAtomically(
  path: string,
  content: Uint8Array | string,
  mode = privateFileMode,
): boolean {
  const temporary = writeTemporary(path, content, mode)
  try {
    linkSync(temporary, path)
    syncDirectory(path)
    return true
  } catch (thrown) {
    if (isCode(thrown, 'EEXIST')) return false
    throw new StoreError(`cannot write ${path}: ${messageOf(thrown)}`, { cause: thrown })
  } finally {
    rmSync(temporary, { force: true })
  }
}

/** The bytes of a file that only its owner (and, to read, its group) may reach; undefined if absent. */
export function readPrivateFile(path: string): Uint8Array | undefined {
  try {
    const stat = statSync(path)
    if ((stat.mode & 0o037) !== 0) {
      throw new StoreError(
        `${path} has mode ${octal(stat.mode)}, so others can read a secret: chmod 600 ${path}`,
      )
    }
    return readFileSync(path)
  } catch (thrown) {
    if (thrown instanceof StoreError) throw thrown
    if (isCode(thrown, 'ENOENT')) return undefined
    throw new StoreError(`cannot read ${path}: ${messageOf(thrown)}`, { cause: thrown })
  }
}

/** Permission bits as chmod takes them. */
export function octal(mode: number): string {
  return `0${(mode & 0o777).toString(8)}`
}

function writeTemporary(path: string, content: Uint8Array | string, mode: number): string {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.new`
  try {
    const fd = openSync(temporary, 'wx', mode)
    try {
      // The umask may have taken bits away that the caller asked for.
      fchmodSync(fd, mode)
      const bytes = typeof content === 'string' ? Buffer.from(content) : content
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
  } catch (thrown) {
    rmSync(temporary, { force: true })
    throw new StoreError(`cannot write ${path}: ${messageOf(thrown)}`, { cause: thrown })
  }
  return temporary
}

/** A rename survives a power cut only when the directory is on disk too. */
function syncDirectory(path: string): void {
  const fd = openSync(dirname(path), 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

function isCode(thrown: unknown, code: string): boolean {
  return thrown instanceof Error && 'code' in thrown && thrown.code === code
}

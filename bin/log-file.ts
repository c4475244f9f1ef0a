/** Where the log goes when it does not go to standard error. */
import { type DestinationStream, pino } from 'pino'
import { messageOf, StoreError } from '../lib/core/errors.ts'

/** Appends, readable by its owner only; undefined means standard error. Throws StoreError. */
export function openLogFile(path: string | undefined): DestinationStream | undefined {
  if (path === undefined) return undefined
  try {
    return pino.destination({ dest: path, append: true, mkdir: true, mode: 0o600, sync: true })
  } catch (error) {
    throw new StoreError(`the log ${path} cannot be written: ${messageOf(error)}`)
  }
}

/**
 * The log: pino, in one shape. `event` is the stable key that programs match; the text is for people.
 * Children are made at four levels only: server, listener, tunnel, session.
 */
import { type DestinationStream, type Logger, pino } from 'pino'

export type { Logger } from 'pino'

export const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]

/** Names whose values never belong in a log; secrets proper are `Secret` objects and need no list. */
const redactedKeys = ['password', 'secret', 'psk', 'key', 'ntHash', 'response']

export function createLogger(level: LogLevel, destination?: DestinationStream): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: label => ({ level: label }) },
      redact: { paths: redactedKeys.flatMap(key => [key, `*.${key}`]), censor: '[secret]' },
    },
    destination ?? pino.destination({ fd: 2, sync: true }),
  )
}

/** A logger that says nothing. */
export const silentLogger: Logger = pino({ level: 'silent' })

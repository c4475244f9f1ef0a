/** `openras disconnect`: ends sessions. */
import { z } from 'zod'
import { UsageError } from '../../lib/core/errors.ts'
import { type Command, callServer, ExitCode, readArguments } from '../command.ts'

const answer = z.object({ disconnected: z.number() })

export const disconnect: Command = {
  name: 'disconnect',
  synopsis: 'disconnect NAME|ID [--config FILE]',
  summary: 'end a session, or all sessions of a user',
  help: `
NAME is a user, ID the number or the identifier of a session ("openras status" shows them).
Exit code 1 when there is no such session, 3 when no server is running.`,
  run: async args => {
    const { values, positionals } = readArguments(args, { config: { type: 'string' } })
    const [target, ...rest] = positionals
    if (target === undefined || rest.length > 0) throw new UsageError('expected one NAME or ID')
    const { disconnected } = answer.parse(
      await callServer(values.config, 'disconnect', { session: target }),
    )
    if (disconnected === 0) {
      process.stderr.write(`openras: there is no session "${target}"\n`)
      return ExitCode.failure
    }
    process.stdout.write(`${disconnected} ended\n`)
    return ExitCode.success
  },
}

/** `openras release`: ends quarantines. */
import { z } from 'zod'
import { UsageError } from '../../lib/core/errors.ts'
import { type Command, callServer, ExitCode, readArguments } from '../command.ts'

const answer = z.object({ released: z.number() })

export const release: Command = {
  name: 'release',
  synopsis: 'release NAME|ID [--config FILE]',
  summary: 'end the quarantine of a session, or of all sessions of a user',
  help: `
NAME is a user, ID the number or the identifier of a session ("openras status" shows them). What the
session may do is then what its policy gives it without the quarantine.
Exit code 1 when no such session is in quarantine, 3 when no server is running.`,
  run: async args => {
    const { values, positionals } = readArguments(args, { config: { type: 'string' } })
    const [target, ...rest] = positionals
    if (target === undefined || rest.length > 0) throw new UsageError('expected one NAME or ID')
    const { released } = answer.parse(
      await callServer(values.config, 'release', { session: target }),
    )
    if (released === 0) {
      process.stderr.write(`openras: no session "${target}" is in quarantine\n`)
      return ExitCode.failure
    }
    process.stdout.write(`${released} released\n`)
    return ExitCode.success
  },
}

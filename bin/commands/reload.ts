/** `openras reload`: the running server reads its configuration and certificates again. */
import { z } from 'zod'
import { type Command, callServer, ExitCode, readArguments } from '../command.ts'

const answer = z.object({ applied: z.array(z.string()), needsRestart: z.array(z.string()) })

export const reload: Command = {
  name: 'reload',
  synopsis: 'reload [--config FILE]',
  summary: 'make the server read its configuration and certificates again',
  help: `
Sessions stay up. Prints what was applied, and what will only hold after a restart.
The signal HUP does the same.`,
  run: async args => {
    const { values } = readArguments(args, { config: { type: 'string' } })
    const { applied, needsRestart } = answer.parse(await callServer(values.config, 'reload', {}))
    for (const what of applied) process.stdout.write(`applied: ${what}\n`)
    for (const what of needsRestart) process.stdout.write(`needs a restart: ${what}\n`)
    return ExitCode.success
  },
}

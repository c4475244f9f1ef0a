/** `openras check`: is this configuration one that the server would start with? */
import { checkServer } from '../../lib/server/check.ts'
import { type Command, defaultConfigPath, ExitCode, loadConfig, readArguments } from '../command.ts'

export const check: Command = {
  name: 'check',
  synopsis: 'check [--config FILE]',
  summary: 'say what is wrong with a configuration',
  help: `
Reads the configuration (${defaultConfigPath} unless --config names another) and the files that it
names, and prints every problem with its line, its path and what was expected.
Exit code 0 when the server would start with it, 2 when not.`,
  run: async args => {
    const { values } = readArguments(args, { config: { type: 'string' } })
    const path = values.config ?? defaultConfigPath
    const notes = checkServer(loadConfig(path))
    for (const note of notes) process.stdout.write(`note: ${note}\n`)
    process.stdout.write(`${path} is good\n`)
    return ExitCode.success
  },
}

/** `openras schema`: the JSON Schema of the configuration. */
import { configSchema } from '../../lib/config.ts'
import { type Command, ExitCode, readArguments } from '../command.ts'

export const schema: Command = {
  name: 'schema',
  synopsis: 'schema',
  summary: 'print the JSON Schema of the configuration',
  help: 'Editors that know JSON Schema check and complete the configuration with it.',
  run: async args => {
    readArguments(args, {})
    process.stdout.write(`${JSON.stringify(configSchema(), undefined, 2)}\n`)
    return ExitCode.success
  },
}

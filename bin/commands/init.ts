/** `openras init`: what the first `openras serve` does by itself, without starting anything. */
import { type Command, defaultConfigPath, ExitCode, readArguments } from '../command.ts'
import { firstRun } from '../first-run.ts'

export const init: Command = {
  name: 'init',
  synopsis: 'init [--config FILE] [--state DIR]',
  summary: 'write a configuration, a certificate and a first user',
  help: `
Writes a commented configuration (${defaultConfigPath} unless --config names another place), makes an
authority and a server certificate, and adds a first user, whose password it prints.
Nothing that exists is overwritten.`,
  run: async args => {
    const { values } = readArguments(args, {
      config: { type: 'string' },
      state: { type: 'string' },
    })
    firstRun(
      values.config ?? defaultConfigPath,
      values.state === undefined ? {} : { stateDirectory: values.state },
    )
    return ExitCode.success
  },
}

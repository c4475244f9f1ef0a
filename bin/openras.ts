#!/usr/bin/env node
/** The command line: finds the command, runs it, turns its outcome into an exit code. */
import { InvalidConfigError } from '../lib/config.ts'
import { messageOf, OpenRasError } from '../lib/core/errors.ts'
import { type Command, ExitCode } from './command.ts'
import { capture } from './commands/capture.ts'
import { check } from './commands/check.ts'
import { disconnect } from './commands/disconnect.ts'
import { init } from './commands/init.ts'
import { release } from './commands/release.ts'
import { reload } from './commands/reload.ts'
import { schema } from './commands/schema.ts'
import { serve } from './commands/serve.ts'
import { status } from './commands/status.ts'
import { user } from './commands/user.ts'
import { version } from './commands/version.ts'

const commands: readonly Command[] = [
  serve,
  init,
  check,
  schema,
  user,
  status,
  disconnect,
  release,
  capture,
  reload,
  version,
]

function usage(): string {
  const width = Math.max(...commands.map(command => command.synopsis.length))
  const lines = commands.map(
    command => `  openras ${command.synopsis.padEnd(width)}  ${command.summary}`,
  )
  return `OpenRAS, a VPN concentrator\n\n${lines.join('\n')}\n\nA command followed by --help says more.\n`
}

async function main(argv: readonly string[]): Promise<ExitCode> {
  const [name = 'help', ...args] = argv
  if (name === 'help' || name === '--help' || name === '-h') {
    process.stdout.write(usage())
    return ExitCode.success
  }
  const wanted = name === '--version' ? 'version' : name
  const command = commands.find(candidate => candidate.name === wanted)
  if (command === undefined) {
    process.stderr.write(`openras: there is no command "${name}"\n\n${usage()}`)
    return ExitCode.usage
  }
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(`usage: openras ${command.synopsis}\n\n${command.help.trim()}\n`)
    return ExitCode.success
  }
  return command.run(args)
}

function exitCodeOf(error: OpenRasError): ExitCode {
  if (['ERR_USAGE', 'ERR_CONFIG', 'ERR_CERTIFICATE'].includes(error.code)) return ExitCode.usage
  const { cause } = error
  const isNobodyThere =
    error.code === 'ERR_CONTROL' &&
    cause instanceof Error &&
    'code' in cause &&
    (cause.code === 'ENOENT' || cause.code === 'ECONNREFUSED')
  return isNobodyThere ? ExitCode.notRunning : ExitCode.failure
}

/** What the message itself does not say. */
function reasonsOf({ message, cause }: OpenRasError): string {
  if (cause instanceof Error && 'code' in cause && cause.code === 'EADDRINUSE') {
    return '  another program has that port: ss -ltunp shows which\n'
  }
  const reason = cause === undefined ? '' : messageOf(cause)
  return message.includes(reason) ? '' : `  because: ${reason}\n`
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  if (error instanceof InvalidConfigError) {
    process.stderr.write(`${error.message}\n`)
    process.exitCode = ExitCode.usage
  } else if (error instanceof OpenRasError) {
    process.stderr.write(`openras: ${error.message}\n`)
    process.stderr.write(reasonsOf(error))
    process.exitCode = exitCodeOf(error)
  } else {
    throw error
  }
}

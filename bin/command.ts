/** What a command of `openras` is, and what they share: exit codes, options, where the server is. */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { type ParseArgsConfig, parseArgs } from 'node:util'
import { type Config, parseConfig } from '../lib/config.ts'
import { controlCall } from '../lib/control/control-call.ts'
import { ConfigError, messageOf, UsageError } from '../lib/core/errors.ts'

export const ExitCode = {
  success: 0,
  /** What was asked for could not be done. */
  failure: 1,
  /** The command line or the configuration is wrong. */
  usage: 2,
  /** The command needs a running server and there is none. */
  notRunning: 3,
} as const
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode]

export interface Command {
  readonly name: string
  readonly synopsis: string
  readonly summary: string
  readonly help: string
  run(args: readonly string[]): Promise<ExitCode>
}

export const defaultConfigPath = '/etc/openras/openras.yaml'

/** What to type before a command: `npm start` runs in the project's folder, where no `openras` is in the path. */
export function programName(): string {
  const { npm_lifecycle_event: script } = process.env
  return script === 'start' ? 'sudo node dist/bin/openras.js' : 'openras'
}

type Options = NonNullable<ParseArgsConfig['options']>

/** Options and positional arguments; throws UsageError on anything else. */
export function readArguments<T extends Options>(args: readonly string[], options: T) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true })
  } catch (error) {
    throw new UsageError(messageOf(error))
  }
}

/** The configuration at `path`, or at the default place. Throws ConfigError. */
export function loadConfig(path = defaultConfigPath): Config {
  if (!existsSync(path)) {
    throw new ConfigError(
      '',
      `there is no configuration at ${path}: "openras init --config ${path}" writes one`,
    )
  }
  const config = parseConfig(readText(path), path)
  const mode = statSync(path).mode & 0o777
  if (config.users !== undefined && (mode & 0o037) !== 0) {
    throw new ConfigError(
      'users',
      `${path} holds passwords and others can read it: chmod 600 ${path}`,
    )
  }
  return config
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new ConfigError('', `the configuration ${path} cannot be read`, { cause: error })
  }
}

/** Calls the server that runs with the configuration at `configPath`. Throws ControlError. */
export function callServer(
  configPath: string | undefined,
  command: string,
  args: unknown,
  timeoutMs?: number,
): Promise<unknown> {
  return controlCall(loadConfig(configPath).state.controlSocket, command, args, timeoutMs)
}

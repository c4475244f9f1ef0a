/** `openras serve`: the concentrator itself. */
import { existsSync } from 'node:fs'
import { z } from 'zod'
import type { Config } from '../../lib/config.ts'
import { ControlServer } from '../../lib/control/index.ts'
import { messageOf, SystemError } from '../../lib/core/errors.ts'
import { createLogger, type Logger } from '../../lib/core/log.ts'
import {
  currentPrivileges,
  dropPrivileges,
  missingCapabilities,
} from '../../lib/server/privileges.ts'
import { Server } from '../../lib/server/server.ts'
import { type Command, defaultConfigPath, ExitCode, loadConfig, readArguments } from '../command.ts'
import { firstRun } from '../first-run.ts'
import { openLogFile } from '../log-file.ts'
import { welcome } from '../welcome.ts'

const captureSchema = z.strictObject({
  path: z.string().startsWith('/').max(4096),
  seconds: z.number().positive().max(3600),
  megabytes: z.number().positive().max(10_000),
})

/** Sessions have this long to say goodbye, ms. */
const stopTimeoutMs = 8000

export const serve: Command = {
  name: 'serve',
  synopsis: 'serve [--config FILE]',
  summary: 'run the server',
  help: `
Runs until it gets the signal TERM or INT; HUP makes it read its configuration again.
Without --config it uses ${defaultConfigPath}, and when that does not exist it makes one, with a
certificate and a first user whose password it prints ("openras init" does the same and stops).
The log goes to standard error or to log.file, one JSON document a line.`,
  run: async args => {
    const { values } = readArguments(args, { config: { type: 'string' } })
    const path = values.config ?? defaultConfigPath
    needCapabilities()
    dropPrivileges()
    if (values.config === undefined && !existsSync(path)) firstRun(path)
    const config = loadConfig(path)
    return new Life(path, config).run()
  },
}

function needCapabilities(): void {
  const missing = missingCapabilities(currentPrivileges())
  if (missing.length === 0) return
  throw new SystemError(`run this as root, or give the process ${missing.join(', ')}`)
}

/** One run of the server: signals in, exit code out. */
class Life {
  readonly #path: string
  readonly #config: Config
  readonly #log: Logger
  #end: (code: ExitCode) => void = () => {}

  constructor(path: string, config: Config) {
    this.#path = path
    this.#config = config
    this.#log = createLogger(config.log.level, openLogFile(config.log.file))
  }

  async run(): Promise<ExitCode> {
    const ended = new Promise<ExitCode>(resolve => {
      this.#end = resolve
    })
    const server = new Server(this.#config, this.#log, () => this.#end(ExitCode.failure))
    const control = this.#makeControl(server)
    await control.listen()
    try {
      this.#catchSignals(server)
      await server.start()
      process.stdout.write(welcome(this.#config, server.status()))
      return await ended
    } finally {
      await withinTime(server.stop())
      await control.close()
      this.#log.flush()
    }
  }

  #makeControl(server: Server): ControlServer {
    const control = new ControlServer(this.#config.state.controlSocket, this.#log)
    control.register('status', z.strictObject({}), () => server.status())
    control.register('disconnect', z.strictObject({ session: z.string().max(1024) }), args => ({
      disconnected: server.disconnect(args.session),
    }))
    control.register('release', z.strictObject({ session: z.string().max(1024) }), args => ({
      released: server.release(args.session),
    }))
    control.register('unlock', z.strictObject({ name: z.string().max(1024) }), args => ({
      isUnlocked: server.unlock(args.name),
    }))
    control.register('capture', captureSchema, async ({ path, seconds, megabytes }) => {
      await server.capture(path, seconds * 1000, megabytes * 1_000_000)
    })
    control.register('reload', z.strictObject({}), () => server.reload(loadConfig(this.#path)))
    return control
  }

  #catchSignals(server: Server): void {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => this.#end(ExitCode.success))
    }
    process.on('SIGHUP', () => {
      void this.#reload(server)
    })
    // A fault of ours must leave no firewall rule behind.
    process.on('uncaughtException', error => this.#fault(error))
    process.on('unhandledRejection', error => this.#fault(error))
  }

  async #reload(server: Server): Promise<void> {
    try {
      await server.reload(loadConfig(this.#path))
    } catch (error) {
      this.#log.error({ event: 'reload-failed', reason: messageOf(error) }, 'reload failed')
    }
  }

  #fault(error: unknown): void {
    this.#log.fatal({ event: 'fault', err: error }, 'a fault of openras: the server stops')
    this.#end(ExitCode.failure)
  }
}

async function withinTime(work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>(resolve => {
    timer = setTimeout(resolve, stopTimeoutMs)
  })
  await Promise.race([work, late])
  clearTimeout(timer)
}

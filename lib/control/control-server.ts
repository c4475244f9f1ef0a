/** The control socket of a running server: commands are registered here and called over JSON lines. */
import { chmodSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import type { z } from 'zod'
import { BindError, messageOf, OpenRasError } from '../core/errors.ts'
import { Counters } from '../core/faults.ts'
import type { Logger } from '../core/log.ts'
import { LineSplitter } from './line-splitter.ts'
import {
  describeIssues,
  maxLineBytes,
  protocolVersion,
  type Reply,
  type Request,
  requestSchema,
} from './protocol.ts'

/** Connections at one time; more are closed at once. */
const maxConnections = 64

/** Requests under way on one connection; the next lines wait unread. */
const maxPending = 32

/** A client that reads nothing while this much waits for it is cut off, bytes. */
const maxUnsentBytes = 16 * 1024 * 1024

/** A connection without a request for this long is closed. */
const idleTimeoutMs = 300_000

interface Command {
  readonly schema: z.ZodType
  /** Checked against `schema` first. */
  run(args: unknown): Promise<unknown>
}

export class ControlServer {
  readonly #path: string
  readonly #log: Logger
  readonly #commands = new Map<string, Command>()
  readonly #sockets = new Set<Socket>()
  readonly #server: Server
  readonly counters = new Counters()

  constructor(path: string, log: Logger) {
    this.#path = path
    this.#log = log
    this.#server = createServer(socket => this.#accept(socket))
  }

  /** Arguments reach `handler` only when `schema` accepts them. What it resolves to must be JSON. */
  register<Schema extends z.ZodType>(
    name: string,
    schema: Schema,
    handler: (args: z.output<Schema>) => unknown,
  ): void {
    this.#commands.set(name, {
      schema,
      run: async args => handler(schema.parse(args)),
    })
  }

  /**
   * Opens the socket, for its owner only. A socket that a killed server left is replaced. Throws
   * BindError when another server answers on it or it cannot be made.
   */
  async listen(): Promise<void> {
    const path = this.#path
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
    if (await isAnswered(path)) {
      throw new BindError(`another server is running: it answers on ${path}`)
    }
    removeSocket(path)
    const previousMask = process.umask(0o177)
    try {
      await new Promise<void>((resolve, reject) => {
        this.#server.once('error', error => {
          reject(new BindError(`${path}: ${error.message}`, { cause: error }))
        })
        this.#server.listen(path, resolve)
      })
    } finally {
      process.umask(previousMask)
    }
    chmodSync(path, 0o600)
    this.#server.on('error', error => {
      this.#log.error({ event: 'control.error', err: error }, 'the control socket failed')
    })
  }

  /** Ends all connections and removes the socket. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    if (this.#server.listening) {
      await new Promise<void>(resolve => this.#server.close(() => resolve()))
    }
  }

  #accept(socket: Socket): void {
    if (this.#sockets.size >= maxConnections) {
      this.counters.count('too-many-connections')
      socket.destroy()
      return
    }
    this.#sockets.add(socket)
    const splitter = new LineSplitter(maxLineBytes)
    let pending = 0
    const send = (reply: Reply) => {
      if (socket.destroyed) return
      socket.write(`${JSON.stringify(reply)}\n`)
      if (socket.writableLength > maxUnsentBytes) {
        this.counters.count('client-does-not-read')
        socket.destroy()
      }
    }
    socket.setTimeout(idleTimeoutMs, () => {
      if (pending === 0) socket.destroy()
    })
    socket.on('close', () => this.#sockets.delete(socket))
    // A client that vanishes is no event; `close` follows.
    socket.on('error', () => this.counters.count('connection-error'))
    socket.on('data', chunk => {
      const lines = splitter.push(chunk)
      if (lines === undefined) {
        this.counters.count('line-too-long')
        socket.end(
          `${JSON.stringify(refusal(null, `a line is longer than ${maxLineBytes} bytes`))}\n`,
        )
        return
      }
      for (const line of lines) {
        pending++
        if (pending >= maxPending) socket.pause()
        // `#answer` never rejects: whatever fails becomes an answer.
        void this.#answer(line).then(reply => {
          pending--
          send(reply)
          if (pending < maxPending && socket.isPaused()) socket.resume()
        })
      }
    })
  }

  async #answer(line: string): Promise<Reply> {
    const request = parseRequest(line)
    if ('error' in request) {
      this.counters.count('bad-request')
      return request
    }
    const { id, command: name, arguments: args } = request
    const command = this.#commands.get(name)
    if (command === undefined) {
      this.counters.count('unknown-command')
      return refusal(id, `there is no command "${name}": ${[...this.#commands.keys()].join(', ')}`)
    }
    const checked = command.schema.safeParse(args)
    if (!checked.success) {
      this.counters.count('bad-arguments')
      return refusal(id, `${name}: ${describeIssues(checked.error)}`)
    }
    try {
      const result = (await command.run(args)) ?? null
      return { version: protocolVersion, id, result }
    } catch (error) {
      return this.#failure(id, name, error)
    }
  }

  #failure(id: number, name: string, error: unknown): Reply {
    if (error instanceof OpenRasError) {
      this.counters.count('refused')
      return {
        version: protocolVersion,
        id,
        error: { code: error.code, message: error.message },
      }
    }
    this.counters.count('failed')
    this.#log.error({ event: 'control.failed', command: name, err: error }, 'a command failed')
    return {
      version: protocolVersion,
      id,
      error: { code: 'ERR_INVARIANT', message: `${name} failed: ${messageOf(error)}` },
    }
  }
}

function parseRequest(line: string): Request | Extract<Reply, { error: unknown }> {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return refusal(null, 'a request is one line of JSON')
  }
  const parsed = requestSchema.safeParse(value)
  return parsed.success ? parsed.data : refusal(null, `request: ${describeIssues(parsed.error)}`)
}

function refusal(id: number | null, message: string): Extract<Reply, { error: unknown }> {
  return { version: protocolVersion, id, error: { code: 'ERR_CONTROL', message } }
}

/** Whether a process accepts connections on the socket at `path`. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const probe = connect(path)
    probe.on('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.on('error', () => resolve(false))
  })
}

/** Removes a socket file; anything else at that place stays, and `listen` fails on it. */
function removeSocket(path: string): void {
  try {
    if (lstatSync(path).isSocket()) unlinkSync(path)
  } catch {
    // Nothing there.
  }
}

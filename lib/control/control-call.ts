/** Calls one command of a running server. */
import { connect } from 'node:net'
import { ControlError } from '../core/errors.ts'
import { LineSplitter } from './line-splitter.ts'
import { protocolVersion, replySchema } from './protocol.ts'

/** Answers may be long lists; a session takes a few hundred bytes. */
const maxAnswerBytes = 256 * 1024 * 1024

const defaultTimeoutMs = 30_000

/**
 * Sends `args` to `command` of the server on the socket at `path`, and resolves to its result. Throws
 * ControlError, with a sentence for people: no server, no permission, no answer, or what the server said.
 */
export function controlCall(
  path: string,
  command: string,
  args?: unknown,
  timeoutMs = defaultTimeoutMs,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const splitter = new LineSplitter(maxAnswerBytes)
    const socket = connect(path)
    const timer = setTimeout(() => {
      fail(new ControlError(`the server did not answer within ${timeoutMs / 1000} s`))
    }, timeoutMs)
    const finish = () => {
      clearTimeout(timer)
      socket.destroy()
    }
    const fail = (error: Error) => {
      finish()
      reject(error)
    }
    socket.on('connect', () => {
      socket.write(
        `${JSON.stringify({ version: protocolVersion, id: 1, command, arguments: args })}\n`,
      )
    })
    socket.on('data', chunk => {
      const lines = splitter.push(chunk)
      if (lines === undefined) fail(new ControlError('the answer of the server is too long'))
      else if (lines[0] !== undefined) {
        finish()
        settle(lines[0], resolve, reject)
      }
    })
    socket.on('error', (error: NodeJS.ErrnoException) => fail(connectError(path, error)))
    socket.on('close', () => fail(new ControlError('the server closed the connection')))
  })
}

function settle(
  line: string,
  resolve: (result: unknown) => void,
  reject: (error: Error) => void,
): void {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    value = undefined
  }
  const reply = replySchema.safeParse(value)
  if (!reply.success) reject(new ControlError('the server speaks another version of this protocol'))
  else if ('error' in reply.data) reject(new ControlError(reply.data.error.message))
  else resolve(reply.data.result)
}

function connectError(path: string, error: NodeJS.ErrnoException): ControlError {
  const options = { cause: error }
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new ControlError(`no server is running: nobody answers on ${path}`, options)
    case 'EACCES':
      return new ControlError(`you may not use ${path}: run this as root`, options)
    default:
      return new ControlError(`${path}: ${error.message}`, options)
  }
}

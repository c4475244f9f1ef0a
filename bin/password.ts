/** Reads a password without showing it: from a terminal with echo off, or one line of standard input. */
import { UsageError } from '../lib/core/errors.ts'
import { Secret, wipe } from '../lib/core/secret.ts'

const longestPasswordBytes = 4096
const enter = 13
const lineFeed = 10
const interrupt = 3
const endOfText = 4
const backspace = 8
const deleteKey = 127

/** Asked twice on a terminal. Throws UsageError when it is empty, too long, or the two differ. */
export async function readNewPassword(fromStandardInput: boolean): Promise<Secret> {
  if (fromStandardInput || !process.stdin.isTTY) return checked(await readLine())
  const first = checked(await ask('Password: '))
  const second = await ask('Again: ')
  const isSame = first.equals(second)
  second.destroy()
  if (isSame) return first
  first.destroy()
  throw new UsageError('the two passwords differ')
}

function checked(password: Secret): Secret {
  if (password.length > 0) return password
  throw new UsageError('the password is empty')
}

async function readLine(): Promise<Secret> {
  const collected = new Uint8Array(longestPasswordBytes)
  let length = 0
  for await (const chunk of process.stdin) {
    for (const byte of chunk as Uint8Array) {
      if (byte === lineFeed) return take(collected, length)
      if (length === longestPasswordBytes) throw tooLong()
      collected[length++] = byte
    }
  }
  return take(collected, length)
}

/** A line that ends in CR LF, as on Windows, is taken without its CR. */
function take(collected: Uint8Array, length: number): Secret {
  const end = collected[length - 1] === enter ? length - 1 : length
  const secret = new Secret(collected.subarray(0, end))
  wipe(collected)
  return secret
}

function ask(prompt: string): Promise<Secret> {
  const { stdin, stderr } = process
  stderr.write(prompt)
  stdin.setRawMode(true)
  stdin.resume()
  const collected = new Uint8Array(longestPasswordBytes)
  let length = 0
  return new Promise((resolve, reject) => {
    const finish = (settle: () => void) => {
      stdin.off('data', onData)
      stdin.setRawMode(false)
      stdin.pause()
      stderr.write('\n')
      settle()
    }
    const onData = (chunk: Uint8Array) => {
      for (const byte of chunk) {
        if (byte === enter || byte === lineFeed || byte === endOfText) {
          return finish(() => resolve(take(collected, length)))
        }
        if (byte === interrupt) return finish(() => reject(new UsageError('interrupted')))
        if (byte === backspace || byte === deleteKey) length = previousCharacter(collected, length)
        else if (length === longestPasswordBytes) return finish(() => reject(tooLong()))
        else collected[length++] = byte
      }
      return undefined
    }
    stdin.on('data', onData)
  })
}

/** One UTF-8 character back: over its continuation bytes. */
function previousCharacter(bytes: Uint8Array, length: number): number {
  let end = Math.max(0, length - 1)
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return end
}

function tooLong(): UsageError {
  return new UsageError(`a password has at most ${longestPasswordBytes} bytes`)
}

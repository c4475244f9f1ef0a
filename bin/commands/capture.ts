/** `openras capture`: records packets of the running server. */
import { resolve } from 'node:path'
import { UsageError } from '../../lib/core/errors.ts'
import { type Command, callServer, ExitCode, readArguments } from '../command.ts'

export const capture: Command = {
  name: 'capture',
  synopsis: 'capture FILE [--seconds N] [--megabytes N] [--config FILE]',
  summary: 'record the packets of the tunnels',
  help: `
Writes a capture that Wireshark and tcpdump read: IP packets between tunnels and host, without their
tunnel headers. A super-packet of the kernel is one record. Ends after --seconds (10 unless given) or
when the file has --megabytes (100 unless given). FILE must not exist; it holds users' traffic, so only
root can read it.`,
  run: async args => {
    const { values, positionals } = readArguments(args, {
      config: { type: 'string' },
      seconds: { type: 'string', default: '10' },
      megabytes: { type: 'string', default: '100' },
    })
    const [file, ...rest] = positionals
    if (file === undefined || rest.length > 0) throw new UsageError('expected one FILE')
    const seconds = numberOf('--seconds', values.seconds)
    const megabytes = numberOf('--megabytes', values.megabytes)
    const path = resolve(file)
    process.stderr.write(`recording for ${seconds} s\n`)
    const patienceMs = seconds * 1000 + 30_000
    await callServer(values.config, 'capture', { path, seconds, megabytes }, patienceMs)
    process.stdout.write(`${path}\n`)
    return ExitCode.success
  },
}

function numberOf(option: string, text: string): number {
  const value = Number(text)
  if (value > 0) return value
  throw new UsageError(`${option}: expected a number above 0, not "${text}"`)
}

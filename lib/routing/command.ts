/** Runs the system's network tools: argument lists only, never a shell. */
import { execFile } from 'node:child_process'
import { MissingToolError, SystemError } from '../core/errors.ts'

/** Tool -> the Debian package that brings it. */
const packageOf = { ip: 'iproute2', nft: 'nftables' } as const

export type Tool = keyof typeof packageOf

/** A tool that has not answered for this long is stuck; it is killed. */
const commandTimeoutMs = 20_000

const maxOutputBytes = 4 * 1024 * 1024

/** The tools live in sbin, which the PATH of an ordinary user or of a service may lack. */
const { PATH: ownPath = '' } = process.env
const searchPath = `${ownPath}:/usr/sbin:/sbin:/usr/bin:/bin`

/**
 * Runs `tool` and resolves to its standard output. Rejects with MissingToolError when it is not
 * installed and with SystemError, which carries the tool's own words, when it fails.
 */
export function runTool(tool: Tool, args: readonly string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      tool,
      [...args],
      {
        encoding: 'utf8',
        timeout: commandTimeoutMs,
        maxBuffer: maxOutputBytes,
        env: { ...process.env, PATH: searchPath, LC_ALL: 'C' },
      },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout)
        else if (error.code === 'ENOENT') reject(missingTool(tool))
        else reject(new SystemError(`${[tool, ...args].join(' ')}: ${reason(error, stderr)}`))
      },
    )
    // A tool that ends before it has read everything answers with its exit code, not with EPIPE.
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(input)
  })
}

function missingTool(tool: Tool): MissingToolError {
  const name = packageOf[tool]
  return new MissingToolError(`${name} is not installed: apt-get install ${name}`)
}

function reason(error: Error & { killed?: boolean }, stderr: string): string {
  if (error.killed === true) return `no answer within ${commandTimeoutMs / 1000} s`
  const said = stderr.trim().split('\n').slice(0, 3).join('; ')
  return said === '' ? error.message : said
}

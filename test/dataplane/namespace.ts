/** Network namespaces for tests that need root: made, entered for one synchronous moment, removed. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { SystemError } from '../../lib/core/errors.ts'
import { CLONE_NEWNET, type Kernel, loadKernel, O_RDONLY } from '../../lib/dataplane/kernel.ts'

export function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Why namespaces and TUN devices cannot be used here, or undefined when they can. */
export function whyNoNamespaces(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root'
  try {
    ip('netns', 'list')
  } catch {
    return 'needs the ip command (iproute2)'
  }
  return loadKernel() instanceof SystemError ? 'needs koffi' : undefined
}

/** Runs `action`, which must not yield, with this thread inside the namespace `name`. */
export function enterNamespace<Result>(name: string, action: () => Result): Result {
  const kernel = existingKernel()
  const home = kernel.open('/proc/thread-self/ns/net', O_RDONLY)
  const there = kernel.open(`/var/run/netns/${name}`, O_RDONLY)
  if (home < 0 || there < 0 || kernel.setns(there, CLONE_NEWNET) < 0) {
    throw new SystemError(`cannot enter ${name}`)
  }
  try {
    return action()
  } finally {
    kernel.setns(home, CLONE_NEWNET)
    kernel.close(home)
    kernel.close(there)
  }
}

export class Namespace {
  readonly name: string

  constructor(label: string) {
    this.name = `ordp-${process.pid}-${label}`
    ip('netns', 'add', this.name)
    ip('-n', this.name, 'link', 'set', 'lo', 'up')
  }

  enter<Result>(action: () => Result): Result {
    return enterNamespace(this.name, action)
  }

  ip(...args: string[]): string {
    return ip('-n', this.name, ...args)
  }

  spawn(command: string, ...args: string[]): ChildProcess {
    return spawn('ip', ['netns', 'exec', this.name, command, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
  }

  remove(): void {
    ip('netns', 'delete', this.name)
  }
}

export function existingKernel(): Kernel {
  const kernel = loadKernel()
  if (kernel instanceof SystemError) throw kernel
  return kernel
}

/** Standard output of a child, when it has ended well. */
export async function outputOf(child: ChildProcess): Promise<string> {
  let text = ''
  child.stdout?.on('data', chunk => {
    text += String(chunk)
  })
  const code = await new Promise(resolve => child.once('exit', resolve))
  if (code !== 0) throw new Error(`child ended with ${String(code)}: ${text}`)
  return text
}

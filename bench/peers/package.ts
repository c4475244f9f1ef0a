/** Peers come from Debian; what is missing is installed, or its ratio is absent and the run says so. */
import { spawnSync } from 'node:child_process'

/** Whether `command` can be run, after an attempt to install `name` when it is missing. */
export function ensurePackage(command: string, name: string, say: (text: string) => void): boolean {
  if (hasCommand(command)) return true
  say(`installing ${name} ...`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const options = { stdio: 'ignore', env } as const
  const apt = ['-o', 'DPkg::Lock::Timeout=600', '-qq', '-y']
  spawnSync('apt-get', [...apt, 'update'], options)
  spawnSync('apt-get', [...apt, 'install', '--no-install-recommends', name], options)
  if (hasCommand(command)) return true
  say(`${name} is not installed and could not be: run without it, its ratios are absent`)
  return false
}

function hasCommand(command: string): boolean {
  const { PATH: path = '' } = process.env
  const env = { ...process.env, PATH: `${path}:/usr/sbin:/sbin` }
  return spawnSync('sh', ['-c', 'command -v "$0"', command], { env }).status === 0
}

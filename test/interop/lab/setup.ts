/**
 * Builds what guests run, once per machine: a User-Mode Linux kernel, which is an ordinary process
 * and brings PPP, and a root file system with Debian's VPN clients.
 */
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MissingToolError, SystemError } from '../../../lib/core/errors.ts'

/** The project's folder; this file runs from dist. */
export const projectFolder = fileURLToPath(new URL('../../../..', import.meta.url))

/** The scripts that guests see as /lab. */
export const guestFolder = join(projectFolder, 'test/interop/lab/guest')

const { OPENRAS_LAB_CACHE: cacheFolder = '/var/cache/openras-lab' } = process.env

export const guestRoot = join(cacheFolder, 'root')
export const guestKernel = join(cacheFolder, 'kernel/usr/bin/linux.uml')
const modulesFolder = join(cacheFolder, 'kernel/usr/lib/uml/modules')

const guestPackages = [
  ...['iproute2', 'iputils-ping', 'iperf3', 'kmod', 'procps', 'openssl', 'netbase', 'tcpdump'],
  ...['ppp', 'sstp-client', 'pptp-linux'],
  ...['xl2tpd', 'strongswan-charon', 'strongswan-swanctl'],
  ...['libcharon-extra-plugins', 'libcharon-extauth-plugins'],
  ...['libstrongswan-standard-plugins', 'libstrongswan-extra-plugins'],
]

export async function setUpLab(say: (text: string) => void): Promise<void> {
  if (!existsSync(guestKernel)) {
    say('fetching the User-Mode Linux kernel ...')
    fetchKernel()
  }
  const [kernelVersion] = readdirSync(modulesFolder)
  if (kernelVersion === undefined) throw new SystemError(`${modulesFolder} is empty`)
  const suite = /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  const stamp = [suite, kernelVersion, ...guestPackages].join(' ')
  const stampFile = `${guestRoot}.stamp`
  if (!existsSync(stampFile) || readFileSync(stampFile, 'utf8') !== stamp) {
    say('building the root file system of the guests (about a minute) ...')
    rmSync(guestRoot, { recursive: true, force: true })
    buildRoot(suite ?? 'bookworm', kernelVersion)
    writeFileSync(stampFile, stamp)
  }
  copyFileSync(join(guestFolder, 'init'), join(guestRoot, 'guest-init'))
  chmodSync(join(guestRoot, 'guest-init'), 0o755)
}

function fetchKernel(): void {
  const folder = mkdtempSync(join(tmpdir(), 'openras-kernel-'))
  chmodSync(folder, 0o777)
  try {
    run(folder, 'apt-get', '-qq', 'update')
    run(folder, 'apt-get', '-qq', 'download', 'user-mode-linux')
    const [file = ''] = readdirSync(folder)
    mkdirSync(join(cacheFolder, 'kernel'), { recursive: true })
    run(folder, 'dpkg-deb', '-x', file, join(cacheFolder, 'kernel'))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function buildRoot(suite: string, kernelVersion: string): void {
  const sources = ['/etc/apt/sources.list.d/debian.sources', '/etc/apt/sources.list'].find(
    existsSync,
  )
  mkdirSync(dirname(guestRoot), { recursive: true })
  run(
    cacheFolder,
    'mmdebstrap',
    '--quiet',
    '--variant=minbase',
    `--include=${guestPackages.join(',')}`,
    '--aptopt=APT::Install-Recommends "false"',
    suite,
    guestRoot,
    ...(sources === undefined ? [] : [sources]),
  )
  for (const name of ['lib/modules', 'lab', 'out', 'mnt']) {
    mkdirSync(join(guestRoot, name), { recursive: true })
  }
  run(cacheFolder, 'cp', '-a', join(modulesFolder, kernelVersion), join(guestRoot, 'lib/modules'))
  run(cacheFolder, 'chroot', guestRoot, 'depmod', kernelVersion)
}

function run(cwd: string, command: string, ...args: string[]): void {
  const { status, error } = spawnSync(command, args, { cwd, stdio: ['ignore', 2, 2] })
  if (error !== undefined) throw new MissingToolError(`${command}: ${error.message}`)
  if (status !== 0) {
    throw new SystemError(`${command} ${args[0]} ended with ${status}: is there a network?`)
  }
}

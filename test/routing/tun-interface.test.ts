import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const isRoot = process.getuid?.() === 0
const namespace = `rt${process.pid}t`
const program = fileURLToPath(new URL('./tun-process.ts', import.meta.url))

function inNamespace(...command: string[]): string {
  return execFileSync('ip', ['netns', 'exec', namespace, ...command], { encoding: 'utf8' })
}

function flush(device: string): void {
  inNamespace('ip', 'addr', 'flush', 'dev', device)
  inNamespace('ip', '-4', 'route', 'flush', 'dev', device)
  inNamespace('ip', '-6', 'route', 'flush', 'dev', device)
}

/** One line of output per step; see tun-process.ts. */
function steps(...names: string[]): string[] {
  const args = [process.execPath, ...process.execArgv, program, ...names]
  return inNamespace(...args)
    .trim()
    .split('\n')
}

const needsRoot = isRoot ? {} : { skip: 'network namespaces need root' }

t.test(
  'the TUN device gets addresses, MTU and routes, and loses them again',
  needsRoot,
  async t => {
    execFileSync('ip', ['netns', 'add', namespace])
    t.teardown(() => execFileSync('ip', ['netns', 'del', namespace]))
    inNamespace('ip', 'link', 'set', 'lo', 'up')
    inNamespace('ip', 'tuntap', 'add', 'ras0', 'mode', 'tun')

    t.same(steps('first'), ['ok'])
    t.match(inNamespace('ip', 'link', 'show', 'ras0'), /mtu 1400/)
    const addresses = inNamespace('ip', '-o', 'addr', 'show', 'dev', 'ras0')
    t.match(addresses, 'inet 10.91.0.1/32')
    t.match(addresses, 'inet6 fd91::1/128')
    t.notMatch(addresses, 'fe80', 'no link-local address of the kernel')
    t.match(inNamespace('ip', '-4', 'route'), '10.91.0.0/24 dev ras0')
    t.match(inNamespace('ip', '-6', 'route'), 'fd91::/64 dev ras0')

    flush('ras0')
    t.same(steps('first', 'second', 'teardown'), ['ok', 'ok', 'ok'], 'a change, then the end')
    t.notMatch(inNamespace('ip', '-o', 'addr', 'show', 'dev', 'ras0'), /inet6? /)
    t.notMatch(inNamespace('ip', '-4', 'route'), 'ras0')

    inNamespace('ip', 'link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'lan1')
    inNamespace('ip', 'link', 'set', 'lan0', 'up')
    inNamespace('ip', 'route', 'add', '10.91.0.0/24', 'dev', 'lan0')
    const [clash = ''] = steps('first')
    t.match(clash, /^SystemError: 10\.91\.0\.0\/24 is already routed on this machine/)
    t.match(inNamespace('ip', '-4', 'route'), '10.91.0.0/24 dev lan0', 'the other route stands')

    inNamespace('ip', 'route', 'flush', 'dev', 'lan0')
    flush('ras0')
    t.same(steps('first', 'vanish', 'teardown'), ['ok', 'ok', 'ok'], 'a vanished device is fine')
  },
)

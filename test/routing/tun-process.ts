/** Does the named steps to the TUN device `ras0` of its network namespace, and says how each went. */
import { execFileSync } from 'node:child_process'
import { parseIpv4, parseIpv6, parseIpv6Network } from '../../lib/core/ip-address.ts'
import { TunInterface, type TunSettings } from '../../lib/routing/tun-interface.ts'

const pool6 = parseIpv6Network('fd91::/64')
const first: TunSettings = {
  mtuBytes: 1400,
  serverIpv4: parseIpv4('10.91.0.1'),
  serverIpv6: parseIpv6('fd91::1'),
  ipv4Networks: [{ address: parseIpv4('10.91.0.0') ?? 0, prefixLength: 24 }],
  ipv6Networks: pool6 === undefined ? [] : [pool6],
}
const second: TunSettings = {
  ...first,
  serverIpv6: undefined,
  ipv4Networks: [{ address: parseIpv4('10.92.0.0') ?? 0, prefixLength: 24 }],
  ipv6Networks: [],
}

const tun = new TunInterface('ras0')
const steps: Record<string, () => Promise<void>> = {
  first: () => tun.configure(first),
  second: () => tun.configure(second),
  teardown: () => tun.teardown(),
  vanish: async () => {
    execFileSync('ip', ['link', 'del', 'ras0'])
  },
}

for (const name of process.argv.slice(2)) {
  const result = await steps[name]?.().then(() => 'ok', String)
  process.stdout.write(`${result}\n`)
}

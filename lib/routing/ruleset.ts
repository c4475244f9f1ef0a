/**
 * The nftables ruleset of one server, as text. Everything is in one table of our own, named after
 * the TUN device, which is unique in a network namespace: two servers never touch each other's.
 */
import { SystemError } from '../core/errors.ts'
import { formatIpv4Network, type Ipv4Network } from '../core/ip-address.ts'

export interface Ruleset {
  readonly tunName: string
  /** `serveronly`: clients reach this machine and nothing beyond it. */
  readonly access: 'all' | 'serveronly'
  /** Networks whose packets are translated; none when NAT is off. */
  readonly natNetworks: readonly Ipv4Network[]
  /** The interface that leads out; undefined means every one but the TUN device. */
  readonly natInterface: string | undefined
}

/** Linux allows more in a name (dev_valid_name), but nothing more that people use. */
const interfaceName = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/

/** The name of the table of the server on `tunName`. Throws SystemError when it is not a name. */
export function tableName(tunName: string): string {
  return `openras_${checkedName(tunName)}`
}

/** The transaction that removes the table, whether it is there or not. */
export function deleteTable(table: string): string {
  return `table inet ${table} {}\ndelete table inet ${table}\n`
}

/** The one transaction that replaces whatever a server on this TUN device left with this ruleset. */
export function formatRuleset(ruleset: Ruleset): string {
  const table = tableName(ruleset.tunName)
  const chains = [...forwardChain(ruleset), ...natChain(ruleset)]
  const body = chains.map(line => `  ${line}\n`).join('')
  return `${deleteTable(table)}table inet ${table} {\n${body}}\n`
}

function forwardChain({ access, tunName }: Ruleset): string[] {
  if (access === 'all') return []
  return [
    'chain forward {',
    '  type filter hook forward priority filter; policy accept;',
    `  iifname "${tunName}" counter drop`,
    `  oifname "${tunName}" counter drop`,
    '}',
  ]
}

function natChain({ natNetworks, natInterface, tunName }: Ruleset): string[] {
  if (natNetworks.length === 0) return []
  const networks = natNetworks.map(formatIpv4Network).join(', ')
  const out =
    natInterface === undefined
      ? `oifname != { "lo", "${tunName}" }`
      : `oifname "${checkedName(natInterface)}"`
  return [
    'chain postrouting {',
    '  type nat hook postrouting priority srcnat; policy accept;',
    `  ip saddr { ${networks} } ${out} counter masquerade`,
    '}',
  ]
}

function checkedName(name: string): string {
  if (interfaceName.test(name)) return name
  throw new SystemError(`"${name}" is not the name of a network interface`)
}

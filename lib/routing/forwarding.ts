/**
 * Lets tunnel packets through this machine: IP forwarding, NAT44 and the access rule. Everything is
 * put back by `revert`, and what a killed server left is put back by the next one to start.
 */
import type { Ipv4Network } from '../core/ip-address.ts'
import { runTool } from './command.ts'
import { isAlive, Ledger, type LedgerState, thisHolder } from './ledger.ts'
import { deleteTable, formatRuleset, tableName } from './ruleset.ts'
import { makeChange, planChange, undoChange } from './switch.ts'
import { interfaceSysctls, readSysctl, type SysctlKey } from './sysctl.ts'

export interface ForwardingSettings {
  readonly tunName: string
  readonly access: 'all' | 'serveronly'
  /** Networks that tunnels have addresses of. */
  readonly ipv4Networks: readonly Ipv4Network[]
  /** Whether tunnels have IPv6 addresses. */
  readonly hasIpv6: boolean
  /** Undefined: no NAT. `auto`: whichever interface the kernel's routes choose. */
  readonly natInterface: string | undefined
}

/** What is in force, for status and the log. */
export interface ForwardingStatus {
  /** The interface that tunnel addresses are translated on. */
  readonly natInterface: string | undefined
  /** Kernel settings that this server needs, in dotted form. */
  readonly settings: readonly string[]
  readonly table: string
}

const ipv4Forwarding = 'net/ipv4/ip_forward'
const ipv6Forwarding = 'net/ipv6/conf/all/forwarding'

export class Forwarding {
  readonly #ledger: Ledger
  #table: string | undefined

  /** `ledgerFolder` is where servers of this machine find each other; the default suits all but tests. */
  constructor(ledgerFolder?: string) {
    this.#ledger = new Ledger(ledgerFolder)
  }

  /**
   * Puts back what servers that are no longer alive changed; resolves to their tables. `apply` does
   * this too. Throws SystemError, MissingToolError or StoreError.
   */
  async recover(): Promise<string[]> {
    return this.#ledger.transact((state, save) => recoverDead(state, save))
  }

  /**
   * Brings the machine to `settings`. May be called again with others; a failure leaves what was in
   * force before. Throws SystemError, MissingToolError or StoreError.
   */
  async apply(settings: ForwardingSettings): Promise<ForwardingStatus> {
    const table = tableName(settings.tunName)
    if (this.#table !== undefined && this.#table !== table) await this.revert()
    const natInterface = settings.access === 'serveronly' ? undefined : settings.natInterface
    const ruleset = formatRuleset({
      tunName: settings.tunName,
      access: settings.access,
      natNetworks: natInterface === undefined ? [] : settings.ipv4Networks,
      natInterface: natInterface === 'auto' ? undefined : natInterface,
    })
    const wanted = wantedSettings(settings)
    await this.#ledger.transact(async (state, save) => {
      await recoverDead(state, save)
      const keys = wanted.map(([key]) => key)
      const isNew = this.#table === undefined
      // Noted before the first change, so that a kill in the middle is cleaned up after.
      replaceHolder(state, table, keys)
      save()
      try {
        for (const [key, value] of wanted) needSetting(state, save, key, value)
        await runTool('nft', ['-f', '-'], ruleset)
        this.#table = table
        releaseUnused(state)
        save()
      } catch (error) {
        if (isNew) {
          removeHolder(state, table)
          releaseUnused(state)
        }
        save()
        throw error
      }
    })
    return { natInterface, settings: wanted.map(([key]) => dotted(key)), table }
  }

  /** Puts everything back; nothing happens when nothing is in force. */
  async revert(): Promise<void> {
    const table = this.#table
    if (table === undefined) return
    this.#table = undefined
    await this.#ledger.transact(async (state, save) => {
      await runTool('nft', ['-f', '-'], deleteTable(table))
      removeHolder(state, table)
      releaseUnused(state)
      save()
    })
  }
}

/** The kernel settings that must have a value, in the order in which they must be set. */
function wantedSettings(settings: ForwardingSettings): [key: SysctlKey, value: string][] {
  if (settings.access === 'serveronly') return []
  const wanted: [SysctlKey, string][] = []
  if (settings.ipv4Networks.length > 0) wanted.push([ipv4Forwarding, '1'])
  if (settings.hasIpv6) {
    // A router ignores router advertisements unless accept_ra is 2 (Linux, ip-sysctl), and drops the
    // default route it has learned from them. Interfaces that listen to them now go on doing so.
    for (const key of interfaceSysctls('ipv6', 'accept_ra')) {
      if (listensToAdvertisements(key, settings.tunName)) wanted.push([key, '2'])
    }
    wanted.push([ipv6Forwarding, '1'])
  }
  return wanted
}

function listensToAdvertisements(acceptKey: SysctlKey, tunName: string): boolean {
  const name = acceptKey.split('/')[3] ?? ''
  if (['all', 'default', 'lo', tunName].includes(name)) return false
  const value = readSysctl(acceptKey)
  const isRouter = readSysctl(`net/ipv6/conf/${name}/forwarding`) !== '0'
  // 2 may be our own doing, or another server's: then it is still needed.
  return value === '2' || (value === '1' && !isRouter)
}

function needSetting(state: LedgerState, save: () => void, key: SysctlKey, value: string): void {
  const change = planChange(key, value)
  if (change === undefined) return
  // Somebody has turned back what another server set: what they have now is what to restore.
  const known = state.changes.findIndex(other => other.key === key)
  if (known >= 0) state.changes.splice(known, 1)
  state.changes.push(change)
  save()
  state.changes[state.changes.length - 1] = makeChange(change)
  save()
}

function replaceHolder(state: LedgerState, table: string, keys: SysctlKey[]): void {
  removeHolder(state, table)
  state.holders.push(thisHolder(table, keys))
}

function removeHolder(state: LedgerState, table: string): void {
  state.holders = state.holders.filter(
    holder => holder.pid !== process.pid || holder.table !== table,
  )
}

/** Undoes the changes that no holder needs, the latest first. */
function releaseUnused(state: LedgerState): void {
  const needed = new Set(state.holders.flatMap(holder => holder.keys))
  const unused = state.changes.filter(change => !needed.has(change.key))
  for (const change of unused.toReversed()) undoChange(change)
  state.changes = state.changes.filter(change => needed.has(change.key))
}

async function recoverDead(state: LedgerState, save: () => void): Promise<string[]> {
  const dead = state.holders.filter(holder => !isAlive(holder))
  const living = state.holders.filter(isAlive)
  const tables = dead.map(holder => holder.table)
  // A living server has the TUN device of that name again: then the table is its own.
  const stale = tables.filter(table => !living.some(holder => holder.table === table))
  if (stale.length > 0) await runTool('nft', ['-f', '-'], stale.map(deleteTable).join(''))
  state.holders = living
  releaseUnused(state)
  save()
  return stale
}

function dotted(key: SysctlKey): string {
  return key.replaceAll('/', '.')
}

/**
 * Who changed which machine-wide setting, shared by all servers of a network namespace. A setting is
 * put back when the last living server that needs it is gone, and a server that was killed is found
 * and cleaned up after by the next one to start. The ledger is in /run, like the settings themselves
 * it does not survive a restart of the machine.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { StoreError, SystemError } from '../core/errors.ts'

const holderSchema = z.strictObject({
  pid: z.int().positive(),
  /** Start of the process in clock ticks since boot: a pid alone may be used again. */
  startTicks: z.string(),
  table: z.string(),
  keys: z.array(z.string()),
})

const changeSchema = z.strictObject({
  key: z.string(),
  before: z.string(),
  set: z.string(),
  followers: z.record(z.string(), z.tuple([z.string()], z.string())).transform(followers => {
    const pairs: Record<string, readonly [string, string?]> = {}
    for (const [key, [before, after]] of Object.entries(followers)) {
      pairs[key] = after === undefined ? [before] : [before, after]
    }
    return pairs
  }),
})

const ledgerSchema = z.strictObject({
  bootId: z.string(),
  holders: z.array(holderSchema),
  changes: z.array(changeSchema),
})

export type Holder = z.infer<typeof holderSchema>
export type LedgerState = z.infer<typeof ledgerSchema>

const defaultFolder = '/run/openras'

/** How long another server may keep the ledger busy before we give up. */
const lockTimeoutMs = 10_000
const lockRetryMs = 20

export class Ledger {
  readonly #folder: string
  readonly #path: string

  constructor(folder = defaultFolder) {
    this.#folder = folder
    this.#path = join(folder, `forwarding-${networkNamespaceId()}.json`)
  }

  /**
   * Calls `work` with the state while no other server of this network namespace can. `save` writes
   * the state as it is at that moment; call it before a change is made, so that a kill between the
   * two loses nothing. Throws SystemError when the ledger stays busy.
   */
  async transact<T>(work: (state: LedgerState, save: () => void) => Promise<T>): Promise<T> {
    const lock = await takeLock()
    try {
      const state = this.#read()
      return await work(state, () => this.#write(state))
    } finally {
      await new Promise<void>(resolve => lock.close(() => resolve()))
    }
  }

  #read(): LedgerState {
    const fresh: LedgerState = { bootId: bootId(), holders: [], changes: [] }
    let text: string
    try {
      text = readFileSync(this.#path, 'utf8')
    } catch {
      return fresh
    }
    const parsed = ledgerSchema.safeParse(parseJson(text))
    if (!parsed.success) {
      throw new StoreError(
        `${this.#path} is damaged: check "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding", then remove the file`,
      )
    }
    return parsed.data.bootId === fresh.bootId ? parsed.data : fresh
  }

  #write(state: LedgerState): void {
    if (state.holders.length === 0 && state.changes.length === 0) {
      rmSync(this.#path, { force: true })
      return
    }
    try {
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
      const draft = `${this.#path}.${process.pid}`
      writeFileSync(draft, `${JSON.stringify(state, undefined, 2)}\n`, { mode: 0o600 })
      renameSync(draft, this.#path)
    } catch (error) {
      throw new StoreError(`${this.#path} could not be written`, { cause: error })
    }
  }
}

/** This process as a holder of `keys`. */
export function thisHolder(table: string, keys: string[]): Holder {
  return { pid: process.pid, startTicks: startTicks(process.pid) ?? '', table, keys }
}

export function isAlive(holder: Holder): boolean {
  return startTicks(holder.pid) === holder.startTicks
}

/** Field 22 of /proc/PID/stat; undefined when there is no such process. */
function startTicks(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The command name, in parentheses, may hold spaces; what follows its last one starts at field 3.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? undefined : fields[19]
  } catch {
    return undefined
  }
}

function networkNamespaceId(): number {
  return statSync('/proc/self/ns/net').ino
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/**
 * The lock is an abstract Unix socket: it belongs to the network namespace, as the settings do, and
 * the kernel frees it with the process that holds it, however that ends.
 */
async function takeLock(): Promise<Server> {
  for (let waitedMs = 0; waitedMs <= lockTimeoutMs; waitedMs += lockRetryMs) {
    const lock = await tryLock()
    if (lock !== undefined) return lock
    await delay(lockRetryMs)
  }
  throw new SystemError(
    `another OpenRAS process has been changing the forwarding settings for ${lockTimeoutMs / 1000} s`,
  )
}

function tryLock(): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer(socket => socket.destroy())
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(undefined)
      else reject(new SystemError('the forwarding ledger could not be locked', { cause: error }))
    })
    server.listen('\0openras-forwarding', () => resolve(server))
  })
}

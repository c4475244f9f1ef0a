/**
 * One SQLite database that the server and its commands share. SQLite here is WebAssembly, whose file
 * layer cannot share memory between processes and cannot roll a journal back after a crash. So every
 * transaction opens the file under a lock of the kernel, in exclusive mode with a write-ahead log
 * (which it does recover), and closes it again. That costs milliseconds: readers keep what they read
 * and ask `generation()` whether it still holds.
 */
import { closeSync, existsSync, openSync, readSync, rmSync, statSync } from 'node:fs'
import sqlite from 'node-sqlite3-wasm'
import { u32 } from '../core/bytes.ts'
import { messageOf, StoreError } from '../core/errors.ts'
import { withFileLock } from './file-lock.ts'

/** Where `PRAGMA user_version` stands in the file (SQLite file format §1.3). */
const USER_VERSION_AT = 60
/** How long a transaction waits for those of other processes. */
const waitMs = 2000

export type SqlValue = string | number | bigint | Uint8Array | null
export type SqlRow = Readonly<Record<string, SqlValue>>

/** What may be done inside a transaction. */
export interface Transaction {
  all(sql: string, values?: readonly SqlValue[]): readonly SqlRow[]
  /** The number of rows that changed. */
  run(sql: string, values?: readonly SqlValue[]): number
}

/** Turns schema version `i` into `i + 1`. Never edited once released, only added to. */
export type Migrations = readonly string[]

export class SqliteFile {
  readonly #path: string
  readonly #migrations: Migrations

  constructor(path: string, migrations: Migrations) {
    this.#path = path
    this.#migrations = migrations
  }

  /** Runs `work` all or nothing, after bringing the schema up to date. */
  transaction<T>(work: (transaction: Transaction) => T): T {
    try {
      return withFileLock(`${this.#path}.flock`, waitMs, () => this.#locked(work))
    } catch (thrown) {
      if (thrown instanceof StoreError) throw thrown
      throw new StoreError(`${this.#path}: ${messageOf(thrown)}`, { cause: thrown })
    }
  }

  /**
   * A number that differs after every change of the data; undefined while that cannot be known
   * without a transaction (no file yet, or a log that a crash has left).
   */
  generation(): number | undefined {
    const log = statSync(`${this.#path}-wal`, { throwIfNoEntry: false })
    if (log !== undefined && log.size > 0) return undefined
    if (!existsSync(this.#path)) return undefined
    const fd = openSync(this.#path, 'r')
    try {
      const header = new Uint8Array(4)
      return readSync(fd, header, 0, 4, USER_VERSION_AT) === 4 ? u32(header, 0) : undefined
    } finally {
      closeSync(fd)
    }
  }

  #locked<T>(work: (transaction: Transaction) => T): T {
    // Whoever made SQLite's own lock did not hold ours, so it is dead.
    rmSync(`${this.#path}.lock`, { recursive: true, force: true })
    // Made here so that the mode does not depend on the library.
    closeSync(openSync(this.#path, 'a', 0o600))
    const database = new sqlite.Database(this.#path)
    try {
      database.exec('PRAGMA locking_mode = EXCLUSIVE')
      database.exec('PRAGMA journal_mode = WAL')
      database.exec('PRAGMA synchronous = FULL')
      database.exec('PRAGMA foreign_keys = ON')
      database.exec('BEGIN IMMEDIATE')
      let changedRows = this.#migrate(database)
      const result = work({
        all: (sql, values) => database.all(sql, [...(values ?? [])]) as SqlRow[],
        run: (sql, values) => {
          const { changes } = database.run(sql, [...(values ?? [])])
          changedRows += changes
          return changes
        },
      })
      if (changedRows > 0) {
        const generation = firstNumber(database.all('PRAGMA user_version')) ?? 0
        database.exec(`PRAGMA user_version = ${(generation % 0x7fffffff) + 1}`)
      }
      database.exec('COMMIT')
      return result
    } finally {
      // An open transaction is rolled back by closing.
      database.close()
    }
  }

  /** The number of steps taken. */
  #migrate(database: InstanceType<typeof sqlite.Database>): number {
    database.exec('CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL) STRICT')
    const found = firstNumber(database.all('SELECT version FROM schema'))
    const version = found ?? 0
    if (version > this.#migrations.length) {
      throw new StoreError(
        `${this.#path} was written by a newer version of this program (schema ${version}, known ${this.#migrations.length})`,
      )
    }
    const steps = this.#migrations.slice(version)
    for (const sql of steps) database.exec(sql)
    if (found === undefined)
      database.run('INSERT INTO schema VALUES (?)', [this.#migrations.length])
    else if (steps.length > 0) {
      database.run('UPDATE schema SET version = ?', [this.#migrations.length])
    }
    return steps.length
  }
}

function firstNumber(rows: readonly object[]): number | undefined {
  const [row] = rows
  const value: unknown = row === undefined ? undefined : Object.values(row)[0]
  return value === undefined ? undefined : Number(value)
}

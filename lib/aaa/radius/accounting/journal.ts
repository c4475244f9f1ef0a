/**
 * Accounting records on disk until a server has confirmed them. Text, one line per entry: a record
 * with its number, or the numbers that are settled. Lines are gathered and written with one
 * fdatasync at a time, off the event loop.
 *
 * Segments are deleted from the oldest on, once all their records are settled: a newer one may hold
 * the news that an older one's record is.
 */
import { type FileHandle, mkdir, open, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf } from '../../../core/errors.ts'
import { Counters } from '../../../core/faults.ts'
import { type AccountingRecord, recordOf, recordText } from './record.ts'

export interface JournalEntry {
  readonly sequence: number
  readonly record: AccountingRecord
  /** When it happened, monotonic ms; absent: in an earlier run, whose clock means nothing now. */
  readonly eventMs?: number
}

export interface JournalOptions {
  readonly directory: string
  /** A segment is closed when it has grown to this, bytes. */
  readonly segmentBytes?: number
  /** Writing failed: from then on records live in memory only, until it succeeds again. */
  onFault(reason: string): void
}

const defaultSegmentBytes = 4 * 1024 * 1024

interface Segment {
  readonly path: string
  /** Records in it that are not settled. */
  readonly open: Set<number>
  sizeBytes: number
}

interface Line {
  readonly text: string
  /** Undefined: it settles. */
  readonly sequence: number | undefined
  readonly written: () => void
}

export class AccountingJournal {
  readonly #options: JournalOptions
  readonly #segments: Segment[]
  readonly #segmentOf = new Map<number, Segment>()
  readonly counters: Counters
  #current: { segment: Segment; handle: FileHandle } | undefined
  #lines: Line[] = []
  #settled: number[] = []
  #nextSequence: number
  #writing: Promise<void> | undefined

  private constructor(
    options: JournalOptions,
    segments: Segment[],
    nextSequence: number,
    counters: Counters,
  ) {
    this.#options = options
    this.#segments = segments
    this.#nextSequence = nextSequence
    this.counters = counters
    for (const segment of segments) {
      for (const sequence of segment.open) this.#segmentOf.set(sequence, segment)
    }
  }

  /** Reads what was left; `entries` are those that no server has confirmed, in order. */
  static async open(
    options: JournalOptions,
  ): Promise<{ journal: AccountingJournal; entries: JournalEntry[] }> {
    await mkdir(options.directory, { recursive: true, mode: 0o700 })
    const names = (await readdir(options.directory)).filter(name => /^\d{16}\.journal$/.test(name))
    const counters = new Counters()
    const entries = new Map<number, JournalEntry>()
    const segments: Segment[] = []
    let lastSequence = 0
    for (const name of names.sort()) {
      const path = join(options.directory, name)
      const text = await readFile(path, 'utf8')
      const segment: Segment = { path, open: new Set(), sizeBytes: text.length }
      segments.push(segment)
      for (const line of text.split('\n')) {
        if (line === '') continue
        const { added, settled } = readLine(line)
        // The last line may have been cut by a crash: nobody was told that it is safe.
        if (added === undefined && settled === undefined) counters.count('unreadable-line')
        if (added !== undefined) {
          entries.set(added.sequence, added)
          segment.open.add(added.sequence)
          lastSequence = Math.max(lastSequence, added.sequence)
        }
        for (const sequence of settled ?? []) {
          entries.delete(sequence)
          lastSequence = Math.max(lastSequence, sequence)
          for (const { open } of segments) open.delete(sequence)
        }
      }
      lastSequence = Math.max(lastSequence, Number(name.slice(0, 16)))
    }
    const journal = new AccountingJournal(options, segments, lastSequence + 1, counters)
    return { journal, entries: [...entries.values()] }
  }

  /** Resolves with the record's number when it is on disk, or when it is clear that it cannot be. */
  append(record: AccountingRecord): Promise<number> {
    const sequence = this.#nextSequence++
    const text = `{"sequence":${sequence},"record":${recordText(record)}}\n`
    return new Promise(resolve => {
      this.#lines.push({ text, sequence, written: () => resolve(sequence) })
      this.#write()
    })
  }

  /** A server has confirmed it: it is never sent again, not after a restart either. */
  settle(sequence: number): void {
    this.#settled.push(sequence)
    this.#write()
  }

  /** Records that are not settled. */
  get size(): number {
    return this.#segmentOf.size + this.#lines.length
  }

  /** Everything that was said is on disk. */
  async flush(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing
  }

  async close(): Promise<void> {
    await this.flush()
    await this.#current?.handle.close()
    this.#current = undefined
  }

  #write(): void {
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined
      if (this.#lines.length > 0 || this.#settled.length > 0) this.#write()
    })
  }

  async #writeAll(): Promise<void> {
    while (this.#lines.length > 0 || this.#settled.length > 0) {
      const lines = this.#lines.splice(0)
      const settled = this.#settled.splice(0)
      const news = settled.length === 0 ? '' : `{"settled":[${settled.join(',')}]}\n`
      try {
        await this.#writeText(lines.map(({ text }) => text).join('') + news, lines)
      } catch (error) {
        this.counters.count('write-error')
        this.#options.onFault(messageOf(error))
        await this.#current?.handle.close().catch(() => undefined)
        this.#current = undefined
      }
      for (const { written } of lines) written()
      for (const sequence of settled) this.#forget(sequence)
      await this.#prune()
    }
  }

  async #writeText(text: string, lines: readonly Line[]): Promise<void> {
    const { handle, segment } = await this.#open()
    await handle.appendFile(text)
    await handle.datasync()
    segment.sizeBytes += text.length
    for (const { sequence } of lines) {
      if (sequence === undefined) continue
      segment.open.add(sequence)
      this.#segmentOf.set(sequence, segment)
    }
  }

  async #open(): Promise<{ segment: Segment; handle: FileHandle }> {
    const { directory, segmentBytes = defaultSegmentBytes } = this.#options
    if (this.#current !== undefined && this.#current.segment.sizeBytes >= segmentBytes) {
      await this.#current.handle.close()
      this.#current = undefined
    }
    if (this.#current === undefined) {
      // Named by a number that no segment before it has.
      const number = this.#nextSequence++
      const path = join(directory, `${String(number).padStart(16, '0')}.journal`)
      const handle = await open(path, 'a', 0o600)
      const folder = await open(directory, 'r')
      await folder.sync().finally(() => folder.close())
      const segment: Segment = { path, open: new Set(), sizeBytes: 0 }
      this.#segments.push(segment)
      this.#current = { segment, handle }
    }
    return this.#current
  }

  #forget(sequence: number): void {
    this.#segmentOf.get(sequence)?.open.delete(sequence)
    this.#segmentOf.delete(sequence)
  }

  async #prune(): Promise<void> {
    for (let oldest = this.#segments[0]; oldest !== undefined; oldest = this.#segments[0]) {
      if (oldest.open.size > 0 || oldest === this.#current?.segment) return
      this.#segments.shift()
      await rm(oldest.path, { force: true }).catch(() => this.counters.count('remove-error'))
    }
  }
}

function readLine(line: string): { added?: JournalEntry; settled?: number[] } {
  const json = parseJson(line)
  if (json === null || typeof json !== 'object') return {}
  if ('settled' in json && Array.isArray(json.settled)) {
    return { settled: json.settled.filter(number => Number.isSafeInteger(number)) }
  }
  if (!('sequence' in json) || !('record' in json)) return {}
  const record = recordOf(json.record)
  const { sequence } = json
  if (record === undefined || typeof sequence !== 'number') return {}
  return Number.isSafeInteger(sequence) ? { added: { sequence, record } } : {}
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

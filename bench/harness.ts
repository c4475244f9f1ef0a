/**
 * Runs benchmarks by name: `harness.js [NAME...] [--json] [--quick]`. A table for people goes to
 * standard output, or with `--json` exactly one JSON document; progress goes to standard error.
 */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { release } from 'node:os'
import { parseArgs } from 'node:util'
import { formatTable } from '../lib/control/table.ts'
import { messageOf, UsageError } from '../lib/core/errors.ts'
import type { Bench, BenchContext, Row } from './bench.ts'
import { median, spread } from './statistics.ts'

interface ReportRow {
  readonly name: string
  readonly unit: string
  readonly median: number
  readonly spread: readonly [number, number]
  readonly ratio?: Readonly<Record<string, number>>
  readonly gbitPerCpuSecond?: number
}

const significantDigits = 4

function rounded(value: number): number {
  return Number(value.toPrecision(significantDigits))
}

function reportRow(row: Row): ReportRow {
  const [low, high] = spread(row.samples)
  const ratio = Object.entries(row.ratio ?? {}).map(([peer, value]) => [peer, rounded(value)])
  return {
    name: row.name,
    unit: row.unit,
    median: rounded(median(row.samples)),
    spread: [rounded(low), rounded(high)],
    ...(ratio.length > 0 && { ratio: Object.fromEntries(ratio) }),
    ...(row.gbitPerCpuSecond !== undefined && {
      gbitPerCpuSecond: rounded(row.gbitPerCpuSecond),
    }),
  }
}

/** What the figures were measured on. */
function machine(): Record<'commit' | 'node' | 'cpu' | 'kernel', string> {
  return { commit: commit(), node: process.version, cpu: cpu(), kernel: release() }
}

/** The commit, with `+` when the tree differs from it; `unknown` outside a clone. */
function commit(): string {
  try {
    const hash = git('rev-parse', '--short=12', 'HEAD').trim()
    const changes = git('status', '--porcelain', '-uno')
    return changes === '' ? hash : `${hash}+`
  } catch {
    return 'unknown'
  }
}

function git(...args: string[]): string {
  return execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
}

function cpu(): string {
  const text = readFileSync('/proc/cpuinfo', 'utf8')
  const count = text.match(/^processor\s*:/gm)?.length ?? 1
  const model = /^(?:model name|CPU part)\s*: (.+)$/m.exec(text)?.[1] ?? process.arch
  return `${count} x ${model}`
}

function availableNames(): string[] {
  return readdirSync(new URL('.', import.meta.url))
    .flatMap(file => /^(.+)\.bench\.js$/.exec(file)?.[1] ?? [])
    .sort()
}

async function load(name: string): Promise<Bench> {
  const module = (await import(`./${name}.bench.js`)) as { bench?: Bench }
  if (module.bench === undefined) throw new UsageError(`bench/${name}.bench.ts exports no bench`)
  return module.bench
}

function formatReport(rows: readonly ReportRow[]): string {
  return formatTable(
    rows,
    [
      { title: 'name', value: row => row.name },
      { title: 'median', value: row => row.median },
      { title: 'unit', value: row => row.unit },
      { title: 'spread', value: row => `${row.spread[0]} .. ${row.spread[1]}` },
      {
        title: 'ratio',
        value: row =>
          Object.entries(row.ratio ?? {})
            .map(([peer, value]) => `${value} x ${peer}`)
            .join(', '),
      },
      { title: 'Gbit/CPU-s', value: row => row.gbitPerCpuSecond },
    ],
    'table',
  )
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { json: { type: 'boolean' }, quick: { type: 'boolean' } },
  })
  const names = availableNames()
  const chosen = positionals.length > 0 ? positionals : names
  const unknown = chosen.filter(name => !names.includes(name))
  if (unknown.length > 0) {
    throw new UsageError(`there is no bench ${unknown.join(', ')}: ${names.join(', ')}`)
  }
  const rows: ReportRow[] = []
  const say = (text: string) => process.stderr.write(`${text}\n`)
  let code = 0
  for (const name of chosen) {
    const bench = await load(name)
    say(`${bench.name}: ${bench.about}`)
    const context: BenchContext = {
      row: row => {
        rows.push(reportRow(row))
        say(`  ${row.name}: ${rounded(median(row.samples))} ${row.unit}`)
      },
      say: text => say(`  ${text}`),
      isQuick: values.quick === true,
    }
    try {
      await bench.run(context)
    } catch (error) {
      code = 1
      say(`${bench.name} failed: ${error instanceof Error ? error.stack : messageOf(error)}`)
    }
  }
  const where = machine()
  process.stdout.write(
    values.json === true
      ? `${JSON.stringify({ ...where, rows })}\n`
      : `${where.commit}, node ${where.node}, ${where.cpu}, Linux ${where.kernel}\n${formatReport(rows)}`,
  )
  return code
}

try {
  process.exitCode = await main()
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`)
  process.exitCode = 2
}

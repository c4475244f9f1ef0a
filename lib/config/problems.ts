/** What is wrong with a configuration document: every problem at once, each with its place. */
import { isMap, isSeq, type LineCounter, type Document as YamlDocument } from 'yaml'
import type { z } from 'zod'
import { ConfigError } from '../core/errors.ts'

export type PathKey = string | number

export interface ConfigProblem {
  /** Dots and brackets: `sstp.certificates[0].key`. */
  readonly path: string
  /** From 1; absent when the place is not in the document. */
  readonly line?: number
  /** What was expected there, and what was found unless it may be secret. */
  readonly message: string
}

/** A document with at least one problem. The message lists them all. */
export class InvalidConfigError extends ConfigError {
  readonly problems: readonly ConfigProblem[]

  constructor(source: string, problems: readonly ConfigProblem[]) {
    super('', problems.map(problem => `${source}${textOf(problem)}`).join('\n'))
    this.problems = problems
  }
}

function textOf({ path, line, message }: ConfigProblem): string {
  return `${line === undefined ? '' : `:${line}`}: ${path === '' ? '' : `${path}: `}${message}`
}

/** Keys whose values are not repeated in messages. */
const secretKeys = new Set<PathKey>(['password'])

/** Finds the places of paths in a parsed document, and words what the schema found there. */
export class ProblemReporter {
  readonly #document: YamlDocument
  readonly #lines: LineCounter
  readonly #knownKeys: (path: readonly PathKey[]) => readonly string[]

  constructor(
    document: YamlDocument,
    lines: LineCounter,
    knownKeys: (path: readonly PathKey[]) => readonly string[],
  ) {
    this.#document = document
    this.#lines = lines
    this.#knownKeys = knownKeys
  }

  at(path: readonly PathKey[], message: string): ConfigProblem {
    const line = this.#lineOf(path)
    return { path: pathText(path), message, ...(line !== undefined && { line }) }
  }

  /** One problem per fault; a fault that names several keys becomes several. */
  ofIssue(issue: z.core.$ZodIssue): ConfigProblem[] {
    const path = issue.path.filter(key => typeof key !== 'symbol')
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map(key => this.at([...path, key], this.#unknownKey(path, key)))
    }
    return [this.at(path, this.#wording(issue, path))]
  }

  #unknownKey(path: readonly PathKey[], key: string): string {
    const known = this.#knownKeys(path)
    const near = known.find(candidate => isNear(candidate, key))
    const hint = near === undefined ? `one of ${known.join(', ')}` : near
    return `unknown key; expected ${hint}`
  }

  #wording(issue: z.core.$ZodIssue, path: readonly PathKey[]): string {
    if (!this.#document.hasIn(path)) return `missing; expected ${expectation(issue)}`
    if (issue.code === 'custom') return `${issue.message}, not ${this.#found(path)}`
    return `expected ${expectation(issue)}, not ${this.#found(path)}`
  }

  #found(path: readonly PathKey[]): string {
    const value: unknown = path.length === 0 ? this.#document.contents : this.#document.getIn(path)
    if (value === null || value === undefined) return 'an empty value'
    if (isMap(value)) return 'a section'
    if (isSeq(value)) return 'a list'
    if (typeof value === 'object') return 'a single value'
    if (path.some(key => secretKeys.has(key))) return 'what stands there'
    return JSON.stringify(value).slice(0, 80)
  }

  #lineOf(path: readonly PathKey[]): number | undefined {
    for (let depth = path.length; depth > 0; depth--) {
      const offset = this.#offsetOf(path.slice(0, depth))
      if (offset !== undefined) return this.#lines.linePos(offset).line
    }
    return undefined
  }

  /** Of the key in a section, of the item in a list. */
  #offsetOf(path: readonly PathKey[]): number | undefined {
    const last = path.at(-1)
    const parentPath = path.slice(0, -1)
    const parent =
      parentPath.length === 0 ? this.#document.contents : this.#document.getIn(parentPath)
    if (isMap(parent)) {
      const pair = parent.items.find(item => keyText(item.key) === String(last))
      return rangeStart(pair?.key)
    }
    return rangeStart(this.#document.getIn(path, true))
  }
}

function expectation(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return typeName(issue.expected)
    case 'invalid_value':
      return `one of ${issue.values.join(', ')}`
    case 'too_small':
      return issue.origin === 'array' || issue.origin === 'string'
        ? `at least ${issue.minimum} ${issue.origin === 'array' ? 'item' : 'character'}(s)`
        : `at least ${issue.minimum}`
    case 'too_big':
      return issue.origin === 'array' || issue.origin === 'string'
        ? `at most ${issue.maximum} ${issue.origin === 'array' ? 'item' : 'character'}(s)`
        : `at most ${issue.maximum}`
    case 'invalid_key':
      return 'a known name as key'
    default:
      return issue.message.replace(/^expected /, '')
  }
}

const typeNames: Readonly<Record<string, string>> = {
  string: 'text',
  int: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a section',
  record: 'a section',
}

function typeName(expected: string): string {
  return typeNames[expected] ?? expected
}

function keyText(key: unknown): string {
  return String(key !== null && typeof key === 'object' && 'value' in key ? key.value : key)
}

function rangeStart(node: unknown): number | undefined {
  if (node === null || typeof node !== 'object' || !('range' in node)) return undefined
  const range: unknown = node.range
  return Array.isArray(range) && typeof range[0] === 'number' ? range[0] : undefined
}

export function pathText(path: readonly PathKey[]): string {
  let text = ''
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`
    else text += text === '' ? key : `.${key}`
  }
  return text
}

/** Whether one edit, or a difference of case alone, turns one word into the other. */
function isNear(a: string, b: string): boolean {
  const [short, long] =
    a.length <= b.length ? [a.toLowerCase(), b.toLowerCase()] : [b.toLowerCase(), a.toLowerCase()]
  if (short === long) return true
  if (long.length - short.length > 1) return false
  let at = 0
  while (at < short.length && short[at] === long[at]) at++
  const isInserted = short.slice(at) === long.slice(at + 1)
  const isReplaced = short.slice(at + 1) === long.slice(at + 1) && short.length === long.length
  const isSwapped =
    short.length === long.length &&
    short[at] === long[at + 1] &&
    short[at + 1] === long[at] &&
    short.slice(at + 2) === long.slice(at + 2)
  return isInserted || isReplaced || isSwapped
}

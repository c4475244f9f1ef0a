/** The configuration: one YAML document in, one checked and complete value out. */
import { LineCounter, parseDocument } from 'yaml'
import { z } from 'zod'
import { documentSchema } from './config/document.ts'
import {
  type ConfigProblem,
  InvalidConfigError,
  type PathKey,
  ProblemReporter,
} from './config/problems.ts'
import { type Config, checkTogether, resolveConfig } from './config/resolve.ts'
import { messageOf } from './core/errors.ts'

export { defaultConfigText } from './config/default-text.ts'
export type { IpNetwork, Ipv4Range } from './config/fields.ts'
export { isUserName } from './config/fields.ts'
export { type ConfigProblem, InvalidConfigError } from './config/problems.ts'
export type { RadiusConfig, RadiusServerConfig } from './config/radius-section.ts'
export type {
  AuthMethodName,
  CertificateFiles,
  Config,
  DialIn,
  SiteConfig,
  UserConfig,
} from './config/resolve.ts'

/** Larger documents are refused unread; 100,000 users fit. */
const longestDocumentChars = 32 * 1024 * 1024

/**
 * The configuration that `text` says, `source` being its name in messages. Throws
 * `InvalidConfigError` with all problems of the document, each with line, path and what was expected.
 */
export function parseConfig(text: string, source: string): Config {
  if (text.length > longestDocumentChars) {
    throw new InvalidConfigError(source, [
      { path: '', message: 'expected a document of at most 32 MiB' },
    ])
  }
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true })
  if (document.errors.length > 0) {
    throw new InvalidConfigError(
      source,
      document.errors.map(error => ({
        path: '',
        line: lines.linePos(error.pos[0]).line,
        message: `expected YAML: ${(error.message.split('\n')[0] ?? '').replace(/ at line .*$/, '')}`,
      })),
    )
  }
  const reporter = new ProblemReporter(document, lines, knownKeys)
  const checked = documentSchema.safeParse(plainValue(() => document.toJS() ?? {}, source))
  if (!checked.success) {
    throw new InvalidConfigError(
      source,
      checked.error.issues
        .flatMap(issue => reporter.ofIssue(issue))
        .sort((a, b) => (a.line ?? 0) - (b.line ?? 0)),
    )
  }
  const problems: ConfigProblem[] = []
  checkTogether(checked.data, (path, message) => problems.push(reporter.at(path, message)))
  if (problems.length > 0) throw new InvalidConfigError(source, problems)
  return resolveConfig(checked.data)
}

/** The JSON Schema (draft 2020-12) of the document, for editors and other programs. */
export function configSchema(): Record<string, unknown> {
  return z.toJSONSchema(documentSchema, { io: 'input' })
}

/** Aliases that would unfold without bound are refused by the YAML library with an exception. */
function plainValue(read: () => unknown, source: string): unknown {
  try {
    return read()
  } catch (thrown) {
    throw new InvalidConfigError(source, [
      { path: '', message: `expected YAML: ${messageOf(thrown)}` },
    ])
  }
}

/** The keys that the schema knows in the section at `path`. */
function knownKeys(path: readonly PathKey[]): readonly string[] {
  let node: unknown = configSchema()
  for (const key of path) {
    node = typeof key === 'number' ? member(node, 'items') : member(member(node, 'properties'), key)
  }
  const properties = member(node, 'properties')
  if (properties !== undefined) return Object.keys(properties)
  const names = member(member(node, 'propertyNames'), 'enum')
  return Array.isArray(names) ? names.map(String) : []
}

function member(node: unknown, key: string): object | undefined {
  if (node === null || typeof node !== 'object') return undefined
  const value: unknown = Object.entries(node).find(([name]) => name === key)?.[1]
  return value !== null && typeof value === 'object' ? value : undefined
}

/** The filters of the configuration by name, compiled once for all sessions. */
import { type FilterRule, isFilterRule, parseFilterRule } from '../config/filter-rule.ts'
import { mostFilterRules, PacketFilter } from '../dataplane/index.ts'

/** What a session is restricted by, as its authorization or a change of it says. */
export interface FilterWish {
  readonly filterName?: string
  /** Before those of `filterName`. */
  readonly filterRules?: readonly string[]
}

export type FilterAnswer =
  /** Undefined: everything passes. */
  | { readonly type: 'filter'; readonly filter: PacketFilter | undefined }
  | { readonly type: 'unknown'; readonly reason: string }

export class FilterCatalogue {
  readonly #rules: ReadonlyMap<string, readonly FilterRule[]>
  readonly #compiled = new Map<string, PacketFilter>()

  constructor(rules: ReadonlyMap<string, readonly FilterRule[]> = new Map()) {
    this.#rules = rules
  }

  /** A wish that cannot be met is never met in part. */
  filterOf({ filterName, filterRules = [] }: FilterWish): FilterAnswer {
    const named = filterName === undefined ? [] : this.#rules.get(filterName)
    if (named === undefined) return { type: 'unknown', reason: `no filter ${filterName}` }
    if (filterRules.length === 0) {
      const filter = filterName === undefined ? undefined : this.#compiledOf(filterName, named)
      return { type: 'filter', filter }
    }
    if (filterRules.length + named.length > mostFilterRules) {
      return { type: 'unknown', reason: `more than ${mostFilterRules} filter rules` }
    }
    const rules: FilterRule[] = []
    for (const text of filterRules) {
      const parsed = parseFilterRule(text)
      if (!isFilterRule(parsed)) return { type: 'unknown', reason: `filter rule: ${parsed.error}` }
      rules.push(parsed)
    }
    return { type: 'filter', filter: new PacketFilter([...rules, ...named]) }
  }

  #compiledOf(name: string, rules: readonly FilterRule[]): PacketFilter {
    const filter = this.#compiled.get(name) ?? new PacketFilter(rules)
    this.#compiled.set(name, filter)
    return filter
  }
}

/** What is quarantined without a filter of its own gets nothing through. */
export const nothing: FilterWish = {
  filterRules: ['deny in ip from any to any', 'deny out ip from any to any'],
}

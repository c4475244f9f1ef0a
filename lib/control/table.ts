/**
 * Lists for people and for programs, from the same rows: aligned columns on a terminal, tab-separated
 * lines into a pipe, JSON on request.
 */

export type TableFormat = 'table' | 'tsv' | 'json'

export interface Column<Row> {
  readonly title: string
  /** What stands in the column; numbers are aligned to the right. */
  value(row: Row): string | number | boolean | undefined
}

/** `--json` wins; otherwise a terminal gets a table and a pipe gets tab-separated lines. */
export function chooseFormat(isJson: boolean, isTerminal: boolean): TableFormat {
  if (isJson) return 'json'
  return isTerminal ? 'table' : 'tsv'
}

/** The text of `rows`, ending in a line feed. JSON is the rows themselves, not the columns. */
export function formatTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  format: TableFormat,
): string {
  switch (format) {
    case 'json':
      return `${JSON.stringify(rows, undefined, 2)}\n`
    case 'tsv':
      return [columns.map(column => column.title), ...rows.map(row => cells(row, columns))]
        .map(line => `${line.map(oneLine).join('\t')}\n`)
        .join('')
    case 'table':
      return alignedTable(rows, columns)
  }
}

function cells<Row>(row: Row, columns: readonly Column<Row>[]): string[] {
  return columns.map(column => {
    const value = column.value(row)
    return value === undefined ? '' : String(value)
  })
}

/** User names and the like come from outside: no control character reaches a terminal or a pipe. */
function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\u{fffd}')
}

function alignedTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  if (rows.length === 0) return 'none\n'
  const lines = [
    columns.map(column => column.title.toUpperCase()),
    ...rows.map(row => cells(row, columns).map(text => (text === '' ? '-' : oneLine(text)))),
  ]
  const widths = columns.map((_, i) => Math.max(...lines.map(line => widthOf(line[i] ?? ''))))
  const isRight = columns.map(column => rows.every(row => isNumeric(column.value(row))))
  return lines
    .map(line => {
      const padded = line.map((text, i) => {
        const space = ' '.repeat((widths[i] ?? 0) - widthOf(text))
        return isRight[i] === true ? space + text : text + space
      })
      return `${padded.join('  ').trimEnd()}\n`
    })
    .join('')
}

function isNumeric(value: string | number | boolean | undefined): boolean {
  return typeof value === 'number' || value === undefined
}

/** Characters, not UTF-16 units. */
function widthOf(text: string): number {
  return [...text].length
}

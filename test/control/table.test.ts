import t from 'tap'
import { type Column, chooseFormat, formatTable } from '../../lib/control/table.ts'

interface Row {
  readonly id: number
  readonly user: string
  readonly address?: string
}
const columns: Column<Row>[] = [
  { title: 'id', value: row => row.id },
  { title: 'user', value: row => row.user },
  { title: 'address', value: row => row.address },
]
const rows: Row[] = [
  { id: 7, user: 'alice', address: '10.0.0.2' },
  { id: 12, user: 'bob' },
]

t.test('people get aligned columns, numbers to the right', async t => {
  t.equal(
    formatTable(rows, columns, 'table'),
    'ID  USER   ADDRESS\n 7  alice  10.0.0.2\n12  bob    -\n',
  )
  t.equal(formatTable([], columns, 'table'), 'none\n')
})

t.test('pipes get tab-separated lines with a header', async t => {
  t.equal(formatTable(rows, columns, 'tsv'), 'id\tuser\taddress\n7\talice\t10.0.0.2\n12\tbob\t\n')
})

t.test('programs get the rows as JSON', async t => {
  t.same(JSON.parse(formatTable(rows, columns, 'json')), rows)
})

t.test('a name cannot break a line or command the terminal', async t => {
  const evil: Row[] = [{ id: 1, user: 'a\tb\nc\u{1b}[2J\u{202e}' }]
  for (const format of ['table', 'tsv'] as const) {
    const text = formatTable(evil, columns, format)
    t.equal(text.split('\n').length, 3, format)
    t.match(text, 'a\u{fffd}b\u{fffd}c\u{fffd}[2J\u{fffd}')
  }
})

t.test('the format follows the terminal unless JSON is asked for', async t => {
  t.equal(chooseFormat(true, true), 'json')
  t.equal(chooseFormat(false, true), 'table')
  t.equal(chooseFormat(false, false), 'tsv')
})

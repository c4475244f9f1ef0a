import fc from 'fast-check'
import t from 'tap'
import { utf8 } from '../../../lib/core/bytes.ts'
import {
  acceptedText,
  HeadCollector,
  type HeadState,
  headerNames,
  MAX_HEAD_BYTES,
  notFoundText,
  parseRequest,
  parseStatusCode,
  requestText,
  SSTP_URI,
} from '../../../lib/sstp/wire/http-head.ts'

const seed = 20260102
const guid = '12345678-9abc-4def-8123-456789abcdef'

function collect(...pieces: Uint8Array[]): { state: HeadState; rest: number; lines: string[] } {
  const head = new HeadCollector()
  for (const piece of pieces) {
    const { state, used } = head.push(piece)
    if (state !== 'incomplete') {
      return { state, rest: piece.length - used, lines: state === 'complete' ? head.lines() : [] }
    }
  }
  return { state: 'incomplete', rest: 0, lines: [] }
}

const requestOf = (text: string) => parseRequest(collect(utf8(text)).lines)

t.test('the request of [MS-SSTP] 4.1 is an SSTP request', async t => {
  const text = [
    'SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1',
    'Content-Length: 18446744073709551615',
    'Host: vpn.contoso.com',
    `SSTPCORRELATIONID: {${guid.toUpperCase()}}`,
    '',
    '',
  ].join('\r\n')
  t.same(requestOf(text), { type: 'sstp', correlationId: guid })
  t.equal(requestText({ host: 'vpn.contoso.com', correlationId: guid }), text)
})

t.test('case of the URI, order of headers, other headers and HTTP/1.0 do not matter', async t => {
  const uri = SSTP_URI.toUpperCase()
  const request = requestOf(
    `SSTP_DUPLEX_POST ${uri} HTTP/1.0\r\nX-Other: a: b\r\nhost:\t h:443 \r\ncontent-length:18446744073709551615\r\nX-Other: c\r\n\r\n`,
  )
  t.same(request, { type: 'sstp', correlationId: undefined })
  for (const order of [['host'], ['sstpcorrelationid', 'host', 'content-length'], []] as const) {
    t.equal(requestOf(requestText({ host: 'h', correlationId: guid, order })).type, 'sstp')
  }
  t.equal(headerNames.length, 3)
})

t.test('a correlation id that is no GUID is not captured', async t => {
  const ids = [
    '',
    '{}',
    guid.slice(1),
    `{${guid}`,
    `${guid}0`,
    guid.replace('-', '0'),
    'x'.repeat(36),
    'a'.repeat(7000),
  ]
  for (const id of ids) {
    const request = requestOf(
      `SSTP_DUPLEX_POST ${SSTP_URI} HTTP/1.1\r\nSSTPCORRELATIONID: ${id}\r\n\r\n`,
    )
    t.same(request, { type: 'sstp', correlationId: undefined }, id.slice(0, 40))
  }
})

t.test('other HTTP is told from no HTTP', async t => {
  const other = [
    'GET / HTTP/1.1',
    'SSTP_DUPLEX_POST / HTTP/1.1',
    `sstp_duplex_post ${SSTP_URI} HTTP/1.1`,
    `SSTP_DUPLEX_POST ${SSTP_URI} HTTP/1.2`,
    `SSTP_DUPLEX_POST ${SSTP_URI} HTTP/1.1\r\nContent-Length: 18446744073709551614`,
    `SSTP_DUPLEX_POST ${SSTP_URI} HTTP/1.1\r\nContent-Length: 0`,
    `SSTP_DUPLEX_POST ${SSTP_URI} HTTP/1.1\r\nNo colon`,
    `SSTP_DUPLEX_POST ${SSTP_URI} HTTP/1.1\r\nBad name: x`,
    `SSTP_DUPLEX_POST ${SSTP_URI} HTTP/1.1\r\n folded: x`,
    `SSTP_DUPLEX_POST ${SSTP_URI} HTTP/1.1\r\n: x`,
  ]
  for (const text of other) t.equal(requestOf(`${text}\r\n\r\n`).type, 'other-http', text)
  for (const text of ['', 'x', 'GET /', 'GET  HTTP/1.1', 'GET / x HTTP/1.1', ' / HTTP/1.1']) {
    t.equal(requestOf(`${text}\r\n\r\n`).type, 'not-http', text)
  }
})

t.test('a head may come in pieces of any size, and what follows it is kept', async t => {
  const text = `${requestText({ host: 'h', correlationId: guid })}\x10\x01rest`
  const bytes = utf8(text)
  const whole = collect(bytes)
  t.equal(whole.state, 'complete')
  t.equal(whole.rest, 6)
  t.same(collect(...Array.from(bytes, byte => Uint8Array.of(byte))).lines, whole.lines)
  fc.assert(
    fc.property(fc.array(fc.nat(bytes.length), { maxLength: 6 }), cuts => {
      const at = [0, ...cuts.sort((a, b) => a - b), bytes.length]
      const pieces = at.slice(1).map((end, i) => bytes.subarray(at[i], end))
      const cut = collect(...pieces)
      t.same(cut.lines, whole.lines)
    }),
    { seed, numRuns: 100 },
  )
  t.equal(collect(utf8('a\r\r\n\r\n')).state, 'complete')
  t.equal(collect(utf8('a\r\n\n\r\n')).state, 'incomplete')
  t.equal(collect(utf8('a\n\r\n\r')).state, 'incomplete')
})

t.test('a head has a bound, and control characters end it', async t => {
  t.equal(collect(new Uint8Array(MAX_HEAD_BYTES).fill(65)).state, 'incomplete')
  t.equal(collect(new Uint8Array(MAX_HEAD_BYTES + 1).fill(65)).state, 'oversize')
  const longest = new Uint8Array(MAX_HEAD_BYTES).fill(65)
  longest.set(utf8('\r\n\r\n'), MAX_HEAD_BYTES - 4)
  t.equal(collect(longest).state, 'complete')
  for (const byte of [0, 1, 8, 11, 27, 127]) {
    t.equal(collect(Uint8Array.of(65, byte)).state, 'not-http')
  }
  t.equal(collect(Uint8Array.of(65, 0xe4)).state, 'incomplete')
})

t.test('arbitrary bytes never throw', async t => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 5 }), pieces => {
      const { lines } = collect(...pieces)
      parseRequest(lines)
      parseStatusCode(lines)
      return true
    }),
    { seed, numRuns: 2000 },
  )
  fc.assert(
    fc.property(fc.array(fc.string(), { maxLength: 5 }), lines => {
      parseRequest(lines)
      parseStatusCode(lines)
      return true
    }),
    { seed, numRuns: 2000 },
  )
  t.pass('all survived')
})

t.test('answers are HTTP', async t => {
  const accepted = acceptedText(new Date(Date.UTC(2026, 0, 2, 3, 4, 5)))
  t.equal(
    accepted,
    'HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\nDate: Fri, 02 Jan 2026 03:04:05 GMT\r\n\r\n',
  )
  t.equal(parseStatusCode(collect(utf8(accepted)).lines), 200)
  t.equal(parseStatusCode(collect(utf8(notFoundText)).lines), 404)
  for (const line of ['', 'HTTP/1.1', 'HTTP/2 200', 'HTTP/1.1 20', 'HTTP/1.1 2000', 'ICY 200 OK']) {
    t.equal(parseStatusCode([line]), undefined, line)
  }
})

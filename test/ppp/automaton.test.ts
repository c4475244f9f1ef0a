/** The automaton against the table of RFC 1661 §4.1, and the negotiation layer cell by cell. */
import t from 'tap'
import { concatBytes, fromHex, toHex } from '../../lib/core/bytes.ts'
import {
  type AutomatonCell,
  type AutomatonEvent,
  type AutomatonState,
  automatonEvents,
  automatonStates,
  isTimed,
  transition,
} from '../../lib/ppp/automaton.ts'
import {
  type Judgement,
  maxConfigure,
  maxFailure,
  maxRequests,
  maxTerminate,
  Negotiation,
  type NegotiationFailure,
  type OptionSemantics,
  restartTimerMs,
} from '../../lib/ppp/negotiation.ts'
import { encodeControlPacket, parseControlPacket } from '../../lib/ppp/wire/control-packet.ts'
import type { Option } from '../../lib/ppp/wire/option.ts'

/** RFC 1661 §4.1 as printed: states by number, actions before the slash. Its r, p and x are notes. */
const rfcTable = `
Up    2    irc,scr/6 - - - - - - - -
Down  -    - 0 tls/1 0 1 1 1 1 tld/1
Open  tls/1 1 irc,scr/6 3 5 5 6 7 8 9
Close 0    tlf/0 2 2 4 4 irc,str/4 irc,str/4 irc,str/4 tld,irc,str/4
TO+   -    - - - str/4 str/5 scr/6 scr/6 scr/8 -
TO-   -    - - - tlf/2 tlf/3 tlf/3 tlf/3 tlf/3 -
RCR+  -    - sta/2 irc,scr,sca/8 4 5 sca/8 sca,tlu/9 sca/8 tld,scr,sca/8
RCR-  -    - sta/2 irc,scr,scn/6 4 5 scn/6 scn/7 scn/6 tld,scr,scn/6
RCA   -    - sta/2 sta/3 4 5 irc/7 scr/6 irc,tlu/9 tld,scr/6
RCN   -    - sta/2 sta/3 4 5 irc,scr/6 scr/6 irc,scr/8 tld,scr/6
RTR   -    - sta/2 sta/3 sta/4 sta/5 sta/6 sta/6 sta/6 tld,zrc,sta/5
RTA   -    - 2 3 tlf/2 tlf/3 6 6 8 tld,scr/6
RUC   -    - scj/2 scj/3 scj/4 scj/5 scj/6 scj/7 scj/8 scj/9
RXJ+  -    - 2 3 4 5 6 6 8 9
RXJ-  -    - tlf/2 tlf/3 tlf/2 tlf/3 tlf/3 tlf/3 tlf/3 tld,irc,str/5
RXR   -    - 2 3 4 5 6 7 8 ser/9
`

function asPrinted(cell: AutomatonCell): string {
  if (cell === null) return '-'
  const actions = cell.actions.length > 0 ? `${cell.actions.join(',')}/` : ''
  return `${actions}${automatonStates.indexOf(cell.next)}`
}

t.test('every cell is that of RFC 1661 §4.1', async t => {
  const rows = rfcTable.trim().split('\n')
  t.equal(rows.length, automatonEvents.length)
  for (const [i, event] of automatonEvents.entries()) {
    const [name = '', ...cells] = (rows[i] ?? '').split(/\s+/)
    t.equal(name.toLowerCase(), event)
    t.equal(cells.length, automatonStates.length, `row ${name}`)
    for (const [j, state] of automatonStates.entries()) {
      t.equal(asPrinted(transition(state, event)), cells[j], `${name} in ${state}`)
    }
  }
})

t.test('the restart timer runs in the states of RFC 1661 §4.2', async t => {
  t.same(automatonStates.filter(isTimed), [
    'closing',
    'stopping',
    'req-sent',
    'ack-rcvd',
    'ack-sent',
  ])
})

/** Options of type 1 are fine, 2 are Naked, 3 are rejected, 4 are essential and Naked. */
class PlainSemantics implements OptionSemantics {
  readonly isUnmistakable = false
  restarts = 0
  value = 7
  failure: NegotiationFailure | undefined

  restart(): void {
    this.restarts++
  }

  request(): readonly Option[] {
    return [{ type: 1, data: Uint8Array.of(this.value) }]
  }

  judge(options: readonly Option[]): Judgement {
    const type = options[0]?.type ?? 1
    if (type === 3) return { type: 'reject', options }
    if (type === 2 || type === 4) return { type: 'nak', options, isEssential: type === 4 }
    return { type: 'ack' }
  }

  accept(): void {
    // Any value will do.
  }

  naked(options: readonly Option[]): NegotiationFailure | undefined {
    this.value = options[0]?.data[0] ?? this.value
    return this.failure
  }

  rejected(): NegotiationFailure | undefined {
    return this.failure
  }
}

class Rig {
  readonly semantics = new PlainSemantics()
  /** What happened, in order: codes as `<1`, layer actions, failures. */
  log: string[] = []
  sent: Uint8Array[] = []
  deadlineMs: number | undefined
  nowMs = 0
  onUp = () => {}
  onDown = () => {}
  readonly negotiation: Negotiation = new Negotiation(this.semantics, {
    send: packet => {
      this.sent.push(packet)
      this.log.push(`send-${packet[0]}`)
    },
    setTimer: deadlineMs => {
      this.deadlineMs = deadlineMs
    },
    clearTimer: () => {
      this.deadlineMs = undefined
    },
    layerUp: () => {
      this.log.push('tlu')
      this.onUp()
    },
    layerDown: () => {
      this.log.push('tld')
      this.onDown()
    },
    layerFinished: () => this.log.push('tlf'),
    failed: failure => this.log.push(failure),
    peerTerminated: text => this.log.push(`terminated ${text ?? ''}`.trim()),
    extension: packet => (packet.code === 9 ? 'echo' : packet.code === 12 ? 'taken' : 'unknown'),
    replyEcho: () => this.log.push('ser'),
    codeRejected: code => this.log.push(`refused-${code}`),
    peerMruBytes: () => 64,
    permitsReject: () => true,
    unexpected: counter => this.log.push(`? ${counter}`),
  })

  receive(code: number, identifier: number, dataHex: string): void {
    const bytes = encodeControlPacket({ code, identifier, data: fromHex(dataHex) })
    this.negotiation.receive(bytes, 0, bytes.length, this.nowMs)
    bytes.fill(0xa5)
  }

  /** The identifier and data of our last Configure-Request. */
  lastRequest(): { identifier: number; hex: string } {
    const request = this.sent.filter(packet => packet[0] === 1).at(-1) ?? new Uint8Array(4)
    const { identifier, data } = parseControlPacket(request, 0)
    return { identifier, hex: toHex(data) }
  }

  ack(): void {
    const { identifier, hex } = this.lastRequest()
    this.receive(2, identifier, hex)
  }

  request(identifier = 50, hex = '010309'): void {
    this.receive(1, identifier, hex)
  }

  takeLog(): string[] {
    return this.log.splice(0)
  }

  /** Brings the automaton into `state` by the shortest way. */
  reach(state: AutomatonState): this {
    const { negotiation } = this
    const steps: Record<AutomatonState, () => void> = {
      initial: () => {},
      starting: () => negotiation.open(0),
      closed: () => negotiation.up(0),
      'req-sent': () => {
        negotiation.open(0)
        negotiation.up(0)
      },
      'ack-rcvd': () => {
        this.reach('req-sent')
        this.ack()
      },
      'ack-sent': () => {
        this.reach('req-sent')
        this.request()
      },
      opened: () => {
        this.reach('ack-sent')
        this.ack()
      },
      closing: () => {
        this.reach('opened')
        negotiation.close(0)
      },
      stopping: () => {
        this.reach('opened')
        this.receive(5, 60, '')
      },
      stopped: () => {
        this.reach('stopping')
        negotiation.restartTimer(0)
      },
    }
    steps[state]()
    return this
  }

  fire(event: AutomatonEvent): void {
    const { negotiation } = this
    switch (event) {
      case 'up':
        negotiation.up(0)
        return
      case 'down':
        negotiation.down(0)
        return
      case 'open':
        negotiation.open(0)
        return
      case 'close':
        negotiation.close(0)
        return
      case 'to+':
      case 'to-':
        negotiation.restartTimer(0)
        return
      case 'rcr+':
        this.request(51)
        return
      case 'rcr-':
        this.receive(1, 51, '020309')
        return
      case 'rca':
        this.ack()
        return
      case 'rcn':
        this.receive(3, this.lastRequest().identifier, '01030a')
        return
      case 'rtr':
        this.receive(5, 61, '')
        return
      case 'rta':
        this.receive(6, 61, '')
        return
      case 'ruc':
        this.receive(99, 61, '')
        return
      case 'rxj+':
        this.receive(7, 61, '0c000004')
        return
      case 'rxj-':
        negotiation.protocolRejected(0)
        return
      case 'rxr':
        this.receive(9, 61, '00000000')
        return
    }
  }
}

/** Cells that packets and timers cannot reach through the negotiation layer, and why. */
const unreachable: Readonly<Record<string, string>> = {
  'rca in ack-rcvd': 'an answer to a request counts once',
  'rcn in ack-rcvd': 'an answer to a request counts once',
  'rca in opened': 'an answer to a request counts once',
  'rcn in opened': 'an answer to a request counts once',
  'to- in ack-rcvd': 'irc on RCA: the counter is full in this state',
}

const sends: Readonly<Record<string, string>> = {
  scr: 'send-1',
  sca: 'send-2',
  scn: 'send-3',
  str: 'send-5',
  sta: 'send-6',
  scj: 'send-7',
}

t.test('the negotiation layer does what each cell says', async t => {
  let visited = 0
  for (const state of automatonStates) {
    for (const event of automatonEvents) {
      const cell = transition(state, event)
      const name = `${event} in ${state}`
      const rig = new Rig().reach(state)
      t.equal(rig.negotiation.state, state)
      if (event === 'to-' && isTimed(state) && !(name in unreachable)) {
        // Uses up the restart counter; the state stays, except that stopping has none left anyway.
        const left = state === 'closing' ? maxTerminate - 1 : maxConfigure - 1
        for (let i = 0; i < left && state !== 'stopping'; i++) rig.negotiation.restartTimer(0)
      }
      if (event === 'to+' && state === 'stopping') {
        // Stopping after RXJ- has a counter; after RTR it has none.
        const other = new Rig().reach('opened')
        other.negotiation.protocolRejected(0)
        other.takeLog()
        other.fire(event)
        t.equal(other.negotiation.state, 'stopping', name)
        t.same(other.takeLog(), ['send-5'], name)
        visited++
        continue
      }
      rig.takeLog()
      rig.fire(event)
      if (cell === null || name in unreachable) {
        t.equal(rig.negotiation.state, name === 'to- in ack-rcvd' ? 'req-sent' : state, name)
        continue
      }
      visited++
      const expected = cell.actions
        .filter(action => action !== 'irc' && action !== 'zrc' && action !== 'tls')
        .map(action => sends[action] ?? action)
      const seen = rig
        .takeLog()
        .filter(entry => !entry.startsWith('?') && !/^(refused|terminated)/.test(entry))
      t.equal(rig.negotiation.state, cell.next, name)
      t.same(seen, expected, name)
      t.equal(rig.deadlineMs !== undefined, isTimed(cell.next), `${name}: timer`)
    }
  }
  const cells = automatonStates.flatMap(s => automatonEvents.map(e => transition(s, e)))
  t.equal(visited, cells.filter(c => c !== null).length - Object.keys(unreachable).length)
})

t.test('a packet before the layer has started changes nothing and is counted', async t => {
  for (const state of ['initial', 'starting'] as const) {
    const rig = new Rig().reach(state)
    for (const code of [1, 2, 3, 4, 5, 6, 7, 9, 99]) rig.receive(code, 1, '')
    t.equal(rig.negotiation.state, state)
    t.same(new Set(rig.log), new Set(['? layer-not-started']))
  }
})

t.test('a Configure-Request is sent ten times, three seconds apart, then given up', async t => {
  const rig = new Rig().reach('req-sent')
  const first = rig.lastRequest()
  for (let i = 1; i < maxConfigure; i++) {
    rig.nowMs += restartTimerMs
    t.equal(rig.deadlineMs, rig.nowMs)
    rig.negotiation.restartTimer(rig.nowMs)
  }
  t.same(rig.lastRequest(), first, 'a retransmission is the same packet')
  t.equal(rig.sent.length, maxConfigure)
  rig.negotiation.restartTimer(rig.nowMs)
  t.equal(rig.negotiation.state, 'stopped')
  t.equal(rig.log.at(-1), 'tlf')
})

t.test('a changed request has a new identifier', async t => {
  const rig = new Rig().reach('req-sent')
  const { identifier } = rig.lastRequest()
  rig.receive(3, identifier, '01030b')
  t.same(rig.lastRequest(), { identifier: identifier + 1, hex: '01030b' })
})

t.test('answers with another identifier, other options or in duplicate are dropped', async t => {
  const rig = new Rig().reach('req-sent')
  const { identifier, hex } = rig.lastRequest()
  rig.receive(2, identifier + 1, hex)
  rig.receive(2, identifier, '010308')
  rig.receive(4, identifier, '020308')
  rig.receive(4, identifier, '')
  rig.receive(3, identifier, '0100')
  t.equal(rig.negotiation.state, 'req-sent')
  rig.receive(2, identifier, hex)
  rig.receive(2, identifier, hex)
  t.equal(rig.negotiation.state, 'ack-rcvd')
  t.same(
    rig.log.filter(entry => entry.startsWith('?')),
    [
      '? stale-answer',
      '? ack-of-other-options',
      '? reject-of-other-options',
      '? reject-of-other-options',
      '? malformed-length-too-small',
      '? stale-answer',
    ],
  )
})

t.test('an Ack echoes its request byte for byte, an empty one too (SoftEther)', async t => {
  for (const hex of ['', '0105deadbe', '010309 01030a']) {
    const rig = new Rig().reach('req-sent')
    rig.receive(1, 77, hex)
    const ack = rig.sent.at(-1) ?? new Uint8Array(0)
    const data = fromHex(hex)
    t.same(ack, concatBytes(Uint8Array.of(2, 77, 0, 4 + data.length), data))
    t.equal(rig.negotiation.state, 'ack-sent')
  }
})

t.test('after Max-Failure Naks what would be Naked is rejected', async t => {
  const rig = new Rig().reach('req-sent')
  for (let i = 0; i < maxFailure; i++) rig.receive(1, i, '020309')
  rig.takeLog()
  rig.receive(1, 99, '020309')
  t.same(rig.takeLog(), ['send-4'])
  t.equal(rig.negotiation.state, 'req-sent')
})

t.test('an essential option that never agrees ends negotiation after Max-Failure', async t => {
  const rig = new Rig().reach('req-sent')
  for (let i = 0; i < maxFailure; i++) rig.receive(1, i, '040309')
  rig.takeLog()
  rig.receive(1, 99, '040309')
  t.same(rig.takeLog(), ['no-convergence'])
})

t.test('Configure-Requests and Naks without end are bounded', async t => {
  const flooded = new Rig().reach('req-sent')
  for (let i = 0; i < maxRequests * 3; i++) flooded.receive(1, i & 255, '030309')
  t.equal(flooded.sent.length, 1 + maxRequests)
  t.equal(flooded.log.filter(entry => entry === 'no-convergence').length, 1)
  const naked = new Rig().reach('req-sent')
  for (let i = 0; i < maxRequests * 3; i++) naked.fire('rcn')
  t.equal(naked.sent.length, maxRequests)
  t.equal(naked.log.at(-1)?.startsWith('?'), true)
})

t.test('a Configure-Request in Opened restarts negotiation (RFC 1661 §4.3)', async t => {
  const rig = new Rig().reach('opened')
  const { restarts } = rig.semantics
  rig.takeLog()
  rig.request(52)
  t.same(rig.takeLog(), ['tld', 'send-1', 'send-2'])
  t.equal(rig.semantics.restarts, restarts + 1)
  rig.ack()
  t.same(rig.takeLog(), ['tlu'])
})

t.test('a copy of the acknowledged request gets its Ack again, a few times, soon', async t => {
  const rig = new Rig().reach('opened')
  rig.takeLog()
  for (let i = 0; i < 3; i++) {
    rig.nowMs += 3000
    rig.request()
    t.same(rig.takeLog(), ['? retransmitted-request', 'send-2'])
    t.equal(rig.negotiation.state, 'opened')
  }
  rig.request()
  t.equal(rig.negotiation.state, 'ack-sent')
  const late = new Rig().reach('opened')
  late.nowMs += 11_000
  late.request()
  t.equal(late.negotiation.state, 'ack-sent', 'too late to be a retransmission')
})

t.test('a Code-Reject of 1 to 7 is fatal, of others is not', async t => {
  for (const code of ['01', '05', '07']) {
    const rig = new Rig().reach('opened')
    rig.takeLog()
    rig.receive(7, 9, `${code}000004`)
    t.same(rig.takeLog(), ['? code-rejected', 'code-rejected', 'tld', 'send-5'])
  }
  const rig = new Rig().reach('opened')
  rig.takeLog()
  rig.receive(7, 9, '09000004')
  rig.receive(7, 9, '')
  t.same(rig.takeLog(), ['? code-rejected', 'refused-9', '? malformed-truncated'])
  t.equal(rig.negotiation.state, 'opened')
})

t.test('a Code-Reject is cut to the MRU of the peer', async t => {
  const rig = new Rig().reach('opened')
  rig.receive(99, 9, '00'.repeat(200))
  t.equal(rig.sent.at(-1)?.length, 64)
})

t.test('Close from inside this-layer-up comes after the rest of the cell', async t => {
  const rig = new Rig().reach('ack-rcvd')
  rig.onUp = () => rig.negotiation.close(0)
  rig.takeLog()
  rig.request()
  t.same(rig.takeLog(), ['send-2', 'tlu', 'tld', 'send-5'])
  t.equal(rig.negotiation.state, 'closing')
})

t.test('a late or early timer is harmless', async t => {
  for (const state of ['initial', 'starting', 'closed', 'stopped', 'opened'] as const) {
    const rig = new Rig().reach(state)
    rig.takeLog()
    rig.negotiation.restartTimer(1e9)
    t.same(rig.takeLog(), [], state)
    t.equal(rig.negotiation.state, state)
  }
})

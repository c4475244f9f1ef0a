import fc from 'fast-check'
import t, { type Test } from 'tap'
import { toHex } from '../../lib/core/bytes.ts'
import { type Machine, timeout } from '../../lib/core/machine.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import type { CallEvent, CallInput, CallOutput, closingRows } from '../../lib/sstp/call-state.ts'
import {
  type ClientAction,
  ClientCallMachine,
  type ClientCallState,
  clientCallTable,
} from '../../lib/sstp/client-call-machine.ts'
import { callConnectedBytes } from '../../lib/sstp/crypto-binding.ts'
import {
  type ServerAction,
  ServerCallMachine,
  type ServerCallState,
  serverCallTable,
} from '../../lib/sstp/server-call-machine.ts'
import { type Attribute, type HashName, Status } from '../../lib/sstp/wire/attribute.ts'
import { messageBytes, parseMessage } from '../../lib/sstp/wire/message.ts'

const certificate = new Uint8Array(600).fill(0x30)
const key = new Uint8Array(32).fill(0x4b)
const noValue = new Uint8Array(0)

type CallMachine = Machine<CallInput, CallOutput> & { readonly state: string }

/** Drives a machine and shows what it does, as text: `call-abort 5`, `link-down user-request`. */
class Rig {
  readonly machine: CallMachine
  nowMs = 1000
  nonce: Uint8Array = new Uint8Array(32)

  constructor(make: (nowMs: number) => CallMachine) {
    this.machine = make(this.nowMs)
  }

  static server(hashes: readonly HashName[] = ['sha256', 'sha1']): Rig {
    const random = new SeededRandom(3)
    return new Rig(nowMs => new ServerCallMachine({ hashes, certificate, random }, nowMs))
  }

  static client(hashes: readonly HashName[] = ['sha256', 'sha1']): Rig {
    const rig = new Rig(nowMs => new ClientCallMachine({ hashes, certificate }, nowMs))
    rig.outputs()
    return rig
  }

  get state(): string {
    return this.machine.state
  }

  give(input: CallInput): string[] {
    this.machine.handle(input, this.nowMs)
    return this.outputs()
  }

  /** Bytes stand at an offset in a larger buffer, which is overwritten afterwards. */
  control(message: Uint8Array): string[] {
    const bytes = new Uint8Array(message.length + 9).fill(0xa5)
    bytes.set(message, 5)
    this.machine.handle({ type: 'control', bytes, at: 5, end: 5 + message.length }, this.nowMs)
    bytes.fill(0xa5)
    return this.outputs()
  }

  advance(byMs: number): string[] {
    this.nowMs += byMs
    this.machine.handle(timeout, this.nowMs)
    return this.outputs()
  }

  outputs(): string[] {
    const said: string[] = []
    for (let out = this.machine.poll(); out !== undefined; out = this.machine.poll()) {
      if (out.type === 'transmit') said.push(this.#describe(out.bytes))
      else if (out.event.type === 'remark') said.push(`remark ${out.event.reason}`)
      else if ('cause' in out.event) said.push(`${out.event.type} ${out.event.cause}`)
      else if ('hash' in out.event) said.push(`${out.event.type} ${out.event.hash}`)
      else said.push(out.event.type)
    }
    return said
  }

  #describe(bytes: Uint8Array): string {
    const { name, attributes } = parseMessage(bytes, 0)
    const [first] = attributes
    if (first?.type === 'crypto-binding-request') this.nonce = first.nonce
    return first?.type === 'status-info' ? `${name} ${first.status}` : `${name}`
  }
}

const protocol = (value: number): Attribute => ({
  type: 'encapsulated-protocol-id',
  protocol: value,
})
const status = (value: number): Attribute => ({
  type: 'status-info',
  attributeId: 0,
  status: value,
  value: noValue,
})
const bindingRequest = (hashBitmask: number): Attribute => ({
  type: 'crypto-binding-request',
  hashBitmask,
  nonce: new Uint8Array(32).fill(6),
})
const connectRequest = messageBytes('call-connect-request', protocol(1))
const unknownMessage = Uint8Array.of(0x10, 1, 0, 8, 0, 99, 0, 0)

function connected(rig: Rig, options: { hash?: HashName; key?: Uint8Array } = {}): Uint8Array {
  return callConnectedBytes(options.hash ?? 'sha256', rig.nonce, certificate, options.key ?? key)
}

/** How to get into each state. */
const serverIn: Record<ServerCallState, () => Rig> = {
  'server-connect-request-pending': () => Rig.server(),
  'server-call-connected-pending': () => {
    const rig = Rig.server()
    rig.control(connectRequest)
    return rig
  },
  'server-call-connected': () => {
    const rig = serverIn['server-call-connected-pending']()
    rig.give({ type: 'authenticated', higherLayerKey: key })
    rig.control(connected(rig))
    return rig
  },
  ...closingStates(() => serverIn['server-call-connected']()),
}

const clientIn: Record<ClientCallState, () => Rig> = {
  'client-connect-request-sent': () => Rig.client(),
  'client-connect-request-acknowledged': () => {
    const rig = Rig.client()
    rig.control(messageBytes('call-connect-ack', bindingRequest(3)))
    return rig
  },
  'client-call-connected': () => {
    const rig = clientIn['client-connect-request-acknowledged']()
    rig.give({ type: 'authenticated', higherLayerKey: key })
    return rig
  },
  ...closingStates(() => clientIn['client-call-connected']()),
}

function closingStates(up: () => Rig): Record<keyof typeof closingRows, () => Rig> {
  const after = (change: (rig: Rig) => unknown) => () => {
    const rig = up()
    change(rig)
    return rig
  }
  return {
    'call-abort-pending': after(rig => rig.control(unknownMessage)),
    'call-abort-timeout-pending': after(rig => rig.control(messageBytes('call-abort'))),
    'call-disconnect-ack-pending': after(rig =>
      rig.give({ type: 'hang-up', cause: 'idle-timeout' }),
    ),
    'call-disconnect-timeout-pending': after(rig => rig.control(messageBytes('call-disconnect'))),
    'call-disconnected': after(rig => rig.give({ type: 'transport-closed' })),
  }
}

/** How to make each event happen; undefined where its timer does not run in that state. */
function happen(rig: Rig, event: CallEvent): string[] | undefined {
  switch (event) {
    case 'call-connect-request':
      return rig.control(connectRequest)
    case 'call-connect-ack':
      return rig.control(messageBytes(event, bindingRequest(2)))
    case 'call-connect-nak':
      return rig.control(messageBytes(event, status(4)))
    case 'call-connected':
      return rig.control(connected(rig))
    case 'call-abort':
    case 'call-disconnect':
      return rig.control(messageBytes(event, status(0)))
    case 'call-disconnect-ack':
    case 'echo-request':
    case 'echo-response':
      return rig.control(messageBytes(event))
    case 'unknown-message':
      return rig.control(unknownMessage)
    case 'bad-attributes':
      return rig.control(messageBytes('echo-request', protocol(1)))
    case 'authenticated':
      return rig.give({ type: event, higherLayerKey: key })
    case 'hang-up':
      return rig.give({ type: event, cause: 'admin-reset' })
    case 'transport-closed':
      return rig.give({ type: event })
    case 'echo-expired':
      if (!rig.state.endsWith('call-connected')) return undefined
      rig.advance(60_000)
      return rig.advance(60_000)
    case 'negotiation-expired':
      return /pending$|sent$|acknowledged$/.test(rig.state) && !rig.state.startsWith('call-')
        ? rig.advance(60_000)
        : undefined
    case 'hello-expired':
      return rig.state.endsWith('call-connected') ? rig.advance(60_000) : undefined
    case 'closing-expired':
      return rig.state.startsWith('call-') && rig.state !== 'call-disconnected'
        ? rig.advance(5_000)
        : undefined
  }
}

interface Effect {
  /** Messages sent, with their status. */
  readonly sends?: string
  /** The state afterwards; without one it stays. */
  readonly next?: string
  /** Events beside remarks and link-down. */
  readonly says?: string
}

/** What each action of the tables must amount to, for the inputs above. */
const effects: Record<ServerAction | ClientAction, Effect> = {
  ignore: {},
  alive: {},
  unaccepted: { sends: 'call-abort 5', next: 'call-abort-pending' },
  complain: { sends: 'call-abort 9', next: 'call-abort-pending' },
  'consider-bad-attributes': { sends: 'call-abort 9', next: 'call-abort-pending' },
  invalid: { sends: 'call-abort 7', next: 'call-abort-pending' },
  'answer-abort': { sends: 'call-abort', next: 'call-abort-timeout-pending' },
  'abort-answered': { next: 'call-abort-timeout-pending' },
  'answer-disconnect': { sends: 'call-disconnect-ack', next: 'call-disconnect-timeout-pending' },
  disconnect: { sends: 'call-disconnect', next: 'call-disconnect-ack-pending' },
  'negotiation-timeout': { sends: 'call-abort 8', next: 'call-abort-pending' },
  close: { next: 'call-disconnected', says: 'close' },
  'answer-echo': { sends: 'echo-response' },
  'send-echo': { sends: 'echo-request' },
  'echo-timeout': { sends: 'call-abort', next: 'call-abort-pending' },
  'consider-request': {
    sends: 'call-connect-ack',
    next: 'server-call-connected-pending',
    says: 'link-open',
  },
  'take-binding': {},
  'take-key': {},
  'take-acknowledgement': { next: 'client-connect-request-acknowledged', says: 'link-open' },
  'give-up': { sends: 'call-abort 4', next: 'call-abort-pending' },
  bind: { sends: 'call-connected', next: 'client-call-connected', says: 'traffic-permitted' },
}

function checkTable<State extends string, Action extends ServerAction | ClientAction>(
  t: Test,
  table: Record<State, Record<CallEvent, Action>>,
  enter: Record<State, () => Rig>,
): void {
  const unreachable: string[] = []
  for (const state of Object.keys(table) as State[]) {
    for (const event of Object.keys(table[state]) as CallEvent[]) {
      const cell = `${event} in ${state}`
      const action = table[state][event]
      const rig = enter[state]()
      t.equal(rig.state, state)
      const said = happen(rig, event)
      if (said === undefined) {
        t.equal(action, 'ignore', `${cell}: its timer does not run there`)
        unreachable.push(cell)
        continue
      }
      const effect = effects[action]
      const sent = said.filter(text => /^(call|echo)-/.test(text))
      const told = said.filter(text => /^(link-open|traffic|close)/.test(text))
      t.equal(sent.join(), effect.sends ?? '', `${cell} sends`)
      t.equal(rig.state, effect.next ?? state, `${cell} goes on`)
      t.equal(told.map(text => text.split(' ')[0]).join(), effect.says ?? '', `${cell} says`)
    }
  }
  t.equal(unreachable.length, 4 * Object.keys(table).length - reachableTimers, 'timers elsewhere')
}

/** Negotiation in two states, hello and echo in one, closing in four. */
const reachableTimers = 2 + 2 + 4

t.test('every cell of the server table ([MS-SSTP] 3.3)', async t => {
  checkTable(t, serverCallTable, serverIn)
})

t.test('every cell of the client table ([MS-SSTP] 3.2)', async t => {
  checkTable(t, clientCallTable, clientIn)
})

t.test('a server and a client machine agree', async t => {
  for (const hash of ['sha1', 'sha256'] as const) {
    const server = new ServerCallMachine(
      { hashes: ['sha256', 'sha1'], certificate, random: new SeededRandom(5) },
      0,
    )
    const client = new ClientCallMachine({ hashes: [hash], certificate }, 0)
    const events: string[] = []
    const carry = (from: CallMachine, to: CallMachine) => {
      for (let out = from.poll(); out !== undefined; out = from.poll()) {
        if (out.type === 'event') events.push(out.event.type)
        else {
          const { bytes } = out
          to.handle({ type: 'control', bytes, at: 0, end: bytes.length }, 0)
        }
      }
    }
    carry(client, server)
    carry(server, client)
    carry(client, server)
    client.handle({ type: 'authenticated', higherLayerKey: key }, 0)
    carry(client, server)
    t.equal(server.state, 'server-call-connected-pending', 'held until PPP knows')
    server.handle({ type: 'authenticated', higherLayerKey: key }, 0)
    carry(server, client)
    t.equal(server.state, 'server-call-connected')
    t.same(events, ['link-open', 'link-open', 'traffic-permitted', 'traffic-permitted'])
    client.handle({ type: 'hang-up', cause: 'user-request' }, 0)
    carry(client, server)
    carry(server, client)
    carry(client, server)
    t.equal(client.state, 'call-disconnected')
  }
})

t.test('a Call-Connected is verified whether it comes before or after the key', async t => {
  for (const isEarly of [true, false]) {
    const rig = serverIn['server-call-connected-pending']()
    const steps = [
      () => rig.control(connected(rig)),
      () => rig.give({ type: 'authenticated', higherLayerKey: key }),
    ]
    if (!isEarly) steps.reverse()
    t.same(steps[0]?.(), [])
    t.equal(rig.state, 'server-call-connected-pending')
    t.same(steps[1]?.(), ['traffic-permitted sha256'])
    t.equal(rig.state, 'server-call-connected')
    t.equal(rig.machine.nextDeadlineMs(), rig.nowMs + 60_000, 'hello in place of negotiation')
  }
})

t.test('a binding that is wrong in any way is answered with an abort', async t => {
  const forged = (name: string, make: (rig: Rig) => Uint8Array, expected: string[]) => {
    for (const isEarly of [true, false]) {
      const rig = serverIn['server-call-connected-pending']()
      const authenticate = () => rig.give({ type: 'authenticated', higherLayerKey: key })
      const said: string[] = []
      if (!isEarly) said.push(...authenticate())
      said.push(...rig.control(make(rig)))
      if (isEarly) said.push(...authenticate())
      const [remark = '', abort = ''] = expected
      t.same(said, [remark, 'link-down protocol-error', abort], name)
      t.equal(rig.state, 'call-abort-pending')
    }
  }
  forged('wrong key', rig => connected(rig, { key: new Uint8Array(32) }), [
    'remark binding-mac',
    'call-abort 4',
  ])
  forged('stale nonce', () => callConnectedBytes('sha256', new Uint8Array(32), certificate, key), [
    'remark binding-nonce',
    'call-abort 4',
  ])
  forged(
    'certificate of somebody in between',
    rig => callConnectedBytes('sha256', rig.nonce, new Uint8Array(600), key),
    ['remark binding-certificate', 'call-abort 4'],
  )
  for (const bit of [0, 3, 4]) {
    forged(
      `hash protocol ${bit}`,
      rig => {
        const message = connected(rig)
        message[15] = bit
        return message
      },
      ['remark binding-hash-not-offered', 'call-abort 4'],
    )
  }
  forged('no binding', () => messageBytes('call-connected'), [
    'remark bad-attributes',
    `call-abort ${Status['required-attribute-missing']}`,
  ])
  forged('a protocol id', () => messageBytes('call-connected', protocol(1)), [
    'remark bad-attributes',
    `call-abort ${Status['attrib-not-supported-in-msg']}`,
  ])
  forged('a status', () => messageBytes('call-connected', status(0)), [
    'remark bad-attributes',
    `call-abort ${Status['status-info-not-supported-in-msg']}`,
  ])
  forged(
    'two bindings',
    rig => {
      const [binding] = parseMessage(connected(rig), 0).attributes
      return binding === undefined ? noValue : messageBytes('call-connected', binding, binding)
    },
    ['remark bad-attributes', `call-abort ${Status['duplicate-attribute']}`],
  )
  forged(
    'a short binding',
    () =>
      messageBytes('call-connected', {
        type: 'wrong-length',
        attributeId: 3,
        value: new Uint8Array(99),
      }),
    ['remark bad-attributes', `call-abort ${Status['invalid-attrib-value-length']}`],
  )
})

t.test('a hash that was not offered is refused though everything else is right', async t => {
  const rig = Rig.server(['sha256'])
  rig.control(connectRequest)
  rig.give({ type: 'authenticated', higherLayerKey: key })
  const said = rig.control(connected(rig, { hash: 'sha1' }))
  t.same(said, ['remark binding-hash-not-offered', 'link-down protocol-error', 'call-abort 4'])
})

t.test('a second Call-Connected while the first waits is an error', async t => {
  const rig = serverIn['server-call-connected-pending']()
  t.same(rig.control(connected(rig)), [])
  const said = rig.control(connected(rig))
  t.same(said, ['remark unaccepted-message', 'link-down protocol-error', 'call-abort 5'])
  t.same(rig.give({ type: 'authenticated', higherLayerKey: key }), [], 'nothing is verified now')
})

t.test('a wrong Call-Connect-Request may be repeated three times', async t => {
  const wrong: Record<string, Uint8Array> = {
    'another protocol': messageBytes('call-connect-request', protocol(2)),
    'an unknown attribute': messageBytes('call-connect-request', protocol(1), {
      type: 'unknown',
      attributeId: 9,
      value: new Uint8Array(200),
    }),
  }
  for (const [name, message] of Object.entries(wrong)) {
    const rig = Rig.server()
    const code = name === 'another protocol' ? 4 : 2
    for (let i = 0; i < 3; i++) {
      const expected = ['remark connect-refused', `call-connect-nak ${code}`]
      t.same(rig.control(message), expected, name)
    }
    t.same(rig.control(message), ['remark retry-count-exceeded', 'call-abort 6'], name)
    const patient = Rig.server()
    patient.control(message)
    t.same(patient.control(connectRequest), ['call-connect-ack', 'link-open'], name)
  }
  const missing = Rig.server().control(messageBytes('call-connect-request'))
  t.same(missing, ['remark bad-attributes', 'call-abort 10'])
  const rig = Rig.server()
  const withStatus = messageBytes('call-connect-request', protocol(1), status(3))
  t.same(rig.control(withStatus), ['remark bad-attributes', 'call-abort 11'])
  const harmless = messageBytes('call-connect-request', protocol(1), status(0))
  t.same(Rig.server().control(harmless), ['call-connect-ack', 'link-open'])
})

t.test('a refused value comes back in the Status Info, up to 64 bytes', async t => {
  const machine = new ServerCallMachine(
    { hashes: ['sha256'], certificate, random: new SeededRandom(1) },
    0,
  )
  const value = new Uint8Array(200).fill(0x77)
  const unknown = { type: 'unknown', attributeId: 9, value } as const
  const bytes = messageBytes('call-connect-request', protocol(1), unknown)
  machine.handle({ type: 'control', bytes, at: 0, end: bytes.length }, 0)
  machine.poll()
  const out = machine.poll()
  if (out?.type !== 'transmit') throw new Error('nothing was sent')
  const [info] = parseMessage(out.bytes, 0).attributes
  t.same(info, {
    type: 'status-info',
    attributeId: 9,
    status: Status['unrecognized-attribute'],
    value: value.subarray(0, 64),
  })
})

t.test('lengths that lie end the call without a word', async t => {
  for (const make of [serverIn['server-call-connected'], clientIn['client-call-connected']]) {
    const rig = make()
    const said = rig.control(Uint8Array.of(0x10, 1, 0, 12, 0, 8, 0, 1, 0, 1, 0, 3))
    t.same(said, ['remark undelineable', 'link-down protocol-error', 'close protocol-error'])
  }
})

t.test('silence is met with an echo, and then with an abort', async t => {
  for (const make of [serverIn['server-call-connected'], clientIn['client-call-connected']]) {
    const rig = make()
    t.same(rig.advance(59_999), [])
    t.same(rig.advance(1), ['echo-request'])
    t.same(rig.advance(59_999), [])
    rig.give({ type: 'received' })
    t.same(rig.advance(1), [], 'any traffic is an answer')
    t.same(rig.advance(59_999), ['echo-request'])
    t.same(rig.control(messageBytes('echo-response')), [])
    t.same(rig.advance(60_000), ['echo-request'])
    t.same(rig.advance(60_000), ['remark echo-timeout', 'link-down lost-carrier', 'call-abort'])
    t.same(rig.advance(3_000), ['close lost-carrier'])
  }
})

t.test('the timers of the specification run for its times', async t => {
  const pending = Rig.server()
  t.same(pending.advance(59_999), [])
  t.same(pending.control(connectRequest), ['call-connect-ack', 'link-open'])
  t.same(pending.advance(59_999), [], 'each of the two waits has its own 60 s')
  t.same(pending.advance(1), [
    'remark negotiation-timeout',
    'link-down setup-timeout',
    'call-abort 8',
  ])
  t.same(pending.advance(2_999), [], 'ABORT_STATE_TIMER_1')
  t.same(pending.control(messageBytes('call-abort')), [])
  t.same(pending.advance(999), [], 'ABORT_STATE_TIMER_2')
  t.same(pending.advance(1), ['close setup-timeout'])
  const leaving = serverIn['server-call-connected']()
  t.same(leaving.give({ type: 'hang-up', cause: 'idle-timeout' }), ['call-disconnect'])
  t.same(leaving.advance(4_999), [], 'DISCONNECT_TIMER_1')
  t.same(leaving.advance(1), ['close idle-timeout'])
  const left = serverIn['server-call-connected']()
  const said = left.control(messageBytes('call-disconnect'))
  t.same(said, ['link-down user-request', 'call-disconnect-ack'])
  t.same(left.advance(999), [], 'DISCONNECT_TIMER_2')
  t.same(left.advance(1), ['close user-request'])
  t.equal(left.machine.nextDeadlineMs(), Number.POSITIVE_INFINITY)
})

t.test('late and early timeouts are harmless', async t => {
  for (const make of [...Object.values(serverIn), ...Object.values(clientIn)]) {
    const rig = make()
    const { state } = rig
    t.same(rig.advance(0), [])
    t.equal(rig.state, state)
    rig.advance(10 * 60_000)
    for (let i = 0; i < 10; i++) rig.advance(10 * 60_000)
    t.equal(rig.state, 'call-disconnected', `${state} ends when nobody answers`)
    t.equal(rig.machine.nextDeadlineMs(), Number.POSITIVE_INFINITY)
  }
})

t.test('the client binds with the strongest hash both sides know', async t => {
  const cases: [readonly HashName[], number, string | undefined][] = [
    [['sha1', 'sha256'], 3, 'sha256'],
    [['sha1'], 3, 'sha1'],
    [['sha1', 'sha256'], 1, 'sha1'],
    [['sha256'], 1, undefined],
    [['sha1', 'sha256'], 0, undefined],
  ]
  for (const [hashes, bitmask, hash] of cases) {
    const rig = Rig.client(hashes)
    const said = rig.control(messageBytes('call-connect-ack', bindingRequest(bitmask)))
    if (hash === undefined) t.same(said, ['remark bad-attributes', 'call-abort 4'])
    else {
      t.same(said, ['link-open'])
      const bound = rig.give({ type: 'authenticated', higherLayerKey: key })
      t.same(bound, ['call-connected', `traffic-permitted ${hash}`])
    }
  }
})

t.test('a nonce is used once', async t => {
  const random = new SeededRandom(11)
  const nonces = new Set<string>()
  for (let i = 0; i < 50; i++) {
    const rig = new Rig(
      nowMs => new ServerCallMachine({ hashes: ['sha256'], certificate, random }, nowMs),
    )
    rig.control(connectRequest)
    nonces.add(toHex(rig.nonce))
  }
  t.equal(nonces.size, 50)
})

t.test('arbitrary sequences of inputs never throw, and link and close are said once', async t => {
  const pool: ((rig: Rig) => string[])[] = [
    rig => rig.control(connectRequest),
    rig => rig.control(messageBytes('call-connect-ack', bindingRequest(3))),
    rig => rig.control(messageBytes('call-connect-nak', status(4))),
    rig => rig.control(connected(rig)),
    rig => rig.control(messageBytes('call-abort')),
    rig => rig.control(messageBytes('call-disconnect')),
    rig => rig.control(messageBytes('call-disconnect-ack')),
    rig => rig.control(messageBytes('echo-request')),
    rig => rig.control(unknownMessage),
    rig => rig.give({ type: 'authenticated', higherLayerKey: key }),
    rig => rig.give({ type: 'hang-up', cause: 'user-request' }),
    rig => rig.give({ type: 'transport-closed' }),
    rig => rig.give({ type: 'received' }),
    rig => rig.advance(1_000),
    rig => rig.advance(60_000),
  ]
  const step = fc.oneof(
    { weight: 9, arbitrary: fc.constantFrom(...pool) },
    {
      weight: 1,
      arbitrary: fc
        .uint8Array({ minLength: 4, maxLength: 40 })
        .map(bytes => (rig: Rig) => rig.control(bytes)),
    },
  )
  for (const make of [() => Rig.server(), () => Rig.client()]) {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), steps => {
        const rig = make()
        const said = steps.flatMap(one => one(rig))
        const times = (prefix: string) => said.filter(text => text.startsWith(prefix)).length
        return (
          times('link-open') <= 1 &&
          times('link-down') <= times('link-open') &&
          times('close') <= 1 &&
          times('traffic-permitted') <= 1
        )
      }),
      { seed: 20260104, numRuns: 3000 },
    )
  }
  t.pass('all held')
})

/**
 * Every protocol with every way to log in that its stock client has, judged by our own users and by
 * Debian's FreeRADIUS, and accounted in FreeRADIUS's own records each time. The two judges know
 * different passwords: who comes in was judged by the one that was meant.
 */
import { copyFileSync } from 'node:fs'
import { type CaseContext, CheckError, expect, type InteropCase } from './interop-case.ts'
import type { Guest } from './lab/guest.ts'
import { address, tunnel } from './lab/lab.ts'
import {
  certificateName,
  RadiusServer,
  radiusPassword,
  radiusSection,
} from './lab/radius-server.ts'

const judges = ['local', 'FreeRADIUS'] as const
type Judge = (typeof judges)[number]

const passwords: Readonly<Record<Judge, string>> = {
  local: 'the password that we know',
  FreeRADIUS: radiusPassword,
}

const preSharedKey = 'a long and random preshared key'
/** All dial at once, in a guest that has one processor. */
const dialTimeoutMs = 120_000

/** By what it is called; the users are called as their method, but for the one with the certificate. */
const pppMethods = {
  PAP: 'pap',
  CHAP: 'chap',
  'MS-CHAPv2': 'mschap-v2',
  'EAP-MSCHAPv2': 'eap-mschapv2',
  'EAP-TLS': 'eap-tls',
} as const
const ikev2Methods = {
  'EAP-MSCHAPv2': 'eap-mschapv2',
  'EAP-TLS': 'eap-tls',
  'EAP-TTLS with EAP-MSCHAPv2': 'eap-ttls',
} as const

const noEapInIke = 'IKEv2 has EAP alone for users (RFC 7296 §2.16)'
const noPeapInPppd = 'pppd 2.4.9 has no PEAP'

interface Parts {
  readonly context: CaseContext
  readonly guest: Guest
  readonly radius: RadiusServer
  readonly judge: Judge
}

function userOf(method: string): string {
  return method === 'eap-tls' ? certificateName : method
}

async function inGuest(guest: Guest, script: string): Promise<string> {
  const { code, output } = await guest.run(`. /lab/aaa.sh; ${script}`, dialTimeoutMs)
  if (code !== 0) throw new CheckError(`${script}\n${output.split('\n').slice(-30).join('\n')}`)
  return output
}

async function startServer(context: CaseContext, judge: Judge) {
  const users = [...Object.values(pppMethods), ...Object.values(ikev2Methods)].map(userOf)
  return await context.startServer({
    l2tp: { preSharedKeys: [{ key: preSharedKey }] },
    pptp: { enabled: true, encryption: 'optional' },
    sections: {
      users: [...new Set(users)].map(name => ({ name, password: passwords.local })),
      eap: { methods: ['tls', 'ttls', 'mschapv2'], clientAuthorities: [context.ca.certificate] },
      radius: judge === 'local' ? { ...radiusSection, authentication: {} } : radiusSection,
    },
  })
}

/** `carried`: bytes that the client sent at least. */
async function isAccounted(
  { radius, judge }: Parts,
  { method, protocol, carried }: { method: string; protocol: string; carried: number },
): Promise<void> {
  const naming = {
    'User-Name': userOf(method),
    'NAS-Port-Id': protocol,
    'Acct-Authentic': judge === 'local' ? 'Local' : 'RADIUS',
  }
  const start = await radius.record({ ...naming, 'Acct-Status-Type': 'Start' })
  const id = start.get('Acct-Session-Id') ?? ''
  expect(start.get('Framed-IP-Address')?.startsWith('10.77.0.') === true, 'no address is accounted')
  const stop = await radius.record({ 'Acct-Session-Id': id, 'Acct-Status-Type': 'Stop' })
  const sent = Number(stop.get('Acct-Input-Octets'))
  expect(sent >= carried, `${sent} bytes are accounted of ${carried} and more`)
  const cause = stop.get('Acct-Terminate-Cause')
  expect(cause === 'User-Request', `Acct-Terminate-Cause is ${cause}`)
  const own = radius.records().filter(record => record.get('Acct-Session-Id') === id)
  expect(own.length === 2, `${own.length} records instead of 2`)
}

/** IP packets of a ping of 56 bytes. */
const pingBytes = 84

interface PppClient {
  readonly protocol: string
  readonly mostAtOnce: number
  /** What else it cannot do, and why not. */
  readonly cannot: Readonly<Record<string, string>>
  /** Dials with the calls that are given by number. */
  dial(numbers: string): string
  /** Of pppd, for a method. */
  optionsOf(method: string): string
}

async function judgePpp(client: PppClient, parts: Parts): Promise<void> {
  const methods = Object.entries(pppMethods)
  for (let first = 0; first < methods.length; first += client.mostAtOnce) {
    await judgeSideBySide(client, parts, methods.slice(first, first + client.mostAtOnce))
  }
}

/** One call for each of the methods, by title and name, all at the same time. */
async function judgeSideBySide(
  client: PppClient,
  parts: Parts,
  methods: readonly (readonly [string, string])[],
): Promise<void> {
  const { context, guest, judge } = parts
  const { protocol } = client
  const logins = methods.map(
    ([, method], number) =>
      `login ${number} ${method} '${userOf(method)}' '${passwords[judge]}' ${client.optionsOf(method)}`,
  )
  await context.check(`${judge}: ${methods.length} dial at the same time`, async () => {
    const numbers = methods.map((_, number) => number).join(' ')
    await inGuest(guest, `${logins.join('; ')}; ${client.dial(numbers)}`)
  })
  for (const [number, [title]] of methods.entries()) {
    await context.check(`${judge}: ${title}: connects and carries packets`, async () => {
      await inGuest(
        guest,
        `has_call ${number} && ping -c 3 -i 0.2 -W 2 -I ppp${number} ${tunnel.server}`,
      )
    })
  }
  await context.check(`${judge}: ${methods.length} hang up`, async () => {
    await inGuest(guest, 'calls_down')
  })
  for (const [title, method] of methods) {
    await context.check(`${judge}: ${title}: FreeRADIUS has its start and its stop`, () =>
      isAccounted(parts, { method, protocol, carried: 3 * pingBytes }),
    )
  }
}

async function judgeIkev2(parts: Parts): Promise<void> {
  const { context, guest, judge } = parts
  for (const [title, method] of Object.entries(ikev2Methods)) {
    const connection = `${address.server} ${method} '${userOf(method)}' '${passwords[judge]}'`
    await context.check(`${judge}: ${title}: connects and carries packets`, async () => {
      await inGuest(guest, `user_connection ${connection}; charon_start && charon_up lab`)
      await inGuest(guest, `ping -c 3 -i 0.2 -W 2 ${tunnel.server}`)
    })
    await inGuest(guest, 'charon_stop')
    await context.check(`${judge}: ${title}: FreeRADIUS has its start and its stop`, () =>
      isAccounted(parts, { method, protocol: 'ikev2', carried: 3 * pingBytes }),
    )
  }
}

async function withBothJudges(
  context: CaseContext,
  work: (parts: Parts) => Promise<void>,
): Promise<void> {
  const { ca, lab } = context
  const radius = new RadiusServer(lab, ca)
  const guest = await lab.guest(11)
  const client = ca.issueClient('client', certificateName)
  copyFileSync(ca.certificate, `${guest.folder}/ca.crt`)
  copyFileSync(client.cert, `${guest.folder}/client.crt`)
  copyFileSync(client.key, `${guest.folder}/client.key`)
  await radius.start()
  try {
    for (const judge of judges) {
      const server = await startServer(context, judge)
      await work({ context, guest, radius, judge })
      await server.stop()
    }
  } finally {
    await radius.stop()
  }
}

function pppCase(client: PppClient): InteropCase {
  return {
    name: `aaa-${client.protocol}`,
    async run(context) {
      context.cannot('PEAP', noPeapInPppd)
      for (const [what, reason] of Object.entries(client.cannot)) context.cannot(what, reason)
      await withBothJudges(context, parts => judgePpp(client, parts))
    },
  }
}

const aaaIkev2: InteropCase = {
  name: 'aaa-ikev2',
  async run(context) {
    for (const title of ['PAP', 'CHAP', 'MS-CHAPv2']) context.cannot(title, noEapInIke)
    context.cannot('PEAP', "Debian's strongSwan is built without it")
    await withBothJudges(context, judgeIkev2)
  },
}

export const aaaCases = [
  pppCase({
    protocol: 'sstp',
    mostAtOnce: 5,
    cannot: {},
    dial: numbers => `sstp_calls ${address.server} ${numbers}`,
    optionsOf: () => '',
  }),
  pppCase({
    protocol: 'l2tp',
    // Of one peer the server takes no more tunnels.
    mostAtOnce: 4,
    cannot: {},
    dial: numbers =>
      `transport_connection ${address.server} '${preSharedKey}'; charon_start && charon_up lab && l2tp_calls ${address.server} ${numbers}`,
    optionsOf: () => '',
  }),
  pppCase({
    protocol: 'pptp',
    mostAtOnce: 5,
    cannot: { 'PAP and CHAP with MPPE': 'MPPE has its keys from MS-CHAPv2 or EAP (RFC 3079)' },
    dial: numbers => `pptp_calls ${address.server} ${numbers}`,
    optionsOf: method => (method === 'pap' || method === 'chap' ? 'nomppe' : 'require-mppe-128'),
  }),
  aaaIkev2,
]

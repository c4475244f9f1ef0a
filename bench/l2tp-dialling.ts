/** Our client roles of L2TP/IPsec at end A of a wire, as programs of their own. */
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { firstOutput, stop, type Wire } from './namespaces.ts'

const clientProgram = fileURLToPath(new URL('./l2tp-client.js', import.meta.url))
const callsProgram = fileURLToPath(new URL('./l2tp-calls.js', import.meta.url))
/** For many calls to come up: for the first, and for each, ms. */
const startTimeoutMs = 60_000
const callTimeoutMs = 100
/** Addresses at end A, one for each of many calls. */
const callersNetwork = '10.201.0.0/16'
const firstCaller = '10.201.0.1'

/** What a server at end B knows of its clients. */
export interface L2tpAccount {
  readonly preSharedKey: string
  readonly userName: string
  readonly password: string
}

export interface L2tpCallsResult {
  readonly calls: number
  readonly seconds: number
}

/** One call, which is up when this resolves, and the name of its TUN device. Throws SystemError. */
export async function dialL2tp(
  wire: Wire,
  account: L2tpAccount,
  cipher: string,
): Promise<{ readonly client: ChildProcess; readonly tunName: string }> {
  const client = spawnDialler(wire, clientProgram, account, wire.a.address, [
    cipher,
    account.userName,
  ])
  const [, , tunName = ''] = (await firstOutput(client, 'the client')).trim().split(' ')
  return { client, tunName }
}

/** Dials calls from one process and calls `whileUp` while all are up. Throws SystemError. */
export async function withL2tpCalls(
  wire: Wire,
  account: L2tpAccount,
  cipher: string,
  { calls, parallel }: { readonly calls: number; readonly parallel: number },
  whileUp: (result: L2tpCallsResult) => Promise<void>,
): Promise<void> {
  wire.exec(wire.a, 'ip', 'route', 'replace', 'local', callersNetwork, 'dev', 'lo')
  wire.exec(wire.b, 'ip', 'route', 'replace', callersNetwork, 'via', wire.a.address)
  const dialler = spawnDialler(wire, callsProgram, account, firstCaller, [
    ...[cipher, account.userName],
    ...[String(calls), String(parallel)],
  ])
  const line = await firstOutput(dialler, 'the dialler', startTimeoutMs + calls * callTimeoutMs)
  await whileUp(JSON.parse(line) as L2tpCallsResult)
  await stop(dialler, 60_000)
}

function spawnDialler(
  wire: Wire,
  path: string,
  { preSharedKey, password }: L2tpAccount,
  own: string,
  args: readonly string[],
): ChildProcess {
  const dialler = wire.spawn(
    wire.a,
    process.execPath,
    [path, wire.b.address, own, preSharedKey, ...args],
    { stdio: ['pipe', 'pipe', 'ignore'] },
  )
  dialler.stdin?.end(password)
  return dialler
}

/** Our IKEv2 server at end B of a wire, as a program of its own. */
import type { ChildProcess } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { firstOutput, type Wire } from './namespaces.ts'

const program = fileURLToPath(new URL('../bin/openras.js', import.meta.url))
const collector = new URL('./collect-garbage.js', import.meta.url).href

export const user = { name: 'bench', password: 'bench-password' }
/** The server's address in the tunnel. */
export const tunnelServer = '10.87.0.1'

/** Where the server keeps its certificate and its users. */
export function stateFolder(folder: string): string {
  return join(folder, 'state')
}

/** `ikev2` is that section of its configuration. Throws SystemError when it does not start. */
export async function startIkev2Server(
  wire: Wire,
  folder: string,
  ikev2: Readonly<Record<string, unknown>>,
): Promise<ChildProcess> {
  const config = join(folder, 'openras.yaml')
  const document = {
    users: [user],
    state: { directory: stateFolder(folder) },
    sstp: { enabled: false },
    ikev2,
    // Ten thousand idle calls, and the one that carries traffic.
    limits: { sessions: 0 },
    log: { level: 'warn' },
  }
  writeFileSync(config, stringify(document), { mode: 0o600 })
  const args = ['--import', collector, program, 'serve', '--config', config]
  const server = wire.spawn(wire.b, process.execPath, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await firstOutput(server, 'the server')
  return server
}

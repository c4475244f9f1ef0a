/** What the RADIUS benches stand on: FreeRADIUS on the loopback, clients of it, and time that can hurry. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Lockout } from '../lib/aaa/lockout.ts'
import { RadiusClient } from '../lib/aaa/radius/client.ts'
import { nasAttributes } from '../lib/aaa/radius/nas.ts'
import { type Clock, systemClock } from '../lib/core/clock.ts'
import { silentLogger } from '../lib/core/log.ts'
import { systemRandom } from '../lib/core/random.ts'
import { Secret } from '../lib/core/secret.ts'
import { TimerWheel } from '../lib/core/timers.ts'
import { FreeRadius } from '../test/support/freeradius.ts'

export const nas = { name: 'vpn.bench', address: '127.0.0.1' } as const
export const password = 'a password of the bench'

/** Locks nobody out. */
export const noLockout = new Lockout(
  {
    attemptsPerUser: Number.POSITIVE_INFINITY,
    attemptsPerAddress: Number.POSITIVE_INFINITY,
    windowMs: 1,
    durationMs: 1,
  },
  systemClock,
)

const secret = 'a shared secret of the bench'
const loopback = '127.0.0.1'

/** Runs `factor` times as fast as the clock on the wall, and stands still nowhere. */
export class HurriedClock implements Clock {
  #baseMs = systemClock.nowMs()
  #sinceMs = this.#baseMs
  #factor = 1

  nowMs(): number {
    return this.#baseMs + (systemClock.nowMs() - this.#sinceMs) * this.#factor
  }

  hurry(factor: number): void {
    this.#baseMs = this.nowMs()
    this.#sinceMs = systemClock.nowMs()
    this.#factor = factor
  }
}

export class RadiusBench {
  readonly clock = new HurriedClock()
  readonly wheel = new TimerWheel(this.clock.nowMs())
  readonly folder: string
  readonly server: FreeRadius
  readonly #ports: { readonly authentication: number; readonly accounting: number }
  readonly #clients: RadiusClient[] = []

  private constructor(folder: string, ports: { authentication: number; accounting: number }) {
    this.folder = folder
    this.#ports = ports
    this.server = new FreeRadius({
      folder: join(folder, 'freeradius'),
      address: loopback,
      ports,
      client: loopback,
      secret,
      users: [`DEFAULT Cleartext-Password := "${password}"`],
    })
    this.wheel.start(this.clock)
  }

  /** Throws SystemError when FreeRADIUS does not start. */
  static async open(): Promise<RadiusBench> {
    const folder = mkdtempSync(join(tmpdir(), 'openras-radius-bench-'))
    const [authentication, accounting] = [await freePort(), await freePort()]
    const bench = new RadiusBench(folder, { authentication, accounting })
    await bench.server.start()
    return bench
  }

  client(purpose: 'access' | 'accounting', totalMs: number): RadiusClient {
    const { clock, wheel } = this
    const client = new RadiusClient({
      servers: [
        {
          address: loopback,
          port: purpose === 'access' ? this.#ports.authentication : this.#ports.accounting,
          secret: Secret.fromText(secret),
          needsMessageAuthenticator: true,
          score: 30,
          timeoutMs: 2000,
          tries: 2,
          deadTimeMs: 30_000,
          isProbed: true,
        },
      ],
      purpose,
      totalMs,
      identity: nasAttributes(nas),
      clock,
      wheel,
      random: systemRandom,
      log: silentLogger,
    })
    this.#clients.push(client)
    return client
  }

  async close(): Promise<void> {
    for (const client of this.#clients) client.close()
    this.wheel.stop()
    await this.server.stop()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

async function freePort(): Promise<number> {
  const socket = createSocket('udp4')
  socket.bind(0, loopback)
  await once(socket, 'listening')
  const { port } = socket.address()
  socket.close()
  return port
}

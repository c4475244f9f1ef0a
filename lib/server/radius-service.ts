/** RADIUS as the server uses it: who judges users, who is told of sessions, who may change them. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Authenticator } from '../aaa/authenticator.ts'
import { FallbackAuthenticator } from '../aaa/fallback-authenticator.ts'
import type { Lockout } from '../aaa/lockout.ts'
import { Accountant } from '../aaa/radius/accounting/accountant.ts'
import { RadiusClient, type RadiusServerEndpoint } from '../aaa/radius/client.ts'
import { DynamicAuthorization } from '../aaa/radius/dynamic-authorization.ts'
import { DynamicAuthorizationListener } from '../aaa/radius/dynamic-authorization-listener.ts'
import { type NasIdentity, nasAttributes } from '../aaa/radius/nas.ts'
import { RadiusAuthenticator } from '../aaa/radius/radius-authenticator.ts'
import type { SessionRegistry } from '../aaa/session-registry.ts'
import type { Config, RadiusServerConfig } from '../config.ts'
import { toHex } from '../core/bytes.ts'
import { type Clock, systemWallClock } from '../core/clock.ts'
import { ConfigError, messageOf } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import type { TimerWheel } from '../core/timers.ts'
import type { EapConversationMaker } from '../eap/conversation.ts'
import { relayedConversations } from '../eap/relay.ts'
import { serverAddresses } from './server-addresses.ts'

export interface RadiusServices {
  readonly sessions: SessionRegistry
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
}

export interface RadiusStatus {
  readonly authentication?: RadiusGroupStatus
  readonly accounting?: RadiusGroupStatus & { readonly waiting: number; readonly isDown: boolean }
  /** What dynamic authorization did and dropped, by name. */
  readonly dynamic?: Record<string, number>
}

interface RadiusGroupStatus {
  readonly servers: ReturnType<RadiusClient['status']>
  readonly counters: Record<string, number>
}

/** How long the last records may take when the server stops, ms. */
const farewellMs = 2000

export class RadiusService {
  readonly #config: Config
  readonly #services: RadiusServices
  readonly #log: Logger
  readonly #nas: NasIdentity
  readonly #authentication: RadiusClient | undefined
  readonly #accounting: RadiusClient | undefined
  #accountant: Accountant | undefined
  #dynamic: DynamicAuthorization | undefined
  #listener: DynamicAuthorizationListener | undefined

  /** Throws ConfigError when a file of a server cannot be read. */
  constructor(config: Config, services: RadiusServices, log: Logger) {
    this.#config = config
    this.#services = services
    this.#log = log
    const { nasAddress, authentication, accounting } = config.radius
    this.#nas = {
      name: config.server.name,
      ...(nasAddress !== undefined && { address: nasAddress }),
    }
    this.#authentication = this.#client('access', authentication)
    this.#accounting = this.#client('accounting', accounting)
  }

  /** Who judges users with these methods; `local` when no server is named, or none answers. */
  authenticator(methods: readonly string[], local: Authenticator, lockout: Lockout): Authenticator {
    if (this.#authentication === undefined) return local
    const radius = this.#judge(this.#authentication, methods, lockout)
    const { fallsBackToLocal } = this.#config.radius.authentication
    return fallsBackToLocal ? new FallbackAuthenticator(radius, local) : radius
  }

  /** EAP conversations that the servers hold; undefined when we hold them. */
  conversations(lockout: Lockout): EapConversationMaker | undefined {
    if (this.#authentication === undefined) return undefined
    if (!this.#config.radius.authentication.relaysEap) return undefined
    return relayedConversations(this.#judge(this.#authentication, [], lockout))
  }

  /** Takes up the accounting of an earlier run and opens the port. Throws BindError. */
  async start(): Promise<void> {
    const { radius, state } = this.#config
    const { sessions, clock, wheel, random } = this.#services
    if (this.#accounting !== undefined) {
      this.#accountant = await Accountant.open({
        exchange: this.#accounting,
        sessions,
        nas: this.#nas,
        instance: toHex(randomBytes(random, 12)),
        directory: join(state.directory, 'accounting'),
        interimIntervalMs: radius.accounting.interimIntervalMs,
        authentic: this.#authentication === undefined ? 'local' : 'radius',
        clock,
        wallClock: systemWallClock,
        wheel,
        log: this.#log,
      })
    }
    const { dynamic } = radius
    if (dynamic.clients.length === 0) return
    this.#dynamic = new DynamicAuthorization({
      clients: dynamic.clients,
      sessions,
      nas: this.#nas,
      clock,
      wallClock: systemWallClock,
      log: this.#log,
    })
    this.#listener = new DynamicAuthorizationListener(this.#dynamic)
    await this.#listener.start(dynamic.listen ?? serverAddresses(this.#config), dynamic.port)
  }

  /** After the sessions have ended: their last records are written, and sent if that is quick. */
  async stop(): Promise<void> {
    this.#listener?.stop()
    await this.#accountant?.close(farewellMs)
    this.#accounting?.close()
    this.#authentication?.close()
  }

  /** Undefined when RADIUS is not used. */
  status(): RadiusStatus | undefined {
    const status: RadiusStatus = {
      ...(this.#authentication !== undefined && {
        authentication: groupStatus(this.#authentication),
      }),
      ...(this.#accounting !== undefined && {
        accounting: {
          ...groupStatus(this.#accounting),
          waiting: 0,
          isDown: false,
          ...this.#accountant?.status(),
        },
      }),
      ...(this.#dynamic !== undefined && { dynamic: this.#dynamic.counters.toJSON() }),
    }
    return Object.keys(status).length === 0 ? undefined : status
  }

  #judge(
    exchange: RadiusClient,
    methods: readonly string[],
    lockout: Lockout,
  ): RadiusAuthenticator {
    return new RadiusAuthenticator({ exchange, nas: this.#nas, methods, lockout, log: this.#log })
  }

  #client(
    purpose: 'access' | 'accounting',
    { servers, totalMs }: { servers: readonly RadiusServerConfig[]; totalMs: number },
  ): RadiusClient | undefined {
    if (servers.length === 0) return undefined
    const { clock, wheel, random } = this.#services
    return new RadiusClient({
      servers: servers.map(endpointOf),
      purpose,
      totalMs,
      identity: nasAttributes(this.#nas),
      clock,
      wheel,
      random,
      log: this.#log,
    })
  }
}

function groupStatus(client: RadiusClient): RadiusGroupStatus {
  return { servers: client.status(), counters: client.counters.toJSON() }
}

function endpointOf(server: RadiusServerConfig): RadiusServerEndpoint {
  const { tls, ...settings } = server
  if (tls === undefined) return settings
  return {
    ...settings,
    radsec: {
      serverName: tls.serverName,
      authority: readPem(tls.authority),
      certificate: readPem(tls.cert),
      key: readPem(tls.key),
    },
  }
}

function readPem(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new ConfigError('radius', `cannot read ${path}: ${messageOf(error)}`)
  }
}

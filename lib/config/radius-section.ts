/** The section `radius` of the configuration: servers that judge, count, and change sessions. */
import { z } from 'zod'
import { Secret } from '../core/secret.ts'
import * as field from './fields.ts'

const port = z.int().min(1).max(65_535)

const tls = z
  .strictObject({
    serverName: z
      .string()
      .regex(/^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/, {
        error: 'expected a host name, such as radius.example.net',
      })
      .describe('The name that the certificate of the server must have'),
    authority: field.absolutePath.describe('PEM file: the only authority that is believed'),
    cert: field.absolutePath.describe('PEM file: our certificate'),
    key: field.absolutePath.describe('PEM file: its key'),
  })
  .meta({ description: 'RADIUS over TLS 1.3 (RadSec, RFC 6614), TCP 2083' })

const server = z
  .strictObject({
    address: field.listenAddress.describe('IPv4 or IPv6 address'),
    port: port.optional().describe('Absent: 1812, for accounting 1813, over TLS 2083'),
    secret: field.password.optional().describe('Shared secret, 16 random characters or more'),
    tls: tls.optional(),
    score: z.int().min(1).max(30).default(30).describe('The highest that lives is asked first'),
    timeoutSeconds: z.int().min(1).max(60).default(2),
    tries: z.int().min(1).max(10).default(2),
    deadSeconds: z
      .int()
      .min(1)
      .max(3600)
      .default(30)
      .describe('How long a server that does not answer is left alone'),
    statusServer: z.boolean().default(true).describe('Ask a dead server whether it lives'),
    requireMessageAuthenticator: z
      .boolean()
      .default(true)
      .describe('Off only for servers that cannot: answers could then be forged (CVE-2024-3596)'),
  })
  .refine(({ secret, tls }) => secret !== undefined || tls !== undefined, {
    error: 'expected a secret, or tls',
  })
  .meta({ description: 'A RADIUS server' })

const client = z
  .strictObject({
    address: field.ipNetwork.describe('From where requests may come'),
    secret: field.password,
    requireMessageAuthenticator: z.boolean().default(true),
    requireEventTimestamp: z
      .boolean()
      .default(true)
      .describe('Off: a recorded request could be played again'),
  })
  .meta({ description: 'Who may end and change sessions' })

const totalSeconds = z
  .int()
  .min(1)
  .max(120)
  .default(9)
  .describe('From a question to its answer, over all servers')

export const radiusSchema = z
  .strictObject({
    nasAddress: field.listenAddress
      .optional()
      .describe('How we name ourselves beside our name; absent: by name only'),
    authentication: z
      .strictObject({
        servers: z.array(server).max(16).default([]),
        totalSeconds,
        eap: z.boolean().default(false).describe('EAP packets of users go to these servers whole'),
        whenUnavailable: z
          .enum(['refuse', 'local'])
          .default('refuse')
          .describe('local: the local users may come in while no server answers'),
      })
      .prefault({})
      .meta({ description: 'Servers that judge users; none: the local users' }),
    accounting: z
      .strictObject({
        servers: z.array(server).max(16).default([]),
        totalSeconds,
        interimSeconds: z
          .int()
          .min(0)
          .max(86_400)
          .default(0)
          .describe(
            'Between records of a session, 0 for none; the server of a user may say otherwise',
          ),
      })
      .prefault({})
      .meta({ description: 'Servers that are told of sessions' }),
    dynamic: z
      .strictObject({
        listen: z
          .array(field.listenAddress)
          .min(1)
          .max(16)
          .optional()
          .describe('Where requests arrive; absent: server.listen'),
        port: port.default(3799),
        clients: z.array(client).max(256).default([]).describe('None: the port is not opened'),
      })
      .prefault({})
      .meta({ description: 'Disconnect and CoA requests (RFC 5176)' }),
  })
  .prefault({})
  .meta({ description: 'RADIUS' })

type RadiusDocument = z.output<typeof radiusSchema>
type ServerDocument = RadiusDocument['authentication']['servers'][number]

export interface RadiusServerConfig {
  readonly address: string
  readonly port: number
  readonly secret: Secret
  /** Files. */
  readonly tls?: {
    readonly serverName: string
    readonly authority: string
    readonly cert: string
    readonly key: string
  }
  readonly score: number
  readonly timeoutMs: number
  readonly tries: number
  readonly deadTimeMs: number
  readonly isProbed: boolean
  readonly needsMessageAuthenticator: boolean
}

export interface RadiusConfig {
  readonly nasAddress?: string
  readonly authentication: {
    readonly servers: readonly RadiusServerConfig[]
    readonly totalMs: number
    readonly relaysEap: boolean
    readonly fallsBackToLocal: boolean
  }
  readonly accounting: {
    readonly servers: readonly RadiusServerConfig[]
    readonly totalMs: number
    /** `Infinity` for none. */
    readonly interimIntervalMs: number
  }
  readonly dynamic: {
    /** Absent: where the tunnels are listened for. */
    readonly listen?: readonly string[]
    readonly port: number
    readonly clients: readonly {
      readonly network: RadiusDocument['dynamic']['clients'][number]['address']
      readonly secret: Secret
      readonly needsMessageAuthenticator: boolean
      readonly needsEventTimestamp: boolean
    }[]
  }
}

export function resolveRadius(document: RadiusDocument): RadiusConfig {
  const { nasAddress, authentication, accounting, dynamic } = document
  const { interimSeconds } = accounting
  return {
    ...(nasAddress !== undefined && { nasAddress }),
    authentication: {
      servers: authentication.servers.map(one => resolveServer(one, 1812)),
      totalMs: authentication.totalSeconds * 1000,
      relaysEap: authentication.eap && authentication.servers.length > 0,
      fallsBackToLocal: authentication.whenUnavailable === 'local',
    },
    accounting: {
      servers: accounting.servers.map(one => resolveServer(one, 1813)),
      totalMs: accounting.totalSeconds * 1000,
      interimIntervalMs: interimSeconds === 0 ? Number.POSITIVE_INFINITY : interimSeconds * 1000,
    },
    dynamic: {
      ...(dynamic.listen !== undefined && { listen: dynamic.listen }),
      port: dynamic.port,
      clients: dynamic.clients.map(one => ({
        network: one.address,
        secret: one.secret,
        needsMessageAuthenticator: one.requireMessageAuthenticator,
        needsEventTimestamp: one.requireEventTimestamp,
      })),
    },
  }
}

/** RFC 6614 §2.3: over TLS the secret is public, unless somebody insists. */
function resolveServer(document: ServerDocument, udpPort: number): RadiusServerConfig {
  const { address, secret, tls, score, tries } = document
  return {
    address,
    port: document.port ?? (tls === undefined ? udpPort : 2083),
    secret: secret ?? Secret.fromText('radsec'),
    ...(tls !== undefined && { tls }),
    score,
    timeoutMs: document.timeoutSeconds * 1000,
    tries,
    deadTimeMs: document.deadSeconds * 1000,
    isProbed: document.statusServer,
    needsMessageAuthenticator: document.requireMessageAuthenticator,
  }
}

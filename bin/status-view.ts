/** The part of the server's status that the tables show. */
import { z } from 'zod'

const session = z.object({
  id: z.string(),
  number: z.number(),
  state: z.string(),
  protocol: z.string(),
  peer: z.string(),
  userName: z.string().optional(),
  ipv4: z.string().optional(),
  ipv6: z.string().optional(),
  /** Of a bundle: its calls. */
  bundle: z.object({ links: z.array(z.object({ protocol: z.string() })) }).optional(),
  durationSeconds: z.number(),
  idleSeconds: z.number(),
  receivedBytes: z.number(),
  sentBytes: z.number(),
})

export const statusSchema = z.object({
  name: z.string(),
  version: z.string(),
  uptimeSeconds: z.number(),
  warnings: z.array(z.string()),
  sstp: z
    .object({
      addresses: z.array(z.object({ host: z.string(), port: z.number() })),
      established: z.number(),
    })
    .optional(),
  ikev2: z
    .object({
      addresses: z.array(
        z.object({ host: z.string(), port: z.number(), isTcp: z.literal(true).optional() }),
      ),
      established: z.number(),
      halfOpen: z.number(),
    })
    .optional(),
  l2tp: z
    .object({
      tunnels: z.number(),
      sessions: z.number(),
      ikev1: z.object({ established: z.number(), halfOpen: z.number() }),
    })
    .optional(),
  sessions: z.array(session),
  dataplane: z.object({
    backend: z.string(),
    offloads: z.array(z.string()),
    tunName: z.string(),
  }),
})

export type SessionView = z.infer<typeof session>
export type ServerStatusView = z.infer<typeof statusSchema>

/** The section `ppp.multilink` of the configuration: several calls of one user as one. */
import { z } from 'zod'
import { defaults } from './defaults.ts'

const defaultValues = defaults.ppp.multilink
const percent = z.int().min(1).max(100)
const loadSeconds = z.int().min(5).max(86_400)

export const multilinkSchema = z
  .strictObject({
    enabled: z.boolean().default(defaultValues.enabled),
    linksPerBundle: z
      .int()
      .min(2)
      .max(64)
      .default(defaultValues.linksPerBundle)
      .describe('Calls that may be joined'),
    bap: z
      .boolean()
      .default(defaultValues.bap)
      .describe('Calls come and go by load, with clients that speak BAP (RFC 2125)'),
    linkKilobitsPerSecond: z
      .int()
      .min(1)
      .max(10_000_000)
      .default(defaultValues.linkKilobitsPerSecond)
      .describe('What one call carries, each way'),
    addAbovePercent: percent
      .default(defaultValues.addAbovePercent)
      .describe('Above this share of what all calls carry together, one more is asked for'),
    addAfterSeconds: loadSeconds.default(defaultValues.addAfterSeconds),
    dropBelowPercent: percent
      .default(defaultValues.dropBelowPercent)
      .describe('Below this share, one less is'),
    dropAfterSeconds: loadSeconds.default(defaultValues.dropAfterSeconds),
  })
  .refine(({ addAbovePercent, dropBelowPercent }) => dropBelowPercent < addAbovePercent, {
    error: 'expected dropBelowPercent below addAbovePercent',
  })
  .meta({ description: 'Several calls of one user as one (RFC 1990), over SSTP, L2TP and PPTP' })

export interface MultilinkConfig {
  readonly linksPerBundle: number
  /** Absent: calls come and go without BAP. */
  readonly bandwidth?: {
    readonly linkKilobitsPerSecond: number
    readonly addAbovePercent: number
    readonly addAfterMs: number
    readonly dropBelowPercent: number
    readonly dropAfterMs: number
  }
}

/** Undefined: every call stands alone. */
export function resolveMultilink(
  section: z.infer<typeof multilinkSchema>,
): MultilinkConfig | undefined {
  const { enabled, linksPerBundle, bap, addAfterSeconds, dropAfterSeconds } = section
  if (!enabled) return undefined
  const { linkKilobitsPerSecond, addAbovePercent, dropBelowPercent } = section
  const bandwidth = {
    ...{ linkKilobitsPerSecond, addAbovePercent, dropBelowPercent },
    addAfterMs: addAfterSeconds * 1000,
    dropAfterMs: dropAfterSeconds * 1000,
  }
  return { linksPerBundle, ...(bap && { bandwidth }) }
}

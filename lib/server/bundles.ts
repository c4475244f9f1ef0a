/** Multilink as the configuration wants it: one table for the calls of all tunnels that carry PPP. */
import type { Config } from '../config.ts'
import { StackSlotPool } from '../dataplane/index.ts'
import { BundleTable } from '../ppp/multilink/bundle-table.ts'
import type { NetworkServices, PppNetwork } from './ppp-network.ts'

/** Early fragments of all bundles together. */
const fragmentSlots = 512
/** A fragment is as long as the packets of the TUN device may be, and what multilink puts around one. */
const leastSlotBytes = 2048
const overheadBytes = 64
/** RFC 1990 §5.1.1: at least 1500. */
const leastMrruBytes = 1600

/** Undefined: calls stand alone, and no memory is taken for fragments. */
export function makeBundles(
  { ppp, tun }: Config,
  { dataplane, clock, wheel, random }: Omit<NetworkServices, 'bundles'>,
): BundleTable<PppNetwork> | undefined {
  if (ppp.multilink === undefined) return undefined
  const { linksPerBundle, bandwidth } = ppp.multilink
  const slotBytes = Math.max(leastSlotBytes, tun.mtuBytes + overheadBytes)
  return new BundleTable({
    ...{ dataplane, clock, wheel, random, linksPerBundle },
    ...(bandwidth !== undefined && { bandwidth }),
    mrruBytes: Math.max(leastMrruBytes, tun.mtuBytes + overheadBytes),
    slots: new StackSlotPool(dataplane.memory, slotBytes, fragmentSlots),
  })
}

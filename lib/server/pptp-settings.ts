/** PPTP as the configuration wants it: the listener, and what PPP may agree on inside it. */
import { isIPv4 } from 'node:net'
import type { Config } from '../config.ts'
import { ConfigError } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import { openRawSocket, StackSlotPool } from '../dataplane/index.ts'
import { BundleTable } from '../ppp/multilink/bundle-table.ts'
import type { CompressionSettings } from '../ppp/settings.ts'
import { GRE_PROTOCOL, PPTP_PORT, PptpListener } from '../pptp/index.ts'
import { type CallServices, PppCalls } from './ppp-call.ts'

/** Opens the raw socket; throws BindError, SystemError or ConfigError. */
export function makePptpListener(
  config: Config,
  services: CallServices,
  log: Logger,
): PptpListener {
  const addresses = ipv4Addresses(config)
  const { dataplane, clock, wheel, random } = services
  return new PptpListener({
    addresses: addresses.map(host => ({ host, port: PPTP_PORT })),
    hostName: config.server.name,
    links: new PppCalls(withBundles(config, services)),
    dataplane,
    socket: openRawSocket(dataplane.memory, GRE_PROTOCOL),
    clock,
    wheel,
    random,
    log: log.child({ proto: 'pptp' }),
  })
}

/** Early fragments of all bundles together, and the room for each. */
const fragmentSlots = 512
const fragmentSlotBytes = 2048
/** RFC 1990 §5.1.1: at least 1500. */
const mrruBytes = 1600

/** Calls may be bundled. What else the server changes in `services` holds here, too. */
function withBundles({ ppp }: Config, services: CallServices): CallServices {
  if (ppp.multilink === undefined) return services
  const { dataplane, clock, wheel, random } = services
  const bundles = new BundleTable({
    ...{ dataplane, clock, wheel, random, mrruBytes },
    slots: new StackSlotPool(dataplane.memory, fragmentSlotBytes, fragmentSlots),
    linksPerBundle: ppp.multilink.linksPerBundle,
  })
  return Object.assign(Object.create(services), { bundles })
}

/** Undefined: nothing is to be agreed on. */
export function compressionSettings({ pptp }: Config): CompressionSettings | undefined {
  if (pptp.encryption === 'none' && !pptp.isCompressed) return undefined
  return {
    encryption: pptp.encryption,
    strengths: pptp.keyBits,
    allowsStateful: !pptp.isStateless,
    // Who can do both had better not depend on the packet before.
    prefersStateful: false,
    hasMppc: pptp.isCompressed,
  }
}

/** Enhanced GRE is spoken over IPv4 only; `::` listens there, too. */
function ipv4Addresses({ server }: Config): string[] {
  const addresses = server.listen.filter(host => isIPv4(host))
  if (addresses.length > 0) return addresses
  if (server.listen.includes('::')) return ['0.0.0.0']
  throw new ConfigError('server.listen', 'expected an IPv4 address, since pptp is on')
}

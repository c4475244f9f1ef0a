/** PPTP as the configuration wants it: the listener, and what PPP may agree on inside it. */
import { isIPv4 } from 'node:net'
import type { Config } from '../config.ts'
import { ConfigError } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import { openRawSocket } from '../dataplane/index.ts'
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
    links: new PppCalls(services),
    dataplane,
    socket: openRawSocket(dataplane.memory, GRE_PROTOCOL),
    clock,
    wheel,
    random,
    log: log.child({ proto: 'pptp' }),
    obeysWindow: config.pptp.isWindowObeyed,
  })
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

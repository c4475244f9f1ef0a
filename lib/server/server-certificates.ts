/** The certificates that the server shows: those of the configuration, or its own. */
import { networkInterfaces } from 'node:os'
import { type CertificatePair, loadCertificatePair } from '../certificates/certificate-pair.ts'
import { OcspStaple } from '../certificates/ocsp-staple.ts'
import { ensureOwnCertificate } from '../certificates/own-certificate.ts'
import type { Config } from '../config.ts'
import { systemWallClock } from '../core/clock.ts'
import type { Logger } from '../core/log.ts'
import type { CertificatePair as TlsPair } from '../sstp/index.ts'

/** Reads them, and makes or renews the server's own when none is configured. Throws CertificateError. */
export function loadServerCertificates(config: Config, log: Logger): TlsPair[] {
  const { certificates } = config.sstp
  const now = systemWallClock.now()
  const pairs =
    certificates.length === 0
      ? [ownCertificate(config).pair]
      : certificates.map(files => loadCertificatePair(files, now))
  return pairs.map(pair => {
    const staple = stapleOf(pair, log)
    return { cert: pair.chainPem, key: pair.keyPem, ...(staple !== undefined && { staple }) }
  })
}

/** What OCSP says of a pair, out of the file that stands beside it in the configuration. */
export function stapleOf(
  { files, leaf }: CertificatePair,
  log: Logger,
): (() => Uint8Array | undefined) | undefined {
  const { ocspResponse: path } = files
  if (path === undefined) return undefined
  const staple = new OcspStaple({
    path,
    leaf,
    wallClock: systemWallClock,
    onFault: logOcspFault(log),
  })
  return () => staple.current()
}

/** For files of OCSP that are of no use. */
export function logOcspFault(log: Logger): (path: string, reason: string) => void {
  return (path, reason) => log.warn({ event: 'ocsp-file', path, reason }, 'ocsp file not used')
}

/** The same for IKEv2, which may have its own. Throws CertificateError. */
export function loadIkeCertificates(config: Config): CertificatePair[] {
  const { ikev2, sstp } = config
  const files = ikev2.certificates.length > 0 ? ikev2.certificates : sstp.certificates
  const now = systemWallClock.now()
  return files.length === 0
    ? [ownCertificate(config).pair]
    : files.map(pair => loadCertificatePair(pair, now))
}

/** The pair in the state directory, for the server's name and every address of this machine. */
export function ownCertificate(config: Config): {
  readonly pair: CertificatePair
  readonly authorityFile: string
} {
  return ensureOwnCertificate({
    stateDirectory: config.state.directory,
    names: [config.server.name],
    addresses: dialableAddresses(networkInterfaces(), config.tun.name),
    now: systemWallClock.now(),
  })
}

/**
 * What a client can dial: neither loopback nor link-local, nor our own end of the tunnels. `tunName` may
 * be a pattern: `ras%d` is every name that the kernel makes of it.
 */
export function dialableAddresses(
  interfaces: ReturnType<typeof networkInterfaces>,
  tunName: string,
): string[] {
  const [start = '', end] = tunName.split('%d')
  const isTun = (name: string) =>
    end === undefined
      ? name === tunName
      : name.startsWith(start) &&
        name.endsWith(end) &&
        /^\d+$/.test(name.slice(start.length, name.length - end.length))
  return Object.entries(interfaces)
    .flatMap(([name, addresses]) => (isTun(name) ? [] : (addresses ?? [])))
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
    .map(({ address }) => address)
    .sort()
}

/** What can be said of a configuration without starting it. */
import { loadCertificatePair } from '../certificates/certificate-pair.ts'
import { ClientAuthorities } from '../certificates/client-authorities.ts'
import type { Config } from '../config.ts'
import { systemWallClock } from '../core/clock.ts'
import { directoryAuthority } from './directory-service.ts'
import { insecureChoices } from './insecure-choices.ts'

const soonDays = 30
const dayMs = 86_400_000

/** Reads the files that the configuration names; returns what is worth knowing. Throws CertificateError, ConfigError. */
export function checkServer(config: Config): string[] {
  const now = systemWallClock.now()
  const notes = [...insecureChoices(config)]
  directoryAuthority(config)
  ClientAuthorities.load(config.ikev2.clientAuthorities, config.ikev2.revocationLists)
  for (const files of [...config.sstp.certificates, ...config.ikev2.certificates]) {
    const { notAfter } = loadCertificatePair(files, now)
    const days = Math.floor((notAfter.getTime() - now.getTime()) / dayMs)
    if (days < soonDays) notes.push(`the certificate ${files.cert} expires in ${days} days`)
  }
  return notes
}

/** What is on although it is not safe: said in the log, in the status and by `openras check`. */
import type { Config } from '../config.ts'

/** Below that a preshared key is found by whoever has recorded one exchange, sooner or later. */
const shortestKeyBytes = 20

/** RFC 8784 §6: half its bits are what a quantum computer leaves of them. */
const shortestPostQuantumKeyBytes = 32

function ikev2Choices({ sites, postQuantumKeys, acceptsEapOnly }: Config['ikev2']): string[] {
  const warnings: string[] = []
  if (sites.some(({ presharedKey }) => presharedKey.length < shortestKeyBytes)) {
    warnings.push(`ikev2.sites has a key shorter than ${shortestKeyBytes} characters`)
  }
  if (postQuantumKeys.some(({ key }) => key.length < shortestPostQuantumKeyBytes)) {
    warnings.push(
      `ikev2.postQuantumKeys has one shorter than ${shortestPostQuantumKeyBytes} characters`,
    )
  }
  if (acceptsEapOnly) {
    warnings.push(
      'ikev2.eapOnly is on: with mschapv2 a false server can try passwords on who asks for it',
    )
  }
  return warnings
}

export function insecureChoices(config: Config): string[] {
  const { methods } = config.auth
  const warnings: string[] = []
  if (methods.includes('pap')) {
    warnings.push('auth.methods has pap: this server sees passwords, and sstp is not bound to tls')
  }
  if (methods.includes('chap')) {
    warnings.push(
      'auth.methods has chap: passwords are stored reversibly, and sstp is not bound to tls',
    )
  }
  if (config.ikev2.isEnabled && config.ikev2.acceptsLegacyAlgorithms) {
    warnings.push('ikev2.legacyAlgorithms is on: MODP1024, SHA-1 and 3DES can be broken')
  }
  if (config.ikev2.isEnabled) warnings.push(...ikev2Choices(config.ikev2))
  const { radius, ldap } = config
  if (ldap?.usesStartTls === false && ldap.servers.some(url => url.startsWith('ldap:'))) {
    warnings.push('ldap.startTls is off: whoever listens reads the passwords of users')
  }
  if (
    radius.authentication.servers.some(
      one => one.tls === undefined && !one.needsMessageAuthenticator,
    )
  ) {
    warnings.push(
      'radius: a server may answer without Message-Authenticator: who is on the wire can forge an Accept',
    )
  }
  const { l2tp, pptp } = config
  if (l2tp.isEnabled) {
    if (l2tp.isAllowedWithoutIpsec) {
      warnings.push('l2tp.withoutIpsec is on: whoever listens reads all that such clients send')
    }
    if (l2tp.acceptsLegacyAlgorithms) {
      warnings.push('l2tp.legacyAlgorithms is on: MODP1024 and 3DES can be broken')
    }
    if (l2tp.preSharedKeys.some(({ key }) => key.length < shortestKeyBytes)) {
      warnings.push(`l2tp.preSharedKeys has one shorter than ${shortestKeyBytes} characters`)
    }
  }
  if (pptp.isEnabled) {
    warnings.push('pptp is on: whoever listens can find its keys, and with them all that was sent')
    if (pptp.encryption !== 'required') {
      warnings.push(`pptp.encryption is ${pptp.encryption}: clients may send in clear`)
    }
    if (pptp.encryption !== 'none' && pptp.keyBits.some(bits => bits < 128)) {
      warnings.push('pptp.keyBits has 40 or 56: such keys are found by trying them all')
    }
  }
  return warnings
}

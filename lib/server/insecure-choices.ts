/** What is on although it is not safe: said in the log, in the status and by `openras check`. */
import type { Config } from '../config.ts'

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
  const { pptp } = config
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

/** The user principal name in a certificate: how Windows maps certificates to accounts. */
import { X509Certificate } from 'node:crypto'

/**
 * otherName 1.3.6.1.4.1.311.20.2.3 of the subject's alternative names, first to last. Names that Node has
 * to quote hold characters that no account has, and are passed over.
 */
export function principalNames(der: Uint8Array): string[] {
  let alternatives: string
  try {
    alternatives = new X509Certificate(der).subjectAltName ?? ''
  } catch {
    return []
  }
  return [...alternatives.matchAll(/(?:^|, )othername:UPN:([^,"]+)/g)].map(([, name = '']) => name)
}

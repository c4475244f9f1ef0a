/**
 * What a responder says of a certificate of ours, to be shown in the handshake (RFC 6066 §8): out of a
 * file that somebody else keeps fresh.
 */
import { createHash, type X509Certificate } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { equalBytes } from '../core/bytes.ts'
import type { WallClock } from '../core/clock.ts'
import { messageOf } from '../core/errors.ts'
import { type CertificateFields, certificateFields } from './certificate-fields.ts'
import { parseOcspResponse } from './ocsp-response.ts'
import { isCurrent } from './ocsp-responses.ts'

export interface OcspStapleOptions {
  /** DER file. */
  readonly path: string
  /** The certificate that is shown. */
  readonly leaf: X509Certificate
  readonly wallClock: WallClock
  /** The file is of no use; handshakes go on without it. */
  onFault(path: string, reason: string): void
}

/** Between two looks at the file. */
const lookIntervalMs = 30_000
const largestFileBytes = 64 * 1024

export class OcspStaple {
  readonly #options: OcspStapleOptions
  readonly #fields: CertificateFields | undefined
  #response: Uint8Array | undefined
  #lookedMs = Number.NEGATIVE_INFINITY

  constructor(options: OcspStapleOptions) {
    this.#options = options
    this.#fields = certificateFields(options.leaf.raw)
  }

  /** DER; undefined when there is none that would help a client. */
  current(): Uint8Array | undefined {
    const nowMs = this.#options.wallClock.now().getTime()
    const sinceMs = nowMs - this.#lookedMs
    if (sinceMs < 0 || sinceMs >= lookIntervalMs) {
      this.#lookedMs = nowMs
      this.#response = this.#look()
    }
    return this.#response
  }

  /** A small file, seldom: nobody has to wait for another thread. */
  #look(): Uint8Array | undefined {
    const { path, onFault } = this.#options
    try {
      if (statSync(path).size <= largestFileBytes) {
        const der = Uint8Array.from(readFileSync(path))
        const fault = this.#faultOf(der)
        if (fault === undefined) return der
        onFault(path, fault)
      } else onFault(path, 'too large')
    } catch (thrown) {
      onFault(path, messageOf(thrown))
    }
    return undefined
  }

  /** Whether its signature holds is for clients to see, who know whom they trust. */
  #faultOf(der: Uint8Array): string | undefined {
    const response = parseOcspResponse(der)
    if (typeof response === 'string') return response
    const fields = this.#fields
    const statement = response.statements.find(
      ({ serial, hash, issuerNameHash }) =>
        serial === fields?.serial &&
        equalBytes(issuerNameHash, createHash(hash).update(fields.issuer).digest()),
    )
    if (statement === undefined) return 'it speaks of another certificate'
    if (statement.status !== 'good') return `it says that the certificate is ${statement.status}`
    return isCurrent(statement, this.#options.wallClock.now()) ? undefined : 'it is out of date'
  }
}

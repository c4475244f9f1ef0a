/** What main mode needs to know, and whom it tells. */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import type { RandomSource } from '../core/random.ts'
import type { CertificateTrust, IkeCredential } from './certificates.ts'
import type { IkePolicy } from './policy.ts'
import type { PreSharedKey } from './pre-shared-keys.ts'
import type { CbcChain } from './protection.ts'
import type { Identification, Payload } from './wire/payload.ts'

export interface Phase1Options {
  readonly policy: IkePolicy
  readonly random: RandomSource
  readonly preSharedKeys: readonly PreSharedKey[]
  readonly credential?: IkeCredential
  readonly trust?: CertificateTrust
  /** What we say we are; our address when absent (and the certificate's subject with one). */
  readonly identity?: Identification
  /** Pretend to be behind a NAT, so that ESP always travels in UDP. */
  readonly forcesEncapsulation?: boolean
  /** Tell the peer that we know of no older SA (RFC 2407 §4.6.3.3); initiators. */
  readonly sendsInitialContact?: boolean
}

export interface Phase1Ports {
  send(payloads: readonly Payload[]): void
  sendSealed(payloads: readonly Payload[], chain: CbcChain): void
  sendNotify(notifyType: number): void
  sendDelete(): void
  up(): void
  down(cause: DisconnectCause, detail: string): void
  unexpected(what: string): void
  /** Counts what may have come from anybody. */
  count(name: string): void
}

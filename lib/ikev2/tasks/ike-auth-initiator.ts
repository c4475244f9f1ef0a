/**
 * IKE_AUTH as initiator: the first request with identity and Child SA, EAP rounds when that is our
 * credential, and the proof of both sides. RFC 7296 §1.2, §2.16; RFC 5998; RFC 5723 §5.
 */
import { copyBytes } from '../../core/bytes.ts'
import type { Secret } from '../../core/secret.ts'
import { EapPeer } from '../../eap/peer.ts'
import type { Association } from '../association.ts'
import {
  type ConfigurationGrant,
  configurationRequest,
  parseConfigurationReply,
} from '../configuration.ts'
import type { Connection } from '../connection.ts'
import type { AuthenticatedBy } from '../event.ts'
import { describeIdentity, isSameIdentity } from '../identity.ts'
import type { CertificateVerdict } from '../input.ts'
import { verifySignature } from '../signature.ts'
import type { IncomingMessage, Task } from '../task.ts'
import { AuthMethod } from '../wire/authentication.ts'
import { ConfigurationType } from '../wire/configuration.ts'
import type { Identification } from '../wire/identification.ts'
import { findNotify, findPayload } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { NotifyType } from '../wire/notify-type.ts'
import type { Payload, PayloadOf } from '../wire/payload.ts'
import { errorName } from './child-create.ts'
import { ChildOffer } from './child-negotiation.ts'
import { establish } from './established.ts'
import { authorityRequest } from './ike-init.ts'
import { AuthenticationFailed } from './informational.ts'
import { beginPpk, type PpkOffer } from './ppk.ts'
import {
  certificatePayloads,
  certificatesIn,
  eapSecret,
  isSharedKeyProof,
  octetsOf,
  sharedKeyPayload,
} from './proof.ts'
import { followRedirect } from './redirect.ts'
import { isResumptionProof, resumptionPayload } from './resume.ts'
import { takeTicket } from './ticket-request.ts'

type Stage =
  | { readonly name: 'first' }
  /** EAP asked something; the next request carries our answer. */
  | { readonly name: 'eap'; readonly packet: Uint8Array }
  /** EAP is over: our AUTH goes out. */
  | { readonly name: 'final'; readonly msk: Secret | undefined }
  | {
      readonly name: 'certificate'
      readonly ticket: number
      readonly response: IncomingMessage
      readonly auth: PayloadOf<'AUTH'>
    }
  | { readonly name: 'done' }

export class AuthInitiator implements Task {
  readonly name = 'ike-auth'
  readonly exchange = 'IKE_AUTH'
  #stage: Stage = { name: 'first' }
  #childOffer: ChildOffer | undefined
  #eap: EapPeer | undefined
  #ppk: PpkOffer | undefined
  #peerIdentity: Identification | undefined
  /** The responder has proved itself: by signature or PSK, or by EAP's key in the end. */
  #isPeerProved = false

  build(connection: Connection, association: Association): readonly Payload[] | undefined {
    const stage = this.#stage
    const { identity, credential } = connection.options.localIdentities[0]
    switch (stage.name) {
      case 'first':
        connection.setup.authMessageId = association.nextRequestId
        return this.#first(connection, association)
      case 'eap':
        return [{ type: 'EAP', data: stage.packet }]
      case 'final': {
        const secret = eapSecret(association, 'initiator', stage.msk)
        if (secret === undefined || credential.type !== 'eap') return undefined
        return sharedKeyPayload(connection, association, 'initiator', identity, secret)
      }
      case 'certificate':
      case 'done':
        return undefined
    }
  }

  #first(connection: Connection, association: Association): Payload[] | undefined {
    const { options } = connection
    const { identity, credential } = options.localIdentities[0]
    const { localSelectors: local, remoteSelectors: remote } = options.child
    const isResumed = connection.resumption !== undefined
    const isChildless = options.features.startsChildless && connection.peer.childless
    if (!isChildless) this.#childOffer = new ChildOffer(connection, { local, remote }, 0, true)
    const { expectedIdentity, eap } = options.peer
    const plain = this.#ownProof(connection, association)
    // A ticket holds keys that a PPK is mixed into already.
    if (!isResumed) this.#ppk = beginPpk(connection, association)
    if (!isResumed && this.#ppk === undefined && options.ppk?.isMandatory === true) {
      connection.close('authentication-failed', 'ppk-not-used')
      return undefined
    }
    const proof = this.#ppk ? this.#ownProof(connection, association) : plain
    if (proof === undefined || plain === undefined) {
      connection.close('nas-error', 'no-credential')
      return undefined
    }
    const features: Payload[] = []
    if (options.features.sendsInitialContact) features.push(notify(NotifyType.INITIAL_CONTACT))
    if (credential.type === 'eap' && eap?.acceptsEapOnly === true) {
      features.push(notify(NotifyType.EAP_ONLY_AUTHENTICATION))
    }
    if (options.features.mobike) features.push(notify(NotifyType.MOBIKE_SUPPORTED))
    if (options.features.requestsTicket) features.push(notify(NotifyType.TICKET_REQUEST))
    const attributes = options.configurationAttributes
    return [
      { type: 'IDi', ...identity },
      ...features,
      ...(isResumed ? [] : authorityRequest(connection)),
      ...(expectedIdentity === undefined ? [] : [{ type: 'IDr', ...expectedIdentity } as const]),
      ...proof,
      ...(this.#ppk === undefined ? [] : this.#ppk.notifies(connection, plain)),
      ...(attributes === undefined ? [] : [configurationRequest(attributes)]),
      ...(this.#childOffer?.payloads(connection) ?? []),
    ]
  }

  #ownProof(connection: Connection, association: Association): Payload[] | undefined {
    const { identity, credential } = connection.options.localIdentities[0]
    if (connection.resumption) return resumptionPayload(connection, association, 'initiator')
    switch (credential.type) {
      case 'certificate':
        return certificatePayloads(connection, association, 'initiator', identity, credential)
      case 'psk':
        return sharedKeyPayload(connection, association, 'initiator', identity, credential.secret)
      case 'eap':
        // No AUTH asks for EAP (RFC 7296 §2.16).
        return []
      case 'none':
        return undefined
    }
  }

  process(
    connection: Connection,
    association: Association,
    response: IncomingMessage,
    nowMs: number,
  ): void {
    const { payloads, form } = response
    const redirect = findNotify(payloads, NotifyType.REDIRECT)
    if (redirect !== undefined && connection.options.features.redirect) {
      followRedirect(connection, redirect.data, undefined)
      return
    }
    if (form === 'error') {
      const has = (notifyType: number) => findNotify(payloads, notifyType) !== undefined
      const cause = has(NotifyType.AUTHENTICATION_FAILED)
        ? 'authentication-failed'
        : has(NotifyType.INTERNAL_ADDRESS_FAILURE)
          ? 'no-address'
          : 'protocol-error'
      connection.close(cause, errorName(payloads))
      return
    }
    const idr = findPayload(payloads, 'IDr')
    if (idr !== undefined && this.#peerIdentity === undefined) {
      this.#peerIdentity = { idType: idr.idType, data: copyBytes(idr.data) }
      const { expectedIdentity } = connection.options.peer
      if (expectedIdentity && !isSameIdentity(expectedIdentity, this.#peerIdentity)) {
        this.#refuse(connection, association, 'other-identity')
        return
      }
    }
    if (this.#ppk?.isDecided === false && !this.#ppk.decide(connection, association, payloads)) {
      this.#refuse(connection, association, 'ppk-not-used')
      return
    }
    const auth = findPayload(payloads, 'AUTH')
    if (auth !== undefined && !this.#isPeerProved) {
      this.#judge(connection, association, response, auth, nowMs)
      return
    }
    this.#proceed(connection, association, response, nowMs)
  }

  /** The responder's proof: PSK and MSK are checked here, certificates are put before the composer. */
  #judge(
    connection: Connection,
    association: Association,
    response: IncomingMessage,
    auth: PayloadOf<'AUTH'>,
    nowMs: number,
  ): void {
    const identity = this.#peerIdentity
    if (identity === undefined) {
      this.#refuse(connection, association, 'no-identity')
      return
    }
    const { resumption } = connection
    if (resumption !== undefined) {
      const isSame = isSameIdentity(resumption.responderIdentity, identity)
      if (!isSame || !isResumptionProof(connection, association, 'responder', auth)) {
        this.#refuse(connection, association, 'wrong-resumption-proof')
        return
      }
      this.#isPeerProved = true
      this.#proceed(connection, association, response, nowMs)
      return
    }
    if (auth.method === AuthMethod.SHARED_KEY) {
      const secret = this.#sharedSecret(connection)
      const isProof =
        secret !== undefined &&
        isSharedKeyProof(connection, association, 'responder', identity, secret, auth)
      if (!isProof) {
        this.#refuse(connection, association, 'wrong-shared-key')
        return
      }
      this.#isPeerProved = true
      this.#proceed(connection, association, response, nowMs)
      return
    }
    const certificates = certificatesIn(response.payloads)
    if (!connection.options.peer.acceptsCertificates || certificates.length === 0) {
      this.#refuse(connection, association, 'no-certificate')
      return
    }
    const ticket = connection.newTicket()
    this.#stage = { name: 'certificate', ticket, response, auth }
    connection.emit({
      type: 'verify-certificate',
      ticket,
      certificates,
      identity,
      purpose: 'server',
    })
  }

  /** The secret that a shared-key AUTH of the responder may be made with. */
  #sharedSecret(connection: Connection): Secret | undefined {
    const { credential } = connection.options.localIdentities[0]
    if (this.#stage.name === 'final') {
      // EAP-only: the key of EAP is all the proof there is, so there has to be one (RFC 5998 §3).
      return connection.options.peer.eap?.acceptsEapOnly ? this.#stage.msk : undefined
    }
    return credential.type === 'psk' ? credential.secret : undefined
  }

  certificateVerdict(
    connection: Connection,
    association: Association,
    ticket: number,
    verdict: CertificateVerdict,
    nowMs: number,
  ): void {
    const stage = this.#stage
    if (stage.name !== 'certificate' || stage.ticket !== ticket) {
      connection.unexpected('late-certificate-verdict')
      return
    }
    const identity = this.#peerIdentity
    this.#stage = { name: 'first' }
    if (verdict.type === 'reject' || identity === undefined) {
      const detail = verdict.type === 'reject' ? verdict.detail : 'no-identity'
      this.#refuse(connection, association, `certificate-${detail}`)
      return
    }
    const octets = octetsOf(connection, association, 'responder', identity)
    const { signature } = connection.options
    const checked = verifySignature(verdict.publicKey, octets, stage.auth, signature)
    if (checked.type === 'invalid') {
      this.#refuse(connection, association, `signature-${checked.detail}`)
      return
    }
    this.#isPeerProved = true
    this.#proceed(connection, association, stage.response, nowMs)
  }

  #proceed(
    connection: Connection,
    association: Association,
    response: IncomingMessage,
    nowMs: number,
  ): void {
    const packet = findPayload(response.payloads, 'EAP')
    if (packet !== undefined) {
      this.#eapPacket(connection, association, packet.data)
      return
    }
    const stage = this.#stage
    if (stage.name === 'final') {
      // The responder's last AUTH covers EAP's key; with a signature before it that is a second proof.
      const auth = findPayload(response.payloads, 'AUTH')
      const identity = this.#peerIdentity
      const secret = eapSecret(association, 'responder', stage.msk)
      const isProof =
        auth !== undefined &&
        identity !== undefined &&
        secret !== undefined &&
        isSharedKeyProof(connection, association, 'responder', identity, secret, auth)
      stage.msk?.destroy()
      if (!isProof) {
        this.#refuse(connection, association, 'eap-auth-mismatch')
        return
      }
    } else if (credentialKind(connection) === 'eap') {
      this.#refuse(connection, association, 'eap-skipped')
      return
    }
    if (!this.#isPeerProved) {
      this.#refuse(connection, association, 'peer-not-proved')
      return
    }
    this.#established(connection, association, response, nowMs)
  }

  #eapPacket(connection: Connection, association: Association, bytes: Uint8Array): void {
    const { credential } = connection.options.localIdentities[0]
    if (credential.type !== 'eap') {
      this.#refuse(connection, association, 'eap-not-configured')
      return
    }
    const isEapOnly = connection.options.peer.eap?.acceptsEapOnly === true
    // Nobody types a password for a server that has not proved itself.
    if (!this.#isPeerProved && !isEapOnly) {
      this.#refuse(connection, association, 'peer-not-proved')
      return
    }
    this.#eap ??= new EapPeer({
      identity: credential.userName,
      methods: credential.methods,
      requiresMsk: !this.#isPeerProved,
    })
    this.#eap.handle({ type: 'packet', bytes })
    let hasNext = false
    for (let out = this.#eap.poll(); out !== undefined; out = this.#eap.poll()) {
      if (out.type === 'transmit') {
        this.#stage = { name: 'eap', packet: out.bytes }
        hasNext = true
      } else if (out.event.type === 'success') {
        this.#stage = { name: 'final', msk: out.event.msk }
        hasNext = true
      } else if (out.event.type === 'failure') {
        connection.close('authentication-failed', 'eap-failure')
        return
      } else {
        connection.unexpected(out.event.what)
      }
    }
    if (hasNext) association.queue.unshift(this)
    else this.#refuse(connection, association, 'eap-malformed')
  }

  #established(
    connection: Connection,
    association: Association,
    response: IncomingMessage,
    nowMs: number,
  ): void {
    const { payloads } = response
    const { features } = connection.options
    const cp = findPayload(payloads, 'CP')
    const configuration: ConfigurationGrant =
      cp?.configurationType === ConfigurationType.CFG_REPLY ? parseConfigurationReply(cp) : {}
    connection.peer.mobike =
      features.mobike && findNotify(payloads, NotifyType.MOBIKE_SUPPORTED) !== undefined
    const { identity: localIdentity } = connection.options.localIdentities[0]
    const identity = this.#peerIdentity ?? localIdentity
    if (features.requestsTicket) connection.resumable = { peerIdentity: identity, localIdentity }
    const offer = this.#childOffer
    this.destroy()
    establish(
      connection,
      {
        by: credentialKind(connection),
        identity,
        userName: describeIdentity(identity),
        authorization: undefined,
      },
      configuration,
      nowMs,
    )
    takeTicket(connection, association, payloads)
    if (offer !== undefined && findPayload(payloads, 'SA') === undefined) {
      connection.unexpected(`child-refused-${errorName(payloads)}`)
      return
    }
    const made = offer?.complete(connection, association, payloads, undefined, nowMs)
    if (made === undefined) return
    if (typeof made === 'string') connection.unexpected(`child-${made}`)
    else connection.activate(made.child)
  }

  /** Tells the responder, then ends (RFC 7296 §2.21.2). */
  #refuse(connection: Connection, association: Association, detail: string): void {
    this.destroy()
    connection.beginClosing('authentication-failed', detail)
    association.queue.length = 0
    association.queue.push(new AuthenticationFailed())
  }

  destroy(): void {
    if (this.#stage.name === 'final') this.#stage.msk?.destroy()
    this.#stage = { name: 'done' }
    this.#eap?.destroy()
    this.#eap = undefined
    this.#childOffer?.destroy()
    this.#childOffer = undefined
  }
}

function credentialKind(connection: Connection): AuthenticatedBy {
  if (connection.resumption !== undefined) return 'resumption'
  const { credential } = connection.options.localIdentities[0]
  if (credential.type === 'eap') return 'eap'
  return credential.type === 'psk' ? 'psk' : 'certificate'
}

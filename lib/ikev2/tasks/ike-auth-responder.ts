/**
 * IKE_AUTH as responder: the peer proves itself by certificate, preshared key or EAP, is granted what
 * it may have, and gets its first Child SA. RFC 7296 §1.2, §2.15, §2.16, §2.19; RFC 5998; RFC 5723 §5.
 *
 * Stages: first - waits for the first request; certificate - the peer's certificate is being verified;
 * eap - an EAP conversation runs; final - EAP is over, the peer's AUTH is to come; grant - it is being
 * decided what the peer may have; done.
 */
import type { Verdict } from '../../aaa/authenticator.ts'
import { copyBytes, toHex } from '../../core/bytes.ts'
import type { DisconnectCause } from '../../core/disconnect-cause.ts'
import { assertNever } from '../../core/errors.ts'
import { randomBytes } from '../../core/random.ts'
import type { Secret } from '../../core/secret.ts'
import { EapAuthenticator } from '../../eap/authenticator.ts'
import type {
  EapConversation,
  EapConversationEvent,
  EapLowerLayer,
} from '../../eap/conversation.ts'
import type { Association } from '../association.ts'
import {
  type ConfigurationRequest,
  configurationReply,
  parseConfigurationRequest,
} from '../configuration.ts'
import type { Authenticated, Connection } from '../connection.ts'
import { describeIdentity, isSameIdentity } from '../identity.ts'
import type { CertificateVerdict, GrantVerdict } from '../input.ts'
import type { LocalIdentity } from '../options.ts'
import { verifySignature } from '../signature.ts'
import type { Answer, IncomingMessage } from '../task.ts'
import { copySelectors } from '../traffic-selectors.ts'
import { sendReply } from '../transmission.ts'
import { AuthMethod } from '../wire/authentication.ts'
import { ConfigurationType } from '../wire/configuration.ts'
import type { Identification } from '../wire/identification.ts'
import { findNotify, findPayload } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { NotifyType } from '../wire/notify-type.ts'
import type { Payload, PayloadOf } from '../wire/payload.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'
import { answerChild, permittedBy } from './child-negotiation.ts'
import { establish } from './established.ts'
import { learnAuthorities } from './ike-init.ts'
import { acceptPpk } from './ppk.ts'
import {
  certificatePayloads,
  certificatesIn,
  eapSecret,
  isSharedKeyProof,
  octetsOf,
  presharedKeyOf,
  sharedKeyPayload,
} from './proof.ts'
import { isResumptionProof, resumptionPayload } from './resume.ts'
import { answerTicketRequest } from './ticket-request.ts'

/** What the first request held; kept until the Child SA is made. */
interface FirstRequest {
  readonly identity: Identification
  readonly local: LocalIdentity
  readonly configuration: ConfigurationRequest | undefined
  /** SA, TSi, TSr and their notifications, copied. */
  readonly childPayloads: readonly Payload[]
  readonly proposedRemote: readonly TrafficSelector[]
  readonly proposedLocal: readonly TrafficSelector[]
  readonly isInitialContact: boolean
  readonly isEapOnly: boolean
}

/** What fits into an IKE message that no link cuts into pieces. */
const eapPacketBytes = 1020

type Stage =
  | { readonly name: 'first' }
  | {
      readonly name: 'certificate'
      readonly first: FirstRequest
      readonly auth: PayloadOf<'AUTH'>
      readonly ticket: number
    }
  | {
      readonly name: 'eap'
      readonly first: FirstRequest
      readonly eap: EapConversation
      /** Our ticket of the question that is out, and EAP's own. */
      readonly asked: { readonly ticket: number; readonly eapTicket: number } | undefined
    }
  | {
      readonly name: 'final'
      readonly first: FirstRequest
      readonly msk: Secret | undefined
      readonly authenticated: Authenticated
    }
  | {
      readonly name: 'grant'
      readonly first: FirstRequest
      readonly authenticated: Authenticated
      readonly ticket: number
      /** What proves us to the peer in the last response. */
      readonly proof: readonly Payload[]
    }
  | { readonly name: 'done' }

export class AuthResponder {
  readonly #connection: Connection
  readonly #association: Association
  #stage: Stage = { name: 'first' }
  #ppkNotify: readonly Payload[] = []

  constructor(connection: Connection, association: Association) {
    this.#connection = connection
    this.#association = association
  }

  /** Answers a request. The connection may be closed by the answer: `failure` then tells why. */
  answer(request: IncomingMessage, nowMs: number): Answer {
    const stage = this.#stage
    switch (stage.name) {
      case 'first':
        if (request.form !== 'first') return this.#fail('unexpected-auth-form', 'protocol-error')
        return this.#first(request, nowMs)
      case 'eap':
        if (request.form !== 'eap') return this.#fail('eap-expected', 'protocol-error')
        return this.#eapPacket(stage, findPayload(request.payloads, 'EAP')?.data, nowMs)
      case 'final':
        if (request.form !== 'final') return this.#fail('auth-expected', 'protocol-error')
        return this.#final(stage, findPayload(request.payloads, 'AUTH'))
      case 'certificate':
      case 'grant':
      case 'done':
        return this.#fail('unexpected-auth-request', 'protocol-error')
      default:
        return assertNever(stage)
    }
  }

  /** The end of the last answer, once it has been sent. */
  failure: { readonly cause: DisconnectCause; readonly detail: string } | undefined

  verdict(ticket: number, verdict: Verdict, nowMs: number): void {
    const stage = this.#stage
    if (stage.name !== 'eap' || stage.asked?.ticket !== ticket) {
      this.#connection.unexpected('late-verdict')
      return
    }
    stage.eap.handle({ type: 'verdict', ticket: stage.asked.eapTicket, verdict }, nowMs)
    this.#reply(this.#drainEap({ ...stage, asked: undefined }))
  }

  /** What EAP computes or asks elsewhere is there. */
  eapWake(ticket: number, nowMs: number): void {
    const stage = this.#stage
    if (stage.name !== 'eap' || stage.asked?.ticket !== ticket) {
      this.#connection.unexpected('late-eap-wake')
      return
    }
    stage.eap.handle({ type: 'wake', ticket: stage.asked.eapTicket }, nowMs)
    this.#reply(this.#drainEap({ ...stage, asked: undefined }))
  }

  certificateVerdict(ticket: number, verdict: CertificateVerdict): void {
    const stage = this.#stage
    if (stage.name !== 'certificate' || stage.ticket !== ticket) {
      this.#connection.unexpected('late-certificate-verdict')
      return
    }
    this.#reply(this.#certificateJudged(stage, verdict))
  }

  grantVerdict(ticket: number, verdict: GrantVerdict, nowMs: number): void {
    const stage = this.#stage
    if (stage.name !== 'grant' || stage.ticket !== ticket) {
      this.#connection.unexpected('late-grant-verdict')
      return
    }
    this.#reply(this.#granted(stage, verdict, nowMs))
  }

  /**
   * The composer turns the peer away. Whoever waits for an answer gets one, so that it does not ask
   * again for a minute; the answer is for the caller of this to send.
   */
  refuse(cause: DisconnectCause, detail: string): Payload[] {
    this.#fail(detail, cause)
    return [refusalOf(cause)]
  }

  destroy(): void {
    const stage = this.#stage
    if (stage.name === 'eap') stage.eap.destroy()
    if (stage.name === 'final') stage.msk?.destroy()
    this.#stage = { name: 'done' }
  }

  #reply(answer: Answer): void {
    if (answer === 'pending') return
    sendReply(this.#connection, this.#association, answer)
    if (this.failure) this.#connection.close(this.failure.cause, this.failure.detail)
  }

  /** One word for all reasons: a stranger learns no more (RFC 7296 §2.21.2). */
  #fail(detail: string, cause: DisconnectCause = 'authentication-failed'): Payload[] {
    this.destroy()
    this.failure = { cause, detail }
    return [notify(NotifyType.AUTHENTICATION_FAILED)]
  }

  #first(request: IncomingMessage, nowMs: number): Answer {
    const { payloads } = request
    const connection = this.#connection
    connection.setup.authMessageId = this.#association.answering?.messageId ?? 1
    const idi = findPayload(payloads, 'IDi')
    if (idi === undefined) return this.#fail('no-identity', 'protocol-error')
    const identity = { idType: idi.idType, data: copyBytes(idi.data) }
    const first = this.#keep(identity, payloads)
    connection.peer.mobike =
      connection.options.features.mobike &&
      findNotify(payloads, NotifyType.MOBIKE_SUPPORTED) !== undefined
    learnAuthorities(connection, payloads)
    const received = findPayload(payloads, 'AUTH')
    if (connection.resumption) return this.#resumed(first, connection.resumption, received, nowMs)
    if (received === undefined) {
      return connection.options.ppk?.isMandatory === true
        ? this.#fail('ppk-not-used')
        : this.#startEap(first)
    }
    const ppk = acceptPpk(connection, this.#association, payloads, received)
    if (ppk === undefined) return this.#fail('ppk-not-used')
    const { auth } = ppk
    this.#ppkNotify = ppk.answer
    if (auth.method === AuthMethod.SHARED_KEY) return this.#presharedKey(first, auth)
    return this.#signature(first, auth, payloads)
  }

  #keep(identity: Identification, payloads: readonly Payload[]): FirstRequest {
    const has = (notifyType: number) => findNotify(payloads, notifyType) !== undefined
    const cp = findPayload(payloads, 'CP')
    const isRequest = cp?.configurationType === ConfigurationType.CFG_REQUEST
    return {
      identity,
      local: this.#localIdentity(findPayload(payloads, 'IDr')),
      configuration: cp && isRequest ? parseConfigurationRequest(cp) : undefined,
      // The machine copied the message at its door, so these views stay valid.
      childPayloads: payloads.filter(
        item =>
          item.type === 'SA' || item.type === 'TSi' || item.type === 'TSr' || item.type === 'N',
      ),
      proposedRemote: copySelectors(findPayload(payloads, 'TSi')?.selectors ?? []),
      proposedLocal: copySelectors(findPayload(payloads, 'TSr')?.selectors ?? []),
      isInitialContact: has(NotifyType.INITIAL_CONTACT),
      isEapOnly: has(NotifyType.EAP_ONLY_AUTHENTICATION),
    }
  }

  /** Windows sends no IDr, others send what the user typed: the first identity is the default. */
  #localIdentity(wanted: Identification | undefined): LocalIdentity {
    const { localIdentities } = this.#connection.options
    const named = wanted && localIdentities.find(row => isSameIdentity(row.identity, wanted))
    return named ?? localIdentities[0]
  }

  #identityPayload(first: FirstRequest): Payload {
    return { type: 'IDr', ...first.local.identity }
  }

  /** IDr, and CERT and AUTH of our own; undefined when we cannot prove ourselves to this peer. */
  #ownProof(first: FirstRequest, psk: Secret | undefined): Payload[] | undefined {
    const { identity, credential } = first.local
    const association = this.#association
    // Who comes with a preshared key expects the same: it may know no authority.
    if (credential.type === 'certificate' && psk === undefined) {
      const proof = certificatePayloads(
        this.#connection,
        association,
        'responder',
        identity,
        credential,
      )
      return proof && [this.#identityPayload(first), ...proof]
    }
    const secret = psk ?? (credential.type === 'psk' ? credential.secret : undefined)
    if (secret === undefined) return undefined
    return [
      this.#identityPayload(first),
      ...sharedKeyPayload(this.#connection, association, 'responder', identity, secret),
    ]
  }

  #presharedKey(first: FirstRequest, auth: PayloadOf<'AUTH'>): Answer {
    const secret = presharedKeyOf(this.#connection, first.identity)
    if (secret === undefined) return this.#fail('no-preshared-key')
    const isProof = isSharedKeyProof(
      this.#connection,
      this.#association,
      'initiator',
      first.identity,
      secret,
      auth,
    )
    if (!isProof) return this.#fail('wrong-preshared-key')
    // Both sides hold the same key, so it proves us too.
    const proof = this.#ownProof(first, secret)
    if (proof === undefined) return this.#fail('no-credential', 'nas-error')
    const userName = describeIdentity(first.identity)
    return this.#askGrant(
      first,
      { by: 'psk', identity: first.identity, userName, authorization: undefined },
      proof,
    )
  }

  #signature(first: FirstRequest, auth: PayloadOf<'AUTH'>, payloads: readonly Payload[]): Answer {
    const connection = this.#connection
    const certificates = certificatesIn(payloads)
    if (!connection.options.peer.acceptsCertificates) return this.#fail('certificates-not-accepted')
    if (certificates.length === 0) return this.#fail('no-certificate')
    const ticket = connection.newTicket()
    this.#stage = { name: 'certificate', first, auth, ticket }
    connection.emit({
      type: 'verify-certificate',
      ticket,
      certificates,
      identity: first.identity,
      purpose: 'client',
    })
    return 'pending'
  }

  #certificateJudged(
    stage: Extract<Stage, { name: 'certificate' }>,
    verdict: CertificateVerdict,
  ): Answer {
    const connection = this.#connection
    if (verdict.type === 'reject') return this.#fail(`certificate-${verdict.detail}`)
    const { first, auth } = stage
    const octets = octetsOf(connection, this.#association, 'initiator', first.identity)
    const { signature } = connection.options
    const checked = verifySignature(verdict.publicKey, octets, auth, signature)
    if (checked.type === 'invalid') return this.#fail(`signature-${checked.detail}`)
    connection.peer.signsPss = checked.isPss
    const proof = this.#ownProof(first, undefined)
    if (proof === undefined) return this.#fail('no-credential', 'nas-error')
    return this.#askGrant(
      first,
      {
        by: 'certificate',
        identity: first.identity,
        userName: verdict.authorization.userName,
        authorization: verdict.authorization,
      },
      proof,
    )
  }

  /** RFC 5723 §5.1: who has the keys of the old IKE SA is whose it was. */
  #resumed(
    first: FirstRequest,
    resumption: NonNullable<Connection['resumption']>,
    auth: PayloadOf<'AUTH'> | undefined,
    nowMs: number,
  ): Answer {
    const connection = this.#connection
    const association = this.#association
    const { identity } = first
    if (!isResumptionProof(connection, association, 'initiator', auth)) {
      return this.#fail('wrong-resumption-proof')
    }
    if (!isSameIdentity(identity, resumption.initiatorIdentity)) return this.#fail('other-identity')
    if (connection.options.tickets?.spend(resumption.ticket, nowMs) !== true) {
      return this.#fail('ticket-used-twice')
    }
    const userName = describeIdentity(identity)
    return this.#askGrant(
      { ...first, local: { ...first.local, identity: resumption.responderIdentity } },
      { by: 'resumption', identity, userName, authorization: undefined },
      [
        { type: 'IDr', ...resumption.responderIdentity },
        ...resumptionPayload(connection, association, 'responder'),
      ],
    )
  }

  #startEap(first: FirstRequest): Answer {
    const connection = this.#connection
    const { eap: policy } = connection.options.peer
    if (policy === undefined) return this.#fail('eap-not-accepted')
    const isEapOnly = first.isEapOnly && policy.acceptsEapOnly
    const proof = isEapOnly ? [this.#identityPayload(first)] : this.#ownProof(first, undefined)
    if (proof === undefined) return this.#fail('no-credential', 'nas-error')
    const lowerLayer: EapLowerLayer = {
      call: {
        protocol: 'ikev2',
        peerAddress: connection.path.peer.address,
        // Of the attempt: a session begins when somebody is named.
        sessionId: `ikev2-${toHex(this.#association.localSpi)}`,
      },
      packetBytes: eapPacketBytes,
      firstIdentifier: randomBytes(connection.host.random, 1)[0] ?? 0,
    }
    const eap =
      policy.begin?.(lowerLayer) ?? new EapAuthenticator({ ...lowerLayer, methods: policy.methods })
    eap.handle({ type: 'start' }, 0)
    const stage = { name: 'eap', first: { ...first, isEapOnly }, eap, asked: undefined } as const
    const packet = this.#drainEap(stage)
    return packet === 'pending' ? packet : [...proof, ...packet]
  }

  #eapPacket(
    stage: Extract<Stage, { name: 'eap' }>,
    bytes: Uint8Array | undefined,
    nowMs: number,
  ): Answer {
    stage.eap.handle({ type: 'packet', bytes: bytes ?? new Uint8Array(0) }, nowMs)
    return this.#drainEap(stage)
  }

  /** Does what EAP wants after an input; the answer carries its packet. */
  #drainEap(stage: Extract<Stage, { name: 'eap' }>): Answer {
    this.#stage = stage
    let packet: Uint8Array | undefined
    for (let out = stage.eap.poll(); out !== undefined; out = stage.eap.poll()) {
      if (out.type === 'transmit') packet = out.bytes
      else this.#eapEvent(stage, out.event)
    }
    if (packet !== undefined) return [{ type: 'EAP', data: packet }]
    const after = this.#stage
    if (after.name === 'eap' && after.asked !== undefined) return 'pending'
    return this.failure ? [notify(NotifyType.AUTHENTICATION_FAILED)] : this.#fail('eap-malformed')
  }

  #eapEvent(stage: Extract<Stage, { name: 'eap' }>, event: EapConversationEvent): void {
    const connection = this.#connection
    switch (event.type) {
      case 'authenticate': {
        const ticket = connection.newTicket()
        this.#stage = { ...stage, asked: { ticket, eapTicket: event.ticket } }
        connection.emit({ type: 'authenticate', ticket, request: event.request })
        return
      }
      case 'authorize':
        // Whether it may come in is asked after the last AUTH, by need-grant.
        stage.eap.handle(
          {
            type: 'verdict',
            ticket: event.ticket,
            verdict: { type: 'accept', authorization: event.authorization },
          },
          0,
        )
        return
      case 'pending': {
        const ticket = connection.newTicket()
        this.#stage = { ...stage, asked: { ticket, eapTicket: event.ticket } }
        connection.emit({ type: 'eap-pending', ticket, settled: event.settled })
        return
      }
      case 'success':
        this.#eapSuccess(stage.first, event)
        return
      case 'failure':
        this.#stage = { name: 'done' }
        this.failure = { cause: eapCause(event.reason), detail: `eap-${event.reason}` }
        return
      case 'unexpected':
        connection.unexpected(event.what)
        return
      default:
        assertNever(event)
    }
  }

  #eapSuccess(
    first: FirstRequest,
    event: Extract<EapConversationEvent, { type: 'success' }>,
  ): void {
    // RFC 5998 §3: without our signature only a key can prove us.
    if (first.isEapOnly && event.msk === undefined) {
      this.#fail('eap-only-without-keys')
      return
    }
    this.#stage = {
      name: 'final',
      first,
      msk: event.msk,
      authenticated: {
        by: 'eap',
        identity: first.identity,
        userName: event.authorization.userName,
        authorization: event.authorization,
      },
    }
  }

  #final(stage: Extract<Stage, { name: 'final' }>, auth: PayloadOf<'AUTH'> | undefined): Answer {
    const { first, msk, authenticated } = stage
    const connection = this.#connection
    const association = this.#association
    const theirs = eapSecret(association, 'initiator', msk)
    const ours = eapSecret(association, 'responder', msk)
    const isProof =
      auth !== undefined &&
      theirs !== undefined &&
      isSharedKeyProof(connection, association, 'initiator', first.identity, theirs, auth)
    if (!isProof || ours === undefined) return this.#fail('eap-auth-mismatch')
    const { identity } = first.local
    const proof = sharedKeyPayload(connection, association, 'responder', identity, ours)
    msk?.destroy()
    return this.#askGrant(first, authenticated, proof)
  }

  #askGrant(first: FirstRequest, authenticated: Authenticated, proof: readonly Payload[]): Answer {
    const ticket = this.#connection.newTicket()
    this.#stage = { name: 'grant', first, authenticated, ticket, proof }
    this.#connection.emit({
      type: 'need-grant',
      ticket,
      authenticatedBy: authenticated.by,
      identity: authenticated.identity,
      userName: authenticated.userName,
      authorization: authenticated.authorization,
      configuration: first.configuration,
      proposedLocalSelectors: first.proposedLocal,
      proposedRemoteSelectors: first.proposedRemote,
      resumed: this.#connection.resumption?.memo,
      isInitialContact: first.isInitialContact,
    })
    return 'pending'
  }

  #granted(stage: Extract<Stage, { name: 'grant' }>, verdict: GrantVerdict, nowMs: number): Answer {
    const connection = this.#connection
    if (verdict.type === 'refuse') return this.refuse(verdict.cause, 'grant-refused')
    const { first, authenticated, proof } = stage
    const { resumeMemo: memo } = verdict.grant
    connection.permitted = permittedBy(verdict.grant)
    if (memo !== undefined) {
      const { identity: peerIdentity } = authenticated
      connection.resumable = { peerIdentity, localIdentity: first.local.identity, memo }
    }
    this.#stage = { name: 'done' }
    establish(connection, authenticated, verdict.grant, nowMs)
    const payloads: Payload[] = [...proof, ...this.#ppkNotify]
    if (first.configuration) payloads.push(configurationReply(first.configuration, verdict.grant))
    if (connection.peer.mobike) payloads.push(notify(NotifyType.MOBIKE_SUPPORTED))
    const { childPayloads } = first
    payloads.push(...answerTicketRequest(connection, this.#association, childPayloads, nowMs))
    // RFC 6023 §3: the peer may come without a Child SA.
    if (!childPayloads.some(payload => payload.type === 'SA')) return payloads
    const context = { isInAuth: true, replaces: undefined }
    const answer = answerChild(connection, this.#association, childPayloads, context, nowMs)
    if (answer.child) connection.activate(answer.child)
    return [...payloads, ...answer.payloads]
  }
}

/**
 * RFC 7296 §2.21.2, §3.15.4: there is a word of its own for a lack of addresses; NO_ADDITIONAL_SAS and
 * TEMPORARY_FAILURE are about exchanges of an IKE SA that stands, so all else is AUTHENTICATION_FAILED.
 */
function refusalOf(cause: DisconnectCause): Payload {
  return notify(
    cause === 'no-address' ? NotifyType.INTERNAL_ADDRESS_FAILURE : NotifyType.AUTHENTICATION_FAILED,
  )
}

function eapCause(
  reason: Extract<EapConversationEvent, { type: 'failure' }>['reason'],
): DisconnectCause {
  switch (reason) {
    case 'backend-unavailable':
      return 'service-unavailable'
    case 'no-dial-in':
    case 'restricted-hours':
    case 'method-not-allowed':
      return 'not-authorized'
    case 'bad-credentials':
    case 'locked-out':
    case 'account-disabled':
    case 'account-expired':
    case 'password-expired':
    case 'change-password-failed':
      return 'authentication-failed'
    default:
      return assertNever(reason)
  }
}

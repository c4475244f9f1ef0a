/** Judges proofs by asking RADIUS servers: PAP, CHAP, MS-CHAPv2 with change of password, EAP whole. */
import { concatBytes, copyBytes, utf8Text } from '../../core/bytes.ts'
import { assertNever } from '../../core/errors.ts'
import type { Logger } from '../../core/log.ts'
import { Secret, wipe } from '../../core/secret.ts'
import { masterKeyBytes } from '../../crypto/mppe-keys.ts'
import type {
  AuthenticationMethod,
  AuthenticationRequest,
  Authenticator,
  CallContext,
  MasterKeys,
  Proof,
  RejectReason,
  Verdict,
} from '../authenticator.ts'
import type { EapRelay, EapRelayAnswer, EapRelayRequest } from '../eap-relay.ts'
import type { Lockout } from '../lockout.ts'
import { splitUserName } from '../policy/user-name.ts'
import { logRefusal } from '../refusal-log.ts'
import { authorizationOf, messageOfReply } from './authorization.ts'
import type { RadiusExchange } from './client.ts'
import type { RadiusAnswer } from './client-machine.ts'
import { revealKey } from './hiding.ts'
import { callAttributes, microsoftAttributes, type NasIdentity } from './nas.ts'
import { AttributeList, bytesOf, bytesOfAll, joinedOf, u32Of } from './wire/attributes.ts'
import { RadiusCode } from './wire/packet.ts'

export interface RadiusAuthenticatorOptions {
  readonly exchange: RadiusExchange
  readonly nas: NasIdentity
  /** As the configuration names them. */
  readonly methods: readonly string[]
  /**
   * Guesses end here, not at the server. EAP is its own business: the name outside a tunnel may be
   * everybody's.
   */
  readonly lockout: Lockout
  readonly log: Logger
}

/** What the configuration calls each kind of proof. */
const methodNames = {
  pap: 'pap',
  'chap-md5': 'chap',
  mschapv2: 'mschapv2',
  'mschapv2-change-password': 'mschapv2',
} as const satisfies Record<AuthenticationMethod, string>

/** RFC 2759 §6. */
const errorReasons: Readonly<Record<string, RejectReason>> = {
  '646': 'restricted-hours',
  '647': 'account-disabled',
  '648': 'password-expired',
  '649': 'no-dial-in',
  '691': 'bad-credentials',
  '709': 'change-password-failed',
}

/** RFC 2865 §5.6: what an Accept may ask of us. */
const serviceTypeFramed = 2
/** RFC 2548 §2.3.4 and §2.1.5: parts of an encrypted password, bytes. */
const encryptedPartBytes = 243
/** RFC 5247 §1.2: an MSK has at least 64 bytes; those of EAP-MSCHAPv2 have 32 and zeros. */
const mskBytes = 64
/** Longest EAP packet that we ask for, bytes: it must fit in a PPP frame of any tunnel. */
const framedMtuBytes = 1344

type Accepted = Extract<Verdict, { type: 'accept' }>

export class RadiusAuthenticator implements Authenticator, EapRelay {
  readonly #exchange: RadiusExchange
  readonly #nas: NasIdentity
  readonly #methods: ReadonlySet<string>
  readonly #lockout: Lockout
  readonly #log: Logger

  constructor(options: RadiusAuthenticatorOptions) {
    this.#exchange = options.exchange
    this.#nas = options.nas
    this.#methods = new Set(options.methods)
    this.#lockout = options.lockout
    this.#log = options.log
  }

  async authenticate(request: AuthenticationRequest): Promise<Verdict> {
    const { proof, userName, call } = request
    const verdict = this.#methods.has(methodNames[proof.method])
      ? await this.#judge(request)
      : reject('method-not-allowed', false)
    if (verdict.type === 'reject') {
      logRefusal(this.#log, { userName, method: proof.method, call }, verdict.reason)
    }
    return verdict
  }

  /** RFC 3579 §2: the packet as it came, and what the server says to it. */
  async relayEap(request: EapRelayRequest): Promise<EapRelayAnswer> {
    const { identity, packet, state, call } = request
    const list = this.#requestOf(identity, call)
      .u32('Framed-MTU', framedMtuBytes)
      .split('EAP-Message', packet)
    if (state !== undefined) list.bytes('State', state)
    const answer = await this.#exchange.request({ code: 'access', attributes: list.attributes })
    const relayed = this.#relayed(answer, identity)
    if (relayed.type === 'reject') {
      logRefusal(this.#log, { userName: identity, method: 'eap', call }, relayed.reason)
    }
    return relayed
  }

  /** Failures count for the account, in whatever domain it is said to be. */
  async #judge(request: AuthenticationRequest): Promise<Verdict> {
    const { peerAddress, sessionId } = request.call
    const { user } = splitUserName(request.userName)
    if (this.#lockout.isLocked(user, peerAddress)) return reject('locked-out', false)
    const verdict = await this.#ask(request)
    if (verdict.type === 'accept') this.#lockout.succeed(user)
    else if (verdict.reason === 'bad-credentials') {
      for (const what of this.#lockout.fail(user, peerAddress)) {
        this.#log.warn(
          { event: 'locked-out', what, user, peer: peerAddress, sessionId },
          'too many failed log-ins',
        )
      }
    }
    return verdict
  }

  async #ask({ userName, proof, call }: AuthenticationRequest): Promise<Verdict> {
    const list = this.#requestOf(userName, call).all(proofAttributes(proof))
    const answer = await this.#exchange.request({
      code: 'access',
      attributes: list.attributes,
      ...(proof.method === 'pap' && { password: proof.password }),
    })
    if (answer === undefined) return reject('backend-unavailable', false)
    const { attributes, code } = answer
    const message = messageOfReply(attributes)
    const said = message === undefined ? {} : { message }
    if (code === RadiusCode['Access-Accept']) {
      return { ...this.#accepted(answer, userName, proof), ...said }
    }
    // A challenge outside EAP wants to ask the user something, and these protocols cannot.
    if (code !== RadiusCode['Access-Reject']) return reject('method-not-allowed', false)
    const error = chapError(bytesOf(attributes, 'MS-CHAP-Error'))
    return { ...(error ?? reject('bad-credentials', false)), ...said }
  }

  #requestOf(userName: string, call: CallContext): AttributeList {
    return new AttributeList()
      .text('User-Name', userName)
      .all(callAttributes(this.#nas, call))
      .all(microsoftAttributes(call))
  }

  #accepted(answer: RadiusAnswer, userName: string, proof: Proof): Verdict {
    const { attributes } = answer
    const refused = refusedService(answer)
    if (refused !== undefined) return refused
    const accepted: Accepted = {
      type: 'accept',
      authorization: authorizationOf(attributes, userName),
    }
    if (proof.method === 'pap' || proof.method === 'chap-md5') return accepted
    const success = chapSuccess(bytesOf(attributes, 'MS-CHAP2-Success'))
    const keys = masterKeys(answer)
    if (success === undefined || keys === undefined) {
      this.#log.error(
        { event: 'radius-accept-unusable', server: answer.server },
        'radius server accepts MS-CHAPv2 without its proof or without keys',
      )
      return reject('backend-unavailable', false)
    }
    return { ...accepted, ...success, keys }
  }

  #relayed(answer: RadiusAnswer | undefined, identity: string): EapRelayAnswer {
    if (answer === undefined) return { type: 'reject', reason: 'backend-unavailable' }
    const { attributes, code } = answer
    const packet = joinedOf(attributes, 'EAP-Message')
    const packetOf = packet === undefined ? {} : { packet }
    const state = bytesOf(attributes, 'State')
    if (code === RadiusCode['Access-Challenge']) {
      // RFC 3579 §2.6.3: a challenge without a packet says nothing.
      if (packet === undefined) return { type: 'reject', reason: 'backend-unavailable' }
      return { type: 'challenge', packet, ...(state !== undefined && { state }) }
    }
    if (code === RadiusCode['Access-Reject']) {
      return { type: 'reject', reason: 'bad-credentials', ...packetOf }
    }
    const refused = refusedService(answer)
    if (refused?.type === 'reject') return { type: 'reject', reason: refused.reason }
    const msk = mskOf(answer)
    return {
      type: 'accept',
      ...packetOf,
      authorization: authorizationOf(attributes, identity),
      ...(msk !== undefined && { msk }),
    }
  }
}

function proofAttributes(proof: Proof) {
  const list = new AttributeList()
  switch (proof.method) {
    case 'pap':
      // Hidden by the client under the secret of whom it asks.
      break
    case 'chap-md5':
      list
        .bytes('CHAP-Password', concatBytes(Uint8Array.of(proof.identifier), proof.response))
        .bytes('CHAP-Challenge', copyBytes(proof.challenge))
      break
    case 'mschapv2':
      // RFC 2548 §2.3.2: identifier, flags, peer challenge, 8 reserved, response.
      list
        .bytes('MS-CHAP-Challenge', copyBytes(proof.authenticatorChallenge))
        .bytes(
          'MS-CHAP2-Response',
          concatBytes(
            Uint8Array.of(proof.identifier, 0),
            proof.peerChallenge,
            new Uint8Array(8),
            proof.ntResponse,
          ),
        )
      break
    case 'mschapv2-change-password':
      // RFC 2548 §2.3.4: code 7, identifier, hash, peer challenge with 8 reserved, response, flags.
      list.bytes('MS-CHAP-Challenge', copyBytes(proof.authenticatorChallenge))
      for (let part = 0; part * encryptedPartBytes < proof.encryptedPassword.length; part++) {
        const at = part * encryptedPartBytes
        const end = Math.min(at + encryptedPartBytes, proof.encryptedPassword.length)
        // RFC 2548 §2.1.6: code 6, identifier, sequence number from 1.
        list.bytes(
          'MS-CHAP-NT-Enc-PW',
          concatBytes(
            Uint8Array.of(6, proof.identifier, 0, part + 1),
            copyBytes(proof.encryptedPassword, at, end),
          ),
        )
      }
      list.bytes(
        'MS-CHAP2-CPW',
        concatBytes(
          Uint8Array.of(7, proof.identifier),
          proof.encryptedHash,
          proof.peerChallenge,
          new Uint8Array(8),
          proof.ntResponse,
          new Uint8Array(2),
        ),
      )
      break
    default:
      assertNever(proof)
  }
  return list.attributes
}

/** RFC 2865 §5.6: a service that we do not have is a refusal. */
function refusedService({ attributes }: RadiusAnswer): Verdict | undefined {
  const service = u32Of(attributes, 'Service-Type')
  return service === undefined || service === serviceTypeFramed
    ? undefined
    : reject('no-dial-in', false)
}

/** RFC 2548 §2.3.3: identifier, `S=` and 40 digits, perhaps a message. */
function chapSuccess(value: Uint8Array | undefined): { authenticatorResponse: string } | undefined {
  const match = /^(S=[0-9A-Fa-f]{40})(?:$|[ \0])/.exec(utf8Text(copyBytes(value ?? nothing, 1)))
  return match?.[1] === undefined ? undefined : { authenticatorResponse: match[1].toUpperCase() }
}

const nothing = new Uint8Array(0)

/** RFC 2548 §2.1.5 and RFC 2759 §6: identifier, `E=691 R=1 C=... V=3 M=...`. */
function chapError(value: Uint8Array | undefined): Verdict | undefined {
  if (value === undefined) return undefined
  const text = utf8Text(copyBytes(value, 1))
  const reason = errorReasons[/\bE=(\d{3})\b/.exec(text)?.[1] ?? ''] ?? 'bad-credentials'
  // An expired password may be changed on the same link (RFC 2759 §7), whatever R says.
  return reject(reason, reason === 'password-expired' || /\bR=1\b/.test(text))
}

/** 16 bytes each; longer ones, of servers that pad, are cut. */
function masterKeys(answer: RadiusAnswer): MasterKeys | undefined {
  const receive = keyOf(answer, 'MS-MPPE-Recv-Key')
  const send = keyOf(answer, 'MS-MPPE-Send-Key')
  if (receive === undefined || send === undefined) return undefined
  if (receive.length < masterKeyBytes || send.length < masterKeyBytes) return undefined
  return {
    receive: copyBytes(receive, 0, masterKeyBytes),
    send: copyBytes(send, 0, masterKeyBytes),
  }
}

/** RFC 5216 §2.3 and RFC 3748 §7.10 through RADIUS: the receive key, then the send key. */
function mskOf(answer: RadiusAnswer): Secret | undefined {
  const receive = keyOf(answer, 'MS-MPPE-Recv-Key')
  const send = keyOf(answer, 'MS-MPPE-Send-Key')
  if (receive === undefined || send === undefined) return undefined
  const both = concatBytes(receive, send)
  const padded = new Uint8Array(Math.max(mskBytes, both.length))
  padded.set(both)
  const msk = new Secret(padded)
  wipe(receive, send, both, padded)
  return msk
}

/** The first that can be revealed: a proxy may have added one under another secret. */
function keyOf(
  { attributes, secret, requestAuthenticator }: RadiusAnswer,
  name: 'MS-MPPE-Recv-Key' | 'MS-MPPE-Send-Key',
): Uint8Array | undefined {
  for (const hidden of bytesOfAll(attributes, name)) {
    const key = revealKey(hidden, secret, requestAuthenticator)
    if (key !== undefined) return key
  }
  return undefined
}

function reject(reason: RejectReason, canRetry: boolean): Extract<Verdict, { type: 'reject' }> {
  return { type: 'reject', reason, canRetry }
}

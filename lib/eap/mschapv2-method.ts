/**
 * EAP-MSCHAPv2, [MS-CHAP] §3 (draft-kamath-pppext-eap-mschapv2): Challenge, Response, Success with the
 * server's own proof, its acknowledgement. Every client insists on that last round.
 */
import type { Authorization, MasterKeys, RejectReason, Verdict } from '../aaa/authenticator.ts'
import { copyBytes, toHex } from '../core/bytes.ts'
import { assertNever } from '../core/errors.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import { Secret, wipe } from '../core/secret.ts'
import { serverKeysOf } from '../crypto/mppe-keys.ts'
import {
  challengeBytes,
  checkAuthenticatorResponse,
  generateNtResponse,
  type Mschapv2Exchange,
  ntPasswordHash,
} from '../crypto/ms-chap.ts'
import type { EapPeerMethod, EapPeerStep, EapServerMethod, EapServerStep } from './method.ts'
import {
  checkMschapv2Packet,
  type Mschapv2Packet,
  mschapv2PacketOf,
  parseMschapv2Packet,
} from './mschapv2-packet.ts'
import { EapType } from './packet.ts'

/** [MS-CHAP] §3.1.5.1: 64 bytes, of which the last 32 are zero. */
const MSK_BYTES = 64
/** RFC 2759 §6 leaves it to us how often a user may type again in one conversation. */
const RETRIES_MAX = 3

/** MSK = server's receive key, send key, zeros ([MS-CHAP], MSK). */
export function mschapv2Msk(keys: MasterKeys): Secret {
  const bytes = new Uint8Array(MSK_BYTES)
  bytes.set(keys.receive)
  bytes.set(keys.send, keys.receive.length)
  const msk = new Secret(bytes)
  wipe(bytes)
  return msk
}

/** RFC 2759 §6: what the peer is told. Windows maps 691 to "wrong name or password". */
function errorCode(reason: RejectReason): number {
  switch (reason) {
    case 'restricted-hours':
      return 646
    case 'account-disabled':
      return 647
    case 'password-expired':
      return 648
    case 'no-dial-in':
      return 649
    case 'change-password-failed':
      return 709
    case 'bad-credentials':
    case 'locked-out':
    case 'account-expired':
    case 'method-not-allowed':
    case 'backend-unavailable':
      return 691
    default:
      return assertNever(reason)
  }
}

export interface Mschapv2ServerOptions {
  readonly random: RandomSource
  /** Name in the Challenge. */
  readonly serverName: string
}

type ServerState =
  | { readonly name: 'idle' }
  | { readonly name: 'challenged' }
  | { readonly name: 'judging' }
  | { readonly name: 'success-sent'; readonly authorization: Authorization; readonly msk: Secret }
  | {
      readonly name: 'failure-sent'
      readonly reason: RejectReason
      readonly canRetry: boolean
    }

export class Mschapv2ServerMethod implements EapServerMethod {
  readonly eapType = EapType.MSCHAPv2
  readonly #options: Mschapv2ServerOptions
  #challenge: Uint8Array = new Uint8Array(0)
  /** The name of the last Response: a change of password is about it. */
  #userName = ''
  #mschapv2Id = 0
  #retries = 0
  #state: ServerState = { name: 'idle' }

  constructor(options: Mschapv2ServerOptions) {
    this.#options = options
  }

  start(_identity: string, identifier: number): EapServerStep {
    this.#challenge = randomBytes(this.#options.random, challengeBytes)
    this.#mschapv2Id = identifier
    this.#state = { name: 'challenged' }
    return request({
      type: 'challenge',
      mschapv2Id: identifier,
      challenge: this.#challenge,
      name: this.#options.serverName,
    })
  }

  response(typeData: Uint8Array): EapServerStep {
    if (checkMschapv2Packet(typeData)) return ignore('eap-mschapv2-malformed')
    const packet = parseMschapv2Packet(typeData)
    const state = this.#state
    switch (state.name) {
      case 'challenged':
        return packet.type === 'response'
          ? this.#judge(packet)
          : ignore('eap-mschapv2-not-response')
      case 'success-sent':
        // Success is computed by us; only the acknowledgement of our own proof ends the method.
        if (packet.type === 'failure-response')
          return { type: 'failure', reason: 'bad-credentials' }
        if (!isAcknowledgement(packet)) return ignore('eap-mschapv2-not-success')
        this.#state = { name: 'idle' }
        return { type: 'success', authorization: state.authorization, msk: state.msk }
      case 'failure-sent':
        if (packet.type === 'change-password') return this.#changePassword(packet, state.reason)
        // The peer may answer with a new Response to the challenge in C= (RFC 2759 §6).
        if (packet.type === 'response' && state.canRetry) return this.#judge(packet)
        return { type: 'failure', reason: state.reason }
      case 'idle':
      case 'judging':
        return ignore(`eap-mschapv2-response-while-${state.name}`)
      default:
        return assertNever(state)
    }
  }

  #judge(packet: Extract<Mschapv2Packet, { type: 'response' }>): EapServerStep {
    this.#userName = packet.name
    this.#state = { name: 'judging' }
    return {
      type: 'authenticate',
      // The name of the Response goes into the hash, so it is the one that is proved.
      userName: packet.name,
      proof: {
        method: 'mschapv2',
        identifier: this.#mschapv2Id,
        authenticatorChallenge: this.#challenge,
        // copied: outlives the packet
        peerChallenge: copyBytes(packet.peerChallenge),
        ntResponse: copyBytes(packet.ntResponse),
      },
    }
  }

  #changePassword(
    packet: Extract<Mschapv2Packet, { type: 'change-password' }>,
    reason: RejectReason,
  ): EapServerStep {
    if (reason !== 'password-expired') return { type: 'failure', reason }
    this.#state = { name: 'judging' }
    return {
      type: 'authenticate',
      userName: this.#userName,
      proof: {
        method: 'mschapv2-change-password',
        identifier: packet.mschapv2Id,
        authenticatorChallenge: this.#challenge,
        peerChallenge: copyBytes(packet.peerChallenge),
        ntResponse: copyBytes(packet.ntResponse),
        encryptedPassword: copyBytes(packet.encryptedPassword),
        encryptedHash: copyBytes(packet.encryptedHash),
      },
    }
  }

  verdict(verdict: Verdict, identifier: number): EapServerStep {
    if (this.#state.name !== 'judging') return ignore('eap-mschapv2-late-verdict')
    if (verdict.type === 'accept') {
      // A method that makes keys must never succeed without them (CVE-2021-45079).
      if (verdict.keys === undefined || verdict.authenticatorResponse === undefined) {
        return { type: 'failure', reason: 'backend-unavailable' }
      }
      this.#state = {
        name: 'success-sent',
        authorization: verdict.authorization,
        msk: mschapv2Msk(verdict.keys),
      }
      return request({
        type: 'success-request',
        mschapv2Id: this.#mschapv2Id,
        message: `${verdict.authenticatorResponse} M=${verdict.message ?? 'OK'}`,
      })
    }
    const mayRetry = verdict.canRetry && verdict.reason !== 'password-expired'
    const canRetry = mayRetry && this.#retries++ < RETRIES_MAX
    this.#state = { name: 'failure-sent', reason: verdict.reason, canRetry }
    this.#challenge = randomBytes(this.#options.random, challengeBytes)
    const failed = this.#mschapv2Id
    this.#mschapv2Id = identifier
    return request({
      type: 'failure-request',
      mschapv2Id: failed,
      message:
        `E=${errorCode(verdict.reason)} R=${canRetry ? 1 : 0} ` +
        `C=${toHex(this.#challenge).toUpperCase()} V=3 M=${verdict.message ?? 'Authentication failed'}`,
    })
  }

  destroy(): void {
    if (this.#state.name === 'success-sent') this.#state.msk.destroy()
    this.#challenge.fill(0)
    this.#state = { name: 'idle' }
  }
}

function request(packet: Mschapv2Packet): EapServerStep {
  return { type: 'request', typeData: mschapv2PacketOf(packet) }
}

function ignore(unexpected: string): { type: 'ignore'; unexpected: string } {
  return { type: 'ignore', unexpected }
}

/** OpCode 3 alone, as specified, or with the header and nothing else, as some peers send it. */
function isAcknowledgement(packet: Mschapv2Packet): boolean {
  return (
    packet.type === 'success-response' ||
    (packet.type === 'success-request' && packet.message === '')
  )
}

type PeerState =
  | { readonly name: 'idle' }
  | {
      readonly name: 'responded'
      readonly exchange: Mschapv2Exchange
      readonly ntResponse: Uint8Array
    }
  | { readonly name: 'complete'; readonly msk: Secret }
  | { readonly name: 'failed'; readonly message: string }

export interface Mschapv2PeerOptions {
  readonly random: RandomSource
  readonly userName: string
  readonly password: Secret
}

export class Mschapv2PeerMethod implements EapPeerMethod {
  readonly eapType = EapType.MSCHAPv2
  readonly #options: Mschapv2PeerOptions
  #state: PeerState = { name: 'idle' }

  constructor(options: Mschapv2PeerOptions) {
    this.#options = options
  }

  get isComplete(): boolean {
    return this.#state.name === 'complete'
  }

  /** The text of a Failure, `E=691 R=0 …`; undefined when there was none. */
  get failureMessage(): string | undefined {
    return this.#state.name === 'failed' ? this.#state.message : undefined
  }

  request(typeData: Uint8Array): EapPeerStep {
    if (checkMschapv2Packet(typeData)) return ignore('eap-mschapv2-malformed')
    const packet = parseMschapv2Packet(typeData)
    switch (packet.type) {
      case 'challenge':
        return this.#respond(packet)
      case 'success-request':
        return this.#checkSuccess(packet.message)
      case 'failure-request':
        this.#state = { name: 'failed', message: packet.message }
        return { type: 'response', typeData: mschapv2PacketOf({ type: 'failure-response' }) }
      case 'response':
      case 'change-password':
      case 'success-response':
      case 'failure-response':
        return ignore('eap-mschapv2-not-a-request')
      default:
        return assertNever(packet)
    }
  }

  #respond(packet: Extract<Mschapv2Packet, { type: 'challenge' }>): EapPeerStep {
    const exchange: Mschapv2Exchange = {
      userName: this.#options.userName,
      authenticatorChallenge: copyBytes(packet.challenge),
      peerChallenge: randomBytes(this.#options.random, challengeBytes),
    }
    const ntHash = ntPasswordHash(this.#options.password.exposeText())
    const ntResponse = generateNtResponse(exchange, ntHash)
    wipe(ntHash)
    this.#state = { name: 'responded', exchange, ntResponse }
    return {
      type: 'response',
      typeData: mschapv2PacketOf({
        type: 'response',
        mschapv2Id: packet.mschapv2Id,
        peerChallenge: exchange.peerChallenge,
        ntResponse,
        flags: 0,
        name: this.#options.userName,
      }),
    }
  }

  #checkSuccess(message: string): EapPeerStep {
    const state = this.#state
    if (state.name !== 'responded') return ignore('eap-mschapv2-early-success')
    const ntHash = ntPasswordHash(this.#options.password.exposeText())
    const isGenuine = checkAuthenticatorResponse(state.exchange, ntHash, state.ntResponse, message)
    if (!isGenuine) {
      wipe(ntHash)
      this.#state = { name: 'failed', message: 'the server does not know the password' }
      return { type: 'response', typeData: mschapv2PacketOf({ type: 'failure-response' }) }
    }
    const keys = serverKeysOf(ntHash, state.ntResponse)
    this.#state = { name: 'complete', msk: mschapv2Msk(keys) }
    wipe(ntHash, keys.receive, keys.send)
    return { type: 'response', typeData: mschapv2PacketOf({ type: 'success-response' }) }
  }

  takeMsk(): Secret | undefined {
    if (this.#state.name !== 'complete') return undefined
    const { msk } = this.#state
    this.#state = { name: 'idle' }
    return msk
  }

  destroy(): void {
    if (this.#state.name === 'complete') this.#state.msk.destroy()
    this.#state = { name: 'idle' }
  }
}

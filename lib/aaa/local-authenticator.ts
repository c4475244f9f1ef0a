/**
 * Judges proofs against local users. A name that does not exist costs the same work and gets the
 * same answer as a wrong password; what an account may not do is said only to who proved to own it.
 */

import { equalBytes } from '../core/bytes.ts'
import { systemWallClock, type WallClock } from '../core/clock.ts'
import { assertNever, messageOf } from '../core/errors.ts'
import { type Logger, silentLogger } from '../core/log.ts'
import { Secret, wipe } from '../core/secret.ts'
import { digest } from '../crypto/hash.ts'
import { serverKeysOf } from '../crypto/mppe-keys.ts'
import {
  checkEncryptedHash,
  checkNtResponse,
  decryptNewPassword,
  generateAuthenticatorResponse,
  type Mschapv2Exchange,
  ntPasswordHash,
  withoutDomain,
} from '../crypto/ms-chap.ts'
import type {
  AuthenticationMethod,
  AuthenticationRequest,
  Authenticator,
  MasterKeys,
  Proof,
  RejectReason,
  Verdict,
} from './authenticator.ts'
import type { Lockout } from './lockout.ts'
import { splitUserName } from './policy/user-name.ts'
import { logRefusal } from './refusal-log.ts'
import { TotpVerifier, totpDigits } from './totp.ts'
import { accountRefusal, authorizationOf } from './users/account.ts'
import type { User, UserSecrets, UserStore } from './users/user-store.ts'

export interface LocalAuthenticatorOptions {
  readonly users: UserStore
  /** As the configuration names them. */
  readonly methods: readonly ('mschapv2' | 'chap' | 'pap')[]
  readonly lockout: Lockout
  readonly wallClock?: WallClock
  readonly log?: Logger
  /** What a new password must have, UTF-16 units. */
  readonly shortestNewPassword?: number
  /** Outlives this, so that no one-time password is taken twice. */
  readonly totp?: TotpVerifier
}

/** What the configuration calls each kind of proof. */
const methodNames = {
  pap: 'pap',
  'chap-md5': 'chap',
  mschapv2: 'mschapv2',
  'mschapv2-change-password': 'mschapv2',
} as const satisfies Record<AuthenticationMethod, string>

/** What follows from a proof that holds. */
interface Proven {
  readonly keys?: MasterKeys
  readonly authenticatorResponse?: string
  /** To be stored; the old one held. */
  readonly newPassword?: Secret
}

export class LocalAuthenticator implements Authenticator {
  readonly #users: UserStore
  readonly #methods: ReadonlySet<string>
  readonly #lockout: Lockout
  readonly #wallClock: WallClock
  readonly #log: Logger
  readonly #shortestNewPassword: number
  readonly #totp: TotpVerifier

  constructor(options: LocalAuthenticatorOptions) {
    this.#users = options.users
    this.#methods = new Set(options.methods)
    this.#lockout = options.lockout
    this.#wallClock = options.wallClock ?? systemWallClock
    this.#log = options.log ?? silentLogger
    this.#shortestNewPassword = options.shortestNewPassword ?? 8
    this.#totp = options.totp ?? new TotpVerifier()
  }

  async authenticate(request: AuthenticationRequest): Promise<Verdict> {
    let verdict: Verdict
    try {
      verdict = this.#judge(request)
    } catch (thrown) {
      this.#log.error({ event: 'user-store-failed', reason: messageOf(thrown) }, 'users unreadable')
      verdict = reject('backend-unavailable', false)
    }
    if (verdict.type === 'reject') {
      const { userName, proof, call } = request
      logRefusal(this.#log, { userName, method: proof.method, call }, verdict.reason)
    }
    return verdict
  }

  #judge(request: AuthenticationRequest): Verdict {
    const { proof, call } = request
    if (!this.#methods.has(methodNames[proof.method])) return reject('method-not-allowed', false)
    const name = this.#accountName(request.userName)
    if (this.#lockout.isLocked(name, call.peerAddress)) return reject('locked-out', false)

    const found = this.#users.find(name)
    const user = found ?? this.#users.decoy
    const secrets = this.#users.secretsOf(user)
    try {
      const proven = this.#verify(user, request, secrets)
      if (proven === undefined || found === undefined) {
        proven?.newPassword?.destroy()
        return this.#failed(name, request)
      }
      try {
        this.#lockout.succeed(name)
        // A second factor that the proof cannot carry is told to who knows the first.
        if (secrets.totpKey !== undefined && proof.method !== 'pap') {
          return reject('method-not-allowed', false)
        }
        return this.#decide(found, proof, proven)
      } finally {
        proven.newPassword?.destroy()
      }
    } finally {
      secrets.ntHash.destroy()
      secrets.password?.destroy()
      secrets.totpKey?.destroy()
    }
  }

  /** `DOMAIN\user` and `user@realm` are the account `user`, unless there is one with an @ in its name. */
  #accountName(sent: string): string {
    const name = withoutDomain(sent)
    return this.#users.find(name) === undefined ? splitUserName(name).user : name
  }

  /** With a key of one-time passwords the last digits of a PAP password are one. */
  #verify(user: User, { userName, proof }: AuthenticationRequest, secrets: UserSecrets) {
    if (secrets.totpKey === undefined || proof.method !== 'pap') {
      return verify(userName, proof, secrets)
    }
    const text = proof.password.exposeText()
    const password = Secret.fromText(text.slice(0, -totpDigits))
    const proven = verify(userName, { method: 'pap', password }, secrets)
    password.destroy()
    if (proven === undefined) return undefined
    const code = text.slice(-totpDigits)
    const isGood = this.#totp.accept(user.id, secrets.totpKey, code, this.#wallClock.now())
    return isGood ? proven : undefined
  }

  #failed(name: string, { call }: AuthenticationRequest): Verdict {
    for (const what of this.#lockout.fail(name, call.peerAddress)) {
      this.#log.warn(
        {
          event: 'locked-out',
          what,
          user: name,
          peer: call.peerAddress,
          sessionId: call.sessionId,
        },
        'too many failed log-ins',
      )
    }
    return reject('bad-credentials', !this.#lockout.isLocked(name, call.peerAddress))
  }

  /** The proof holds; may this account come in? */
  #decide(user: User, proof: Proof, proven: Proven): Verdict {
    const refusal = accountRefusal(user, this.#wallClock.now())
    if (refusal !== undefined) return reject(refusal, false)
    const isChange = proof.method === 'mschapv2-change-password'
    const isExpired = this.#isPasswordExpired(user)
    if (isChange) {
      if (!isExpired || !this.#users.isWritable) return reject('change-password-failed', false)
      if ((proven.newPassword?.exposeText().length ?? 0) < this.#shortestNewPassword) {
        return reject('change-password-failed', false)
      }
      this.#users.set(user.name, {
        ...(proven.newPassword !== undefined && { password: proven.newPassword }),
        mustChangePassword: false,
        passwordExpires: undefined,
      })
      this.#log.info({ event: 'password-changed', user: user.name }, 'user changed the password')
    } else if (isExpired) {
      // Only MS-CHAPv2 can change it on the same link.
      return reject('password-expired', proof.method === 'mschapv2' && this.#users.isWritable)
    }
    const { keys, authenticatorResponse } = proven
    return {
      type: 'accept',
      authorization: authorizationOf(user),
      ...(keys !== undefined && { keys }),
      ...(authenticatorResponse !== undefined && { authenticatorResponse }),
    }
  }

  #isPasswordExpired(user: User): boolean {
    const nowMs = this.#wallClock.now().getTime()
    return (
      user.mustChangePassword ||
      (user.passwordExpires !== undefined && user.passwordExpires.getTime() <= nowMs)
    )
  }
}

/** Undefined when the proof does not hold. Takes the same time for any secrets. */
function verify(userName: string, proof: Proof, secrets: UserSecrets): Proven | undefined {
  const ntHash = secrets.ntHash.expose()
  switch (proof.method) {
    case 'pap': {
      const offered = ntPasswordHash(proof.password.exposeText())
      const isEqual = equalBytes(offered, ntHash)
      wipe(offered)
      return isEqual ? {} : undefined
    }
    case 'chap-md5': {
      // RFC 1994 §4.1. Without a password at hand the work is done all the same.
      const password = secrets.password?.expose() ?? ntHash
      const expected = digest('md5', Uint8Array.of(proof.identifier), password, proof.challenge)
      const isEqual = equalBytes(expected, proof.response)
      return isEqual && secrets.password !== undefined ? {} : undefined
    }
    case 'mschapv2': {
      const exchange = { ...challengesOf(proof), userName }
      if (!checkNtResponse(exchange, ntHash, proof.ntResponse)) return undefined
      return mschapv2Proven(exchange, ntHash, proof.ntResponse)
    }
    case 'mschapv2-change-password': {
      const newPassword = decryptNewPassword(proof.encryptedPassword, ntHash)
      if (newPassword === undefined) return undefined
      const newHash = new Secret(ntPasswordHash(newPassword.exposeText()))
      const exchange = { ...challengesOf(proof), userName }
      // RFC 2759 §7: the old hash proves the old password, the response the new one.
      const isProven =
        checkEncryptedHash(proof.encryptedHash, ntHash, newHash.expose()) &&
        checkNtResponse(exchange, newHash.expose(), proof.ntResponse)
      const isNew = !newHash.equals(secrets.ntHash)
      const proven = mschapv2Proven(exchange, newHash.expose(), proof.ntResponse)
      newHash.destroy()
      if (isProven && isNew) return { ...proven, newPassword }
      newPassword.destroy()
      return undefined
    }
    default:
      return assertNever(proof)
  }
}

function challengesOf(proof: {
  readonly authenticatorChallenge: Uint8Array
  readonly peerChallenge: Uint8Array
}): Omit<Mschapv2Exchange, 'userName'> {
  return {
    authenticatorChallenge: proof.authenticatorChallenge,
    peerChallenge: proof.peerChallenge,
  }
}

function mschapv2Proven(
  exchange: Mschapv2Exchange,
  ntHash: Uint8Array,
  ntResponse: Uint8Array,
): Proven {
  return {
    keys: serverKeysOf(ntHash, ntResponse),
    authenticatorResponse: generateAuthenticatorResponse(exchange, ntHash, ntResponse),
  }
}

function reject(reason: RejectReason, canRetry: boolean): Verdict {
  return { type: 'reject', reason, canRetry }
}

/**
 * Users of a directory beside our own: whose name we know is judged here, everybody else is judged there,
 * by PAP alone, since no other proof shows the password that a bind needs.
 */
import type { Clock } from '../../core/clock.ts'
import type { Logger } from '../../core/log.ts'
import type { Secret } from '../../core/secret.ts'
import type { TimerWheel, WheelEntry } from '../../core/timers.ts'
import { withoutDomain } from '../../crypto/ms-chap.ts'
import type {
  AuthenticationRequest,
  Authenticator,
  CallContext,
  RejectReason,
  Verdict,
} from '../authenticator.ts'
import type { Lockout } from '../lockout.ts'
import { splitUserName } from '../policy/user-name.ts'
import { logRefusal } from '../refusal-log.ts'
import type { DirectoryAnswer } from './directory.ts'
import { isDirectoryName } from './user-template.ts'

/** `LdapDirectory`, or what plays it. */
export interface Directory {
  judge(user: string, password: Secret, leftMs: number): Promise<DirectoryAnswer>
}

export interface LdapAuthenticatorOptions {
  readonly directory: Directory
  readonly local: Authenticator
  /** Whether a user of that name is ours. May throw when the store cannot be read. */
  readonly isLocal: (name: string) => boolean
  /** As the configuration names them. */
  readonly methods: readonly string[]
  readonly lockout: Lockout
  /** Of one question, ms; waiting for its turn is part of it. */
  readonly timeoutMs: number
  /** Questions at a time. */
  readonly mostQuestions: number
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly log: Logger
}

/** Questions that wait for their turn. */
const mostWaiting = 1024

interface Waiter extends WheelEntry {
  /** False: its time is over. */
  settle(isItsTurn: boolean): void
}

export class LdapAuthenticator implements Authenticator {
  readonly #options: LdapAuthenticatorOptions
  readonly #waiting = new Set<Waiter>()
  #asked = 0

  constructor(options: LdapAuthenticatorOptions) {
    this.#options = options
  }

  async authenticate(request: AuthenticationRequest): Promise<Verdict> {
    const { local, methods } = this.#options
    const { proof } = request
    if (proof.method !== 'pap' || !methods.includes('pap')) return local.authenticate(request)
    try {
      if (this.#isLocal(request.userName)) return local.authenticate(request)
    } catch {
      // It says so itself.
      return local.authenticate(request)
    }
    const verdict = await this.#judge(request, proof.password)
    if (verdict.type === 'reject') {
      const { userName, proof, call } = request
      logRefusal(this.#options.log, { userName, method: proof.method, call }, verdict.reason)
    }
    return verdict
  }

  #isLocal(sent: string): boolean {
    const { isLocal } = this.#options
    return isLocal(withoutDomain(sent)) || isLocal(userOf(sent))
  }

  async #judge({ userName, call }: AuthenticationRequest, password: Secret): Promise<Verdict> {
    const { directory, lockout, clock, timeoutMs } = this.#options
    const user = userOf(userName)
    const endMs = clock.nowMs() + timeoutMs
    const isLocked = () => lockout.isLocked(user, call.peerAddress)
    if (isLocked()) return reject('locked-out', false)
    if (!isDirectoryName(user) || password.length === 0) return this.#failed(user, call)
    if (!(await this.#turn(endMs))) return reject('backend-unavailable', false)
    let answer: DirectoryAnswer
    try {
      // Guesses that waited in a row end here too.
      if (isLocked()) return reject('locked-out', false)
      answer = await directory.judge(user, password, endMs - clock.nowMs())
    } finally {
      this.#next()
    }
    if (answer.type === 'unavailable') return reject('backend-unavailable', false)
    if (answer.type === 'refused') {
      return answer.reason === 'bad-credentials'
        ? this.#failed(user, call)
        : reject(answer.reason, false)
    }
    lockout.succeed(user)
    return { type: 'accept', authorization: { userName: user, groups: answer.groups } }
  }

  /** Resolves to false when there is no turn in time. */
  #turn(endMs: number): Promise<boolean> {
    const { mostQuestions, wheel } = this.#options
    if (this.#asked < mostQuestions) {
      this.#asked++
      return Promise.resolve(true)
    }
    if (this.#waiting.size >= mostWaiting) return Promise.resolve(false)
    return new Promise(resolve => {
      const waiter: Waiter = {
        settle: isItsTurn => {
          wheel.cancel(waiter)
          this.#waiting.delete(waiter)
          resolve(isItsTurn)
        },
        onDeadline: () => waiter.settle(false),
      }
      this.#waiting.add(waiter)
      wheel.schedule(waiter, endMs)
    })
  }

  /** A question is over: its place goes to who waits the longest. */
  #next(): void {
    for (const waiter of this.#waiting) {
      waiter.settle(true)
      return
    }
    this.#asked--
  }

  #failed(user: string, { peerAddress, sessionId }: CallContext): Verdict {
    const { lockout, log } = this.#options
    for (const what of lockout.fail(user, peerAddress)) {
      log.warn(
        { event: 'locked-out', what, user: user.slice(0, 256), peer: peerAddress, sessionId },
        'too many failed log-ins',
      )
    }
    return reject('bad-credentials', !lockout.isLocked(user, peerAddress))
  }
}

/** As our own users are looked up: without domain and without realm. */
function userOf(sent: string): string {
  return splitUserName(withoutDomain(sent)).user
}

function reject(reason: RejectReason, canRetry: boolean): Verdict {
  return { type: 'reject', reason, canRetry }
}

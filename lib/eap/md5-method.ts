/**
 * EAP MD5-Challenge, RFC 3748 §5.4: CHAP inside EAP. It makes no keys and does not prove the server.
 *
 *  |  Value-Size   |  Value ...    |  Name ...
 */
import type { Verdict } from '../aaa/authenticator.ts'
import { concatBytes, copyBytes, putBytes, utf8 } from '../core/bytes.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import type { Secret } from '../core/secret.ts'
import { digest } from '../crypto/hash.ts'
import type { EapPeerMethod, EapPeerStep, EapServerMethod, EapServerStep } from './method.ts'
import { EapType } from './packet.ts'

/** RFC 1994 §4.1: MD5 makes 16 bytes; our challenges are as long. */
const VALUE_BYTES = 16

function valueAndName(value: Uint8Array, name: Uint8Array): Uint8Array {
  const out = new Uint8Array(1 + value.length + name.length)
  out[0] = value.length
  putBytes(out, putBytes(out, 1, value), name)
  return out
}

/** The value, or undefined when the size reaches past the end or is zero. */
function challengeValue(typeData: Uint8Array): Uint8Array | undefined {
  const valueBytes = typeData[0] ?? 0
  if (valueBytes === 0 || 1 + valueBytes > typeData.length) return undefined
  return copyBytes(typeData, 1, 1 + valueBytes)
}

export class Md5ServerMethod implements EapServerMethod {
  readonly eapType = EapType['MD5-Challenge']
  readonly #random: RandomSource
  readonly #serverName: string
  #identity = ''
  #identifier = 0
  #challenge: Uint8Array = new Uint8Array(0)
  #isJudging = false

  constructor(random: RandomSource, serverName: string) {
    this.#random = random
    this.#serverName = serverName
  }

  start(identity: string, identifier: number): EapServerStep {
    this.#identity = identity
    this.#identifier = identifier
    this.#challenge = randomBytes(this.#random, VALUE_BYTES)
    return { type: 'request', typeData: valueAndName(this.#challenge, utf8(this.#serverName)) }
  }

  response(typeData: Uint8Array): EapServerStep {
    const response = challengeValue(typeData)
    if (this.#isJudging) return { type: 'ignore', unexpected: 'eap-md5-response-while-judging' }
    if (response?.length !== VALUE_BYTES) {
      return { type: 'ignore', unexpected: 'eap-md5-malformed' }
    }
    this.#isJudging = true
    return {
      type: 'authenticate',
      userName: this.#identity,
      proof: {
        method: 'chap-md5',
        identifier: this.#identifier,
        challenge: this.#challenge,
        response,
      },
    }
  }

  verdict(verdict: Verdict): EapServerStep {
    if (verdict.type === 'accept') {
      return { type: 'success', authorization: verdict.authorization, msk: undefined }
    }
    return { type: 'failure', reason: verdict.reason }
  }

  destroy(): void {
    this.#challenge.fill(0)
  }
}

export class Md5PeerMethod implements EapPeerMethod {
  readonly eapType = EapType['MD5-Challenge']
  readonly #userName: string
  readonly #password: Secret
  isComplete = false

  constructor(userName: string, password: Secret) {
    this.#userName = userName
    this.#password = password
  }

  request(typeData: Uint8Array, identifier: number): EapPeerStep {
    const challenge = challengeValue(typeData)
    if (challenge === undefined) return { type: 'ignore', unexpected: 'eap-md5-malformed' }
    // RFC 1994 §4.1: identifier, secret, challenge.
    const input = concatBytes(Uint8Array.of(identifier), this.#password.expose(), challenge)
    const response = digest('md5', input)
    input.fill(0)
    // The server proves nothing in this method, so its Success has to be believed from here on.
    this.isComplete = true
    return { type: 'response', typeData: valueAndName(response, utf8(this.#userName)) }
  }

  takeMsk(): undefined {
    return undefined
  }

  destroy(): void {
    this.isComplete = false
  }
}

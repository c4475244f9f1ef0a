/**
 * Stateless cookies for IKE_SA_INIT and IKE_SESSION_RESUME under load, RFC 7296 §2.6: before a stranger costs memory or a
 * Diffie-Hellman operation it must show that it receives at its address. Whether cookies are asked for
 * is decided outside, by the number of half-open SAs.
 */
import { copyBytes, equalBytes, utf8 } from '../core/bytes.ts'
import { WireFault } from '../core/faults.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import { Secret } from '../core/secret.ts'
import { hmac } from '../crypto/hash.ts'
import { legality } from './wire/exchange-rules.ts'
import { exchangeName } from './wire/exchange-type.ts'
import { checkHeader, parseHeader, SPI_BYTES } from './wire/header.ts'
import { encodeMessage, findNotify, findPayload, parseMessage } from './wire/message.ts'
import { notify } from './wire/notify.ts'
import { NotifyType } from './wire/notify-type.ts'

const SECRET_BYTES = 32
/** Version byte and half an HMAC-SHA-256; a COOKIE has 1 to 64 bytes (RFC 7296 §2.6). */
const COOKIE_MAC_BYTES = 16

/** How long a secret makes cookies; it checks them for as long again. */
export const COOKIE_SECRET_LIFETIME_MS = 60_000

/** What can be said of an IKE_SA_INIT or IKE_SESSION_RESUME request without keeping or computing anything. */
export interface FirstRequest {
  readonly fault: WireFault
  readonly exchangeType: number
  readonly initiatorSpi: Uint8Array
  readonly nonce: Uint8Array
  readonly cookie: Uint8Array | undefined
}

const noRequest = {
  exchangeType: 0,
  initiatorSpi: new Uint8Array(0),
  nonce: new Uint8Array(0),
  cookie: undefined,
}

/** Reads a datagram as the first request of a stranger. The result holds views into `bytes`. */
export function readFirstRequest(bytes: Uint8Array): FirstRequest {
  const headerFault = checkHeader(bytes)
  if (headerFault) return { ...noRequest, fault: headerFault }
  const header = parseHeader(bytes)
  const isZero = (spi: Uint8Array) => spi.every(byte => byte === 0)
  const exchange = exchangeName(header.exchangeType)
  const isFirst = exchange === 'IKE_SA_INIT' || exchange === 'IKE_SESSION_RESUME'
  if (!isFirst || header.messageId !== 0) {
    return { ...noRequest, fault: WireFault['unknown-type'] }
  }
  if (header.isResponse || !header.isFromInitiator) {
    return { ...noRequest, fault: WireFault['bad-flags'] }
  }
  if (isZero(header.initiatorSpi) || !isZero(header.responderSpi)) {
    return { ...noRequest, fault: WireFault['bad-value'] }
  }
  const message = parseMessage(bytes)
  if (message.fault) return { ...noRequest, fault: message.fault }
  const { fault } = legality(exchange, 'request', false, message.payloads)
  if (fault) return { ...noRequest, fault }
  return {
    fault: WireFault.none,
    exchangeType: header.exchangeType,
    initiatorSpi: header.initiatorSpi,
    nonce: findPayload(message.payloads, 'Nonce')?.data ?? noRequest.nonce,
    cookie: findNotify(message.payloads, NotifyType.COOKIE)?.data,
  }
}

export class CookieJar {
  readonly #random: RandomSource
  #version = 0
  #current: Secret
  #previous: Secret | undefined
  #madeMs: number

  constructor(random: RandomSource, nowMs: number) {
    this.#random = random
    this.#current = this.#draw()
    this.#madeMs = nowMs
  }

  /** The cookie that a request has to show. `peerAddress` as text, without port. */
  make(request: FirstRequest, peerAddress: string, nowMs: number): Uint8Array {
    this.#rotate(nowMs)
    return this.#cookie(this.#current, this.#version, request, peerAddress)
  }

  isValid(request: FirstRequest, peerAddress: string, nowMs: number): boolean {
    this.#rotate(nowMs)
    const { cookie } = request
    if (cookie === undefined || cookie.length !== 1 + COOKIE_MAC_BYTES) return false
    const isCurrent = cookie[0] === this.#version
    const secret = isCurrent ? this.#current : this.#previous
    if (secret === undefined) return false
    const version = isCurrent ? this.#version : (this.#version - 1) & 0xff
    return equalBytes(cookie, this.#cookie(secret, version, request, peerAddress))
  }

  /** The answer that asks for the cookie: shorter than any request (RFC 7296 §2.6). */
  challenge(request: FirstRequest, peerAddress: string, nowMs: number): Uint8Array {
    return encodeMessage(
      {
        initiatorSpi: request.initiatorSpi,
        responderSpi: new Uint8Array(SPI_BYTES),
        exchangeType: request.exchangeType,
        isFromInitiator: false,
        isResponse: true,
        canHigherVersion: false,
        messageId: 0,
      },
      [notify(NotifyType.COOKIE, this.make(request, peerAddress, nowMs))],
    )
  }

  destroy(): void {
    this.#current.destroy()
    this.#previous?.destroy()
  }

  #draw(): Secret {
    return new Secret(randomBytes(this.#random, SECRET_BYTES))
  }

  #rotate(nowMs: number): void {
    const ageMs = nowMs - this.#madeMs
    if (ageMs < COOKIE_SECRET_LIFETIME_MS) return
    this.#previous?.destroy()
    // After a long silence the last secret is too old to check with.
    this.#previous = ageMs < 2 * COOKIE_SECRET_LIFETIME_MS ? this.#current : undefined
    if (this.#previous === undefined) this.#current.destroy()
    this.#current = this.#draw()
    this.#version = (this.#version + 1) & 0xff
    this.#madeMs = nowMs
  }

  /** Version | HMAC(secret, SPIi | address | Ni). */
  #cookie(secret: Secret, version: number, request: FirstRequest, peerAddress: string): Uint8Array {
    const mac = hmac(
      'sha256',
      secret.expose(),
      request.initiatorSpi,
      // The end mark keeps an address and the nonce behind it apart.
      utf8(`${peerAddress}\0`),
      request.nonce,
    )
    const out = new Uint8Array(1 + COOKIE_MAC_BYTES)
    out[0] = version
    out.set(copyBytes(mac, 0, COOKIE_MAC_BYTES), 1)
    return out
  }
}

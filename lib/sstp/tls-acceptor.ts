/**
 * TLS for the server side. Connections come from elsewhere (they may have spoken the PROXY protocol
 * before), so a TLS server without a port of its own is given them.
 *
 * Tickets and session caches are off: a resumed handshake shows no certificate, and the crypto
 * binding is about the certificate that this connection showed.
 */
import { constants, createPrivateKey, X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import {
  createSecureContext,
  createServer,
  type SecureContextOptions,
  type Server,
  type TLSSocket,
} from 'node:tls'
import { CertificateError, messageOf } from '../core/errors.ts'
import type { Secret } from '../core/secret.ts'

export interface CertificatePair {
  /** PEM: the leaf first, then intermediates. */
  readonly cert: string | Uint8Array
  /** PEM. */
  readonly key: Secret
  /**
   * A response of OCSP about it, for clients that ask (RFC 6066 §8). Only of a pair that stands
   * alone: of several it is not known which one a client is shown.
   */
  readonly staple?: () => Uint8Array | undefined
}

/**
 * Ephemeral key exchange and authenticated ciphers only; AES-128 first, which is the cheaper of two
 * that nobody breaks. Windows 10 and later, and everybody else, has one of them for RSA and for ECDSA.
 */
const CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':')

/** One who waits for a handshake. Exactly one of the two is called, unless the socket closes first. */
export interface Handshake {
  secured(socket: TLSSocket): void
  failed(code: string): void
}

export class TlsAcceptor {
  readonly #server: Server
  readonly #waiting = new Map<string, Handshake>()

  /** Throws CertificateError. */
  constructor(certificates: readonly CertificatePair[]) {
    // The listener's own timer ends slow handshakes.
    this.#server = createServer({ ...contextOptions(certificates), handshakeTimeout: 2 ** 31 - 1 })
    this.#server.on('secureConnection', socket => {
      const handshake = this.#take(socket)
      if (handshake === undefined) socket.destroy()
      else handshake.secured(socket)
    })
    this.#stapleFor(certificates)
    this.#server.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
      this.#take(socket)?.failed(error.code ?? 'ERR_TLS')
    })
  }

  /** Starts the handshake on a connection. What was put back into its stream is read first. */
  accept(socket: Socket, handshake: Handshake): void {
    const name = connectionName(socket)
    if (name === undefined) {
      socket.destroy()
      return
    }
    this.#waiting.set(name, handshake)
    socket.once('close', () => {
      if (this.#waiting.get(name) === handshake) this.#waiting.delete(name)
    })
    this.#server.emit('connection', socket)
  }

  /** For new handshakes; connections that stand keep theirs. Throws CertificateError, changing nothing. */
  reload(certificates: readonly CertificatePair[]): void {
    this.#server.setSecureContext(contextOptions(certificates))
    this.#stapleFor(certificates)
  }

  /** Without a listener Node asks for nothing, which makes handshakes cheaper. */
  #stapleFor([pair, other]: readonly CertificatePair[]): void {
    this.#server.removeAllListeners('OCSPRequest')
    const staple = other === undefined ? pair?.staple : undefined
    if (staple === undefined) return
    this.#server.on('OCSPRequest', (_certificate, _issuer, done: OcspAnswer) => {
      const response = staple()
      done(null, response && Buffer.from(response))
    })
  }

  #take(socket: Socket): Handshake | undefined {
    const name = connectionName(socket)
    const handshake = name === undefined ? undefined : this.#waiting.get(name)
    if (name !== undefined) this.#waiting.delete(name)
    return handshake
  }
}

/** What `OCSPRequest` wants, which may also be nothing. */
type OcspAnswer = (error: Error | null, response: Buffer | undefined) => void

/**
 * The addresses and ports of both ends: no two live connections share them. The TLS server hands out
 * a socket of its own around ours, and this is what they have in common.
 */
function connectionName(socket: Socket): string | undefined {
  const { remoteAddress, remotePort, localAddress, localPort } = socket
  if (remoteAddress === undefined) return undefined
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`
}

function contextOptions(certificates: readonly CertificatePair[]): SecureContextOptions {
  if (certificates.length === 0) throw new CertificateError('no certificate is configured')
  const kinds = new Set(certificates.map(keyKind))
  if (kinds.size < certificates.length) {
    throw new CertificateError('only one certificate of each kind of key can be shown')
  }
  const options: SecureContextOptions = {
    cert: certificates.map(({ cert }) => pem(cert)),
    key: certificates.map(({ key }) => pem(key.expose())),
    minVersion: 'TLSv1.2',
    ciphers: CIPHERS,
    ecdhCurve: 'auto',
    honorCipherOrder: true,
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  }
  try {
    createSecureContext(options)
  } catch (error) {
    throw unusable(error)
  }
  return options
}

/** `rsa`, `ec` or the like, of a pair that belongs together. */
function keyKind({ cert, key }: CertificatePair): string {
  let isPair: boolean
  let kind: string | undefined
  try {
    const privateKey = createPrivateKey(pem(key.expose()))
    kind = privateKey.asymmetricKeyType
    isPair = new X509Certificate(pem(cert)).checkPrivateKey(privateKey)
  } catch (error) {
    throw unusable(error)
  }
  if (!isPair) throw new CertificateError('the key does not belong to the certificate')
  return kind ?? ''
}

function pem(text: string | Uint8Array): string | Buffer {
  return typeof text === 'string' ? text : Buffer.from(text)
}

function unusable(error: unknown): CertificateError {
  return new CertificateError(`certificate or key is not usable: ${messageOf(error)}`, {
    cause: error,
  })
}

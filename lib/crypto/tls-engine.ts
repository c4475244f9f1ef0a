/**
 * The server's side of TLS without a network: records go in and come out as bytes, for EAP methods to
 * carry (RFC 5216, RFC 9190, RFC 5281). TLS is Node's own, over a stream in memory.
 */
import { constants } from 'node:crypto'
import { Duplex } from 'node:stream'
import {
  createSecureContext,
  createServer,
  type DetailedPeerCertificate,
  type SecureContext,
  type Server,
  TLSSocket,
} from 'node:tls'
import { concatBytes } from '../core/bytes.ts'
import type { Secret } from '../core/secret.ts'

// Implementation constants.

/** Turns of the event loop without any output after which TLS waits for the peer. */
const quietTurns = 3
/** Turns that one input may take; a handshake takes about ten. */
const mostTurns = 200
/** Intermediate certificates that are remembered for resumptions, whose tickets hold the leaf alone. */
const rememberedChains = 1024
const longestChain = 8

/** Bounds the conversations that run TLS at a time, over all methods: each holds some 100 KiB. */
export class TlsLimit {
  readonly #most: number
  #open = 0

  constructor(most: number) {
    this.#most = most
  }

  get open(): number {
    return this.#open
  }

  take(): boolean {
    if (this.#open >= this.#most) return false
    this.#open++
    return true
  }

  give(): void {
    this.#open--
  }
}

export interface TlsSettings {
  readonly chainPem: string
  readonly keyPem: Secret
  /** Whom a client certificate must come from; absent: none is asked for. */
  readonly clientAuthoritiesPem?: string
  /** Tells sessions of different methods apart: what one has proved another must not resume. */
  readonly sessionContext: string
  /** Whether peers may resume; the method then judges the certificate of the session anew. */
  readonly isResumable: boolean
  readonly limit: TlsLimit
  /** A response of OCSP about our certificate, for peers that ask (RFC 6066 §8). */
  readonly staple?: () => Uint8Array | undefined
}

/** What came of one input. */
export interface TlsFlight {
  /** For the peer; may hold an alert. */
  readonly records: Uint8Array
  /** What the peer said inside. */
  readonly plain: Uint8Array
  readonly isOpen: boolean
  /** TLS is over: a code of OpenSSL, for the log. */
  readonly fault: string | undefined
}

/** One certificate and its rules; makes the engines of conversations. */
export class TlsTerminal {
  readonly #settings: TlsSettings
  readonly #context: SecureContext
  /** SHA-256 of a leaf to the chain that it came with. */
  readonly #chains = new Map<string, readonly Uint8Array[]>()
  /** Node asks a server for the response of OCSP; this one has no port. */
  readonly #stapler: Server | undefined

  /** Throws when OpenSSL does not take the certificate or the key. */
  constructor(settings: TlsSettings) {
    this.#settings = settings
    this.#context = createSecureContext({
      cert: settings.chainPem,
      key: settings.keyPem.exposeText(),
      ...(settings.clientAuthoritiesPem !== undefined && { ca: settings.clientAuthoritiesPem }),
      minVersion: 'TLSv1.2',
      sessionIdContext: settings.sessionContext,
      ...(!settings.isResumable && { secureOptions: constants.SSL_OP_NO_TICKET }),
    })
    const { staple } = settings
    this.#stapler = staple && createServer()
    this.#stapler?.on('OCSPRequest', (_certificate, _issuer, done: OcspAnswer) => {
      const response = staple?.()
      done(null, response && Buffer.from(response))
    })
  }

  /** Undefined when too many conversations run. */
  open(): TlsEngine | undefined {
    const { limit, clientAuthoritiesPem } = this.#settings
    if (!limit.take()) return undefined
    return new TlsEngine({
      context: this.#context,
      asksForCertificate: clientAuthoritiesPem !== undefined,
      limit,
      chains: this.#chains,
      ...(this.#stapler !== undefined && { stapler: this.#stapler }),
    })
  }
}

/** What `OCSPRequest` wants, which may also be nothing. */
type OcspAnswer = (error: Error | null, response: Buffer | undefined) => void

interface EngineParts {
  readonly context: SecureContext
  readonly asksForCertificate: boolean
  readonly limit: TlsLimit
  readonly chains: Map<string, readonly Uint8Array[]>
  readonly stapler?: Server
}

export class TlsEngine {
  readonly #parts: EngineParts
  readonly #wire: Duplex
  readonly #socket: TLSSocket
  #records: Uint8Array[] = []
  #plain: Uint8Array[] = []
  #activity = 0
  #isOpen = false
  #isClosed = false
  #fault: string | undefined

  constructor(parts: EngineParts) {
    this.#parts = parts
    this.#wire = new Duplex({
      read: () => {},
      write: (chunk: Buffer, _encoding, done) => {
        this.#activity++
        this.#records.push(Uint8Array.from(chunk)) // copied: the chunk is OpenSSL's
        done()
      },
    })
    this.#socket = new TLSSocket(this.#wire, {
      isServer: true,
      secureContext: parts.context,
      ...(parts.stapler !== undefined && { server: parts.stapler }),
      requestCert: parts.asksForCertificate,
      rejectUnauthorized: parts.asksForCertificate,
    })
    this.#socket.on('secure', () => {
      this.#activity++
      this.#isOpen = true
    })
    this.#socket.on('data', (chunk: Buffer) => {
      this.#activity++
      this.#plain.push(Uint8Array.from(chunk))
    })
    const fail = (error: Error) => this.#fail('code' in error ? String(error.code) : error.message)
    this.#socket.on('error', fail)
    this.#socket.on('_tlsError', fail)
    this.#socket.on('end', () => this.#fail('closed-by-peer'))
    this.#wire.on('error', () => {})
  }

  get isTls13(): boolean {
    return this.#socket.getProtocol() === 'TLSv1.3'
  }

  get isResumed(): boolean {
    return this.#socket.isSessionReused()
  }

  /** Records of the peer. Never rejects. */
  receive(records: Uint8Array): Promise<TlsFlight> {
    if (!this.#isClosed && records.length > 0) this.#wire.push(records)
    return this.#settle()
  }

  /** Something to say inside. Never rejects. */
  send(plain: Uint8Array): Promise<TlsFlight> {
    if (!this.#isClosed && this.#isOpen) this.#socket.write(plain)
    return this.#settle()
  }

  /** RFC 5705; TLS has to be open. The caller wipes it. */
  exportKey(lengthBytes: number, label: string, context?: Uint8Array): Uint8Array {
    const key = this.#socket.exportKeyingMaterial(
      lengthBytes,
      label,
      ...([context].filter(one => one !== undefined) as [Buffer]),
    )
    return Uint8Array.from(key)
  }

  /** DER, the peer's own first; empty when it has shown none. */
  peerChain(): readonly Uint8Array[] {
    const chain: Uint8Array[] = []
    let certificate: DetailedPeerCertificate | undefined = this.#socket.getPeerCertificate(true)
    const seen = new Set<DetailedPeerCertificate>()
    while (certificate?.raw !== undefined && !seen.has(certificate) && seen.size < longestChain) {
      seen.add(certificate)
      chain.push(Uint8Array.from(certificate.raw))
      certificate = certificate.issuerCertificate
    }
    const name = [...seen][0]?.fingerprint256
    if (name === undefined) return chain
    const { chains } = this.#parts
    if (this.isResumed) return chains.get(name) ?? chain
    chains.delete(name)
    chains.set(name, chain)
    for (const oldest of chains.keys()) {
      if (chains.size <= rememberedChains) break
      chains.delete(oldest)
    }
    return chain
  }

  destroy(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#parts.limit.give()
    this.#socket.destroy()
    this.#wire.destroy()
    for (const plain of this.#plain) plain.fill(0)
    this.#plain = []
    this.#records = []
  }

  #fail(code: string): void {
    this.#activity++
    this.#fault ??= code
  }

  /** Node runs TLS in turns of the event loop and does not say when it waits for the peer. */
  async #settle(): Promise<TlsFlight> {
    let quiet = 0
    for (let turn = 0; turn < mostTurns && quiet < quietTurns; turn++) {
      const before = this.#activity
      await new Promise(resolve => setImmediate(resolve))
      quiet = this.#activity === before ? quiet + 1 : 0
    }
    const flight: TlsFlight = {
      records: concatBytes(...this.#records),
      plain: concatBytes(...this.#plain),
      isOpen: this.#isOpen && !this.#isClosed,
      fault: this.#isClosed ? 'destroyed' : this.#fault,
    }
    for (const plain of this.#plain) plain.fill(0)
    this.#records = []
    this.#plain = []
    return flight
  }
}

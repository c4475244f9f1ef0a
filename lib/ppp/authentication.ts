/** The Authenticate phase of a link (RFC 1661 §3.5): one exchange at a time, of the agreed protocol. */
import type { RejectReason, Verdict } from '../aaa/authenticator.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { assertNever, InvariantError } from '../core/errors.ts'
import { faultName } from '../core/faults.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import { Secret } from '../core/secret.ts'
import { higherLayerKey, higherLayerKeyBytes, type ServerKeys } from '../crypto/mppe-keys.ts'
import { Md5PeerMethod } from '../eap/md5-method.ts'
import { Mschapv2PeerMethod } from '../eap/mschapv2-method.ts'
import { ChapClient } from './auth/chap-client.ts'
import { ChapServer } from './auth/chap-server.ts'
import { EapClient } from './auth/eap-client.ts'
import { EapServer, type EapServerPorts, eapRetransmit } from './auth/eap-server.ts'
import type {
  AcceptVerdict,
  ClientExchange,
  ClientExchangePorts,
  ServerExchange,
  ServerExchangePorts,
} from './auth/exchange.ts'
import { PapClient } from './auth/pap-client.ts'
import { PapServer } from './auth/pap-server.ts'
import { guarded, type LinkEvent } from './event.ts'
import type { AuthenticationProtocol, PppClientSettings, PppSettings } from './settings.ts'
import {
  type ControlPacket,
  checkControlPacket,
  controlHeaderBytes,
  encodeControlPacket,
  parseControlPacket,
} from './wire/control-packet.ts'
import { PppProtocol } from './wire/frame.ts'
import { PapCode } from './wire/pap.ts'

/** What the log says; the peer has been told what its protocol says, no more. */
const rejectCauses = {
  'bad-credentials': 'authentication-failed',
  'locked-out': 'authentication-failed',
  'account-disabled': 'not-authorized',
  'account-expired': 'not-authorized',
  'password-expired': 'authentication-failed',
  'no-dial-in': 'not-authorized',
  'restricted-hours': 'not-authorized',
  'change-password-failed': 'authentication-failed',
  'method-not-allowed': 'not-authorized',
  'backend-unavailable': 'service-unavailable',
} as const satisfies Record<RejectReason, DisconnectCause>

/** RFC 2759 §6: the error numbers that say that the password was right. */
const notAuthorizedErrors: ReadonlySet<number> = new Set([646, 647, 649])

export interface AuthenticationPorts {
  send(protocol: number, packet: Uint8Array): void
  setTimer(deadlineMs: number): void
  clearTimer(): void
  event(event: LinkEvent): void
  unexpected(counter: string): void
  retrying(nowMs: number): void
  proved(protocol: AuthenticationProtocol | 'none', nowMs: number): void
  /** Largest information field that the peer takes, bytes. */
  peerMruBytes(): number
  failed(cause: DisconnectCause, detail: string, nowMs: number): void
}

function numberOf(protocol: AuthenticationProtocol): number {
  switch (protocol) {
    case 'pap':
      return PppProtocol.pap
    case 'eap':
      return PppProtocol.eap
    case 'mschapv2':
    case 'chap-md5':
      return PppProtocol.chap
    default:
      return assertNever(protocol)
  }
}

export class Authentication {
  readonly #settings: PppSettings
  readonly #random: RandomSource
  readonly #ports: AuthenticationPorts
  #protocol: AuthenticationProtocol | undefined
  #server: ServerExchange | undefined
  #client: ClientExchange | undefined
  /** Client: the password that holds now. */
  #password: Secret | undefined
  #newPassword: Secret | undefined
  /** Counts the events; a verdict for an older one is ignored. */
  #attempt = 0
  #isJudging = false
  #isProved = false
  /** Of the first success; a renegotiation must not change it. */
  #userName: string | undefined

  constructor(settings: PppSettings, random: RandomSource, ports: AuthenticationPorts) {
    this.#settings = settings
    this.#random = random
    this.#ports = ports
    if (settings.role === 'server') return
    this.#password = new Secret(settings.password.expose())
    if (settings.newPassword !== undefined) {
      this.#newPassword = new Secret(settings.newPassword.expose())
    }
  }

  /** The PPP protocol of the exchange that was started last. */
  get protocolNumber(): number {
    return numberOf(this.#protocol ?? 'mschapv2')
  }

  start(protocol: AuthenticationProtocol, nowMs: number): void {
    this.#protocol = protocol
    if (this.#settings.role === 'server') {
      this.#server = this.#makeServer(protocol, this.#settings.serverName)
      this.#server.start(nowMs)
    } else {
      this.#client = this.#makeClient(protocol, this.#settings)
      this.#client?.start(nowMs)
    }
  }

  /** The peer asks for no authentication, and that is allowed. */
  skip(nowMs: number): void {
    if (this.#settings.role === 'client')
      this.#prove('none', this.#settings.userName, undefined, nowMs)
  }

  /** The link went down: whatever was proved counts no more. */
  stop(): void {
    this.#isJudging = false
    this.#isProved = false
    this.#server?.destroy?.()
    this.#server = undefined
    this.#client?.destroy()
    this.#client = undefined
    this.#protocol = undefined
  }

  destroy(): void {
    this.stop()
    this.#password?.destroy()
    this.#newPassword?.destroy()
  }

  receive(protocol: number, bytes: Uint8Array, at: number, length: number, nowMs: number): void {
    const exchange = this.#server ?? this.#client
    if (exchange === undefined || protocol !== this.protocolNumber) {
      this.#ports.unexpected('authentication-not-agreed')
      return
    }
    const packet = this.#parse(protocol, bytes, at, length)
    if (packet !== undefined) exchange.receive(packet, nowMs)
  }

  /** False when nobody waits for it: the link has moved on. */
  verdict(attempt: number, verdict: Verdict, nowMs: number): boolean {
    if (!this.#isJudging || attempt !== this.#attempt || this.#server === undefined) return false
    this.#isJudging = false
    this.#server.verdict(verdict, nowMs)
    return true
  }

  /** A network protocol came before authentication was over. */
  networkHeard(nowMs: number): void {
    if (this.#client instanceof EapClient) this.#client.networkHeard(nowMs)
  }

  /** False when nobody waits for it. */
  wake(ticket: number, nowMs: number): boolean {
    if (!(this.#server instanceof EapServer)) return false
    this.#server.wake(ticket, nowMs)
    return true
  }

  timer(nowMs: number): void {
    this.#server?.timer(nowMs)
    this.#client?.timer(nowMs)
  }

  #parse(
    protocol: number,
    bytes: Uint8Array,
    at: number,
    length: number,
  ): ControlPacket | undefined {
    const fault = checkControlPacket(bytes, at, length)
    if (!fault) return parseControlPacket(bytes, at)
    // RouterOS sends PAP answers whose lengths fit nothing; the code decides.
    const code = bytes[at]
    const isPapAnswer =
      protocol === PppProtocol.pap &&
      this.#client !== undefined &&
      length >= controlHeaderBytes &&
      (code === PapCode.authenticateAck || code === PapCode.authenticateNak)
    if (isPapAnswer) return { code, identifier: bytes[at + 1] ?? 0, data: new Uint8Array(0) }
    this.#ports.unexpected(`malformed-authentication-${faultName(fault)}`)
    return undefined
  }

  #prove(
    method: AuthenticationProtocol | 'none',
    userName: string,
    keys: ServerKeys | undefined,
    nowMs: number,
  ): void {
    // A challenge in the middle of a call (RFC 1994 §2) was answered well: nothing changes.
    if (this.#isProved) return
    this.#userName ??= userName
    if (this.#userName !== userName) {
      this.#ports.failed('not-authorized', 'another user after renegotiation', nowMs)
      return
    }
    this.#isProved = true
    const key = keys === undefined ? new Uint8Array(higherLayerKeyBytes) : higherLayerKey(keys)
    this.#ports.event(
      guarded(
        {
          type: 'authenticated',
          userName,
          method,
          higherLayerKey: key,
          ...(keys === undefined ? {} : { keys }),
        },
        { type: 'authenticated', userName, method },
      ),
    )
    this.#ports.proved(method, nowMs)
  }

  #makeServer(protocol: AuthenticationProtocol, serverName: string): ServerExchange {
    const ports = this.#serverPorts(protocol)
    if (protocol === 'pap') return new PapServer(ports)
    if (protocol === 'eap') return this.#makeEapServer(ports)
    return new ChapServer(protocol, serverName, this.#random, ports)
  }

  #makeEapServer(ports: ServerExchangePorts): ServerExchange {
    const { eap } = this.#settings.role === 'server' ? this.#settings : {}
    if (eap === undefined) throw new InvariantError('EAP was negotiated without a conversation')
    const eapPorts: EapServerPorts = {
      ...ports,
      authorize: authorization => {
        this.#attempt++
        this.#isJudging = true
        this.#ports.event({ type: 'authorize', attempt: this.#attempt, authorization })
      },
      pending: (ticket, settled) => this.#ports.event({ type: 'pending', ticket, settled }),
    }
    const conversation = eap({
      packetBytes: this.#ports.peerMruBytes(),
      firstIdentifier: randomBytes(this.#random, 1)[0] ?? 0,
      retransmit: eapRetransmit,
    })
    return new EapServer(conversation, eapPorts)
  }

  #serverPorts(protocol: AuthenticationProtocol): ServerExchangePorts {
    return {
      ...this.#exchangePorts(protocol),
      silent: nowMs =>
        this.#ports.failed('setup-timeout', 'the client does not answer the challenge', nowMs),
      judge: (userName, proof) => {
        this.#attempt++
        this.#isJudging = true
        const { method } = proof
        this.#ports.event(
          guarded(
            { type: 'authenticate', attempt: this.#attempt, userName, proof },
            { type: 'authenticate', attempt: this.#attempt, userName, proof: { method } },
          ),
        )
      },
      accepted: (_, verdict: AcceptVerdict, nowMs) =>
        this.#prove(protocol, verdict.authorization.userName, verdict.keys, nowMs),
      refused: (reason, canRetry, nowMs) => {
        this.#ports.event({ type: 'refused', reason, canRetry })
        if (canRetry) {
          this.#ports.retrying(nowMs)
          return
        }
        this.#ports.failed(rejectCauses[reason], `authentication refused: ${reason}`, nowMs)
      },
      broken: (detail, nowMs) => this.#ports.failed('nas-error', detail, nowMs),
    }
  }

  #makeClient(
    protocol: AuthenticationProtocol,
    { userName }: PppClientSettings,
  ): ClientExchange | undefined {
    const password = this.#password
    if (password === undefined) return undefined
    const ports: ClientExchangePorts = {
      ...this.#exchangePorts(protocol),
      silent: nowMs =>
        this.#ports.failed('setup-timeout', 'the server does not answer our proof', nowMs),
      accepted: (keys, hasChangedPassword, nowMs) => {
        if (hasChangedPassword) this.#takeNewPassword()
        this.#prove(protocol, userName, keys, nowMs)
      },
      refused: (errorCode, message, nowMs) => {
        const cause = notAuthorizedErrors.has(errorCode)
          ? 'not-authorized'
          : 'authentication-failed'
        const code = errorCode === 0 ? '' : ` with error ${errorCode}`
        const said = message === undefined || message === '' ? '' : `: ${message}`
        this.#ports.failed(cause, `the server refused us${code}${said}`, nowMs)
      },
      forged: nowMs =>
        this.#ports.failed(
          'authentication-failed',
          'the server could not prove that it knows the password',
          nowMs,
        ),
    }
    if (protocol === 'pap') return new PapClient(userName, password, ports)
    if (protocol === 'eap') {
      const random = this.#random
      const methods = [
        () => new Mschapv2PeerMethod({ random, userName, password }),
        () => new Md5PeerMethod(userName, password),
      ]
      return new EapClient(userName, methods, ports)
    }
    const credentials = { userName, password, newPassword: this.#newPassword }
    return new ChapClient(protocol, credentials, this.#random, ports)
  }

  #takeNewPassword(): void {
    this.#password?.destroy()
    this.#password = this.#newPassword
    this.#newPassword = undefined
  }

  #exchangePorts(protocol: AuthenticationProtocol) {
    const number = numberOf(protocol)
    return {
      send: (packet: ControlPacket) => this.#ports.send(number, encodeControlPacket(packet)),
      setTimer: (deadlineMs: number) => this.#ports.setTimer(deadlineMs),
      clearTimer: () => this.#ports.clearTimer(),
      unexpected: (counter: string) => this.#ports.unexpected(counter),
    }
  }
}

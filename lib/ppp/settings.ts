/** What the engines of PPP are told when they are made, and what they are told of the network later. */
import { ConfigError } from '../core/errors.ts'
import type { Secret } from '../core/secret.ts'
import type { EapConversation, EapLowerLayer } from '../eap/conversation.ts'
import type { MppeKeyBits } from './wire/ccp-options.ts'
import type { AuthenticationProtocol } from './wire/lcp-options.ts'

export type { AuthenticationProtocol } from './wire/lcp-options.ts'

export type PppRole = 'server' | 'client'

interface LinkSettings {
  /** Largest information field that the tunnel carries, bytes. */
  readonly mruBytes: number
  readonly timing?: Partial<PppTiming>
  /** Absent: the link cannot be bundled with others. */
  readonly multilink?: MultilinkSettings
}

/** What LCP says of bundles (RFC 1990 §5.1). */
export interface MultilinkSettings {
  /** Largest packet that we put together out of fragments, bytes. */
  readonly mrruBytes: number
  /** Who we are, on all of our links: a class, and an address of that class. */
  readonly endpoint: Uint8Array
  /** Fragments to us shall have short sequence numbers. */
  readonly wantsShort: boolean
  /** What we call this link when BAP is to drop it, 16 bits (RFC 2125 §2.1); absent: no BAP. */
  readonly discriminator?: number
}

export type EncryptionPolicy = 'none' | 'optional' | 'required'

/** What CCP may agree on. */
export interface CompressionSettings {
  /** `required`: the call ends when the peer does not encrypt. */
  readonly encryption: EncryptionPolicy
  /** Key lengths of MPPE that are good enough. */
  readonly strengths: readonly MppeKeyBits[]
  /** Whether a peer may have one key for 256 packets. A lost packet then costs a round trip. */
  readonly allowsStateful: boolean
  /** Whether we ask for that. */
  readonly prefersStateful: boolean
  readonly hasMppc: boolean
}

export interface PppServerSettings extends LinkSettings {
  readonly role: 'server'
  /** Our name in challenges. */
  readonly serverName: string
  /** What a client may prove itself with, strongest first; not empty. */
  readonly authentication: readonly AuthenticationProtocol[]
  /** Begins an EAP conversation; present when `authentication` names `eap`. */
  readonly eap?: (lowerLayer: Omit<EapLowerLayer, 'call'>) => EapConversation
}

export interface PppClientSettings extends LinkSettings {
  readonly role: 'client'
  readonly userName: string
  /** Copied; the engine wipes its copy when it closes. */
  readonly password: Secret
  /** What to change the password to when the server says that it has expired. */
  readonly newPassword?: Secret
  /** How we are willing to prove ourselves, strongest first; `none`: a server may ask for nothing. */
  readonly authentication: readonly (AuthenticationProtocol | 'none')[]
}

export type PppSettings = PppServerSettings | PppClientSettings

/** What holds above the links. */
export interface NetworkSettings {
  /** A client's; absent: a server's, which is told later. */
  readonly network?: ClientNetwork
  /** Absent: CCP is refused. */
  readonly compression?: CompressionSettings
  readonly timing?: Pick<Partial<PppTiming>, 'setupMs'>
}

export interface ClientNetwork {
  readonly ipv4: {
    /** Host order; 0 or absent: any. */
    readonly address?: number
    readonly wantsDns: boolean
    readonly wantsWins: boolean
  } | null
  readonly ipv6: Readonly<Record<string, never>> | null
}

/** What a server gives to an accepted client; null turns a protocol off. Addresses in host order. */
export interface ServerNetwork {
  readonly ipv4: {
    readonly localAddress: number
    /** The one address that the client gets, whatever it asks for. */
    readonly peerAddress: number
    /** At most two are told. */
    readonly dns: readonly number[]
    readonly wins: readonly number[]
  } | null
  readonly ipv6: Readonly<Record<string, never>> | null
}

export interface PppTiming {
  /**
   * From open, or from a renegotiation, until the peer is authenticated; as long again until the first
   * network protocol is up.
   */
  readonly setupMs: number
  /** From the start of authentication until its verdict; starts over when the peer may try again. */
  readonly authenticationMs: number
  /** Silence after which the peer is asked for an echo. */
  readonly echoIntervalMs: number
  /** Echo-Requests in a row without any frame from the peer, after which it is gone. */
  readonly echoMisses: number
}

export const defaultTiming: PppTiming = {
  setupMs: 60_000,
  authenticationMs: 45_000,
  echoIntervalMs: 20_000,
  echoMisses: 3,
}

/** RFC 2759 §8.8: what fits into a change of password, UTF-16 units. */
const maxPasswordUnits = 256

/** Throws ConfigError when they allow no authentication or cannot be sent. */
export function checkSettings(settings: PppSettings): void {
  if (settings.authentication.length === 0) {
    throw new ConfigError('authentication', 'expected at least one way to authenticate')
  }
  if (settings.role === 'server') {
    if (settings.eap === undefined && settings.authentication.includes('eap')) {
      throw new ConfigError('authentication', 'expected a way to begin EAP conversations')
    }
    return
  }
  const { newPassword } = settings
  if (newPassword !== undefined && newPassword.exposeText().length > maxPasswordUnits) {
    throw new ConfigError('newPassword', `expected at most ${maxPasswordUnits} characters`)
  }
}

/** L2TP/IPsec as the server runs it: IKEv1 on the sockets of IPsec, and L2TP in the ESP of its peers. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Config, IpNetwork } from '../config.ts'
import { systemWallClock } from '../core/clock.ts'
import { CertificateError, messageOf } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import {
  createPolicy,
  createTrust,
  type IkeCredential,
  type IsakmpEvent,
  type KeyScope,
} from '../ikev1/index.ts'
import { Ikev1Listener, type Ikev1Owner, type Ikev1Status } from '../ikev1/listener.ts'
import {
  type L2tpEvent,
  L2tpListener,
  type L2tpStatus,
  type TunnelSettings,
} from '../l2tp/index.ts'
import type { IpsecService } from './ipsec-service.ts'
import { type CallServices, PppCalls } from './ppp-call.ts'
import { loadIkeCertificates } from './server-certificates.ts'

export interface L2tpServiceStatus extends L2tpStatus {
  readonly ikev1: Ikev1Status
}

type IsakmpSettings = Ikev1Owner['settings']

export class L2tpService {
  readonly #ikev1: Ikev1Listener
  readonly #l2tp: L2tpListener
  readonly #log: Logger
  #settings: IsakmpSettings

  /** Throws CertificateError, and BindError where L2TP without IPsec is to be taken. */
  constructor(config: Config, services: CallServices, ipsec: IpsecService, log: Logger) {
    const { dataplane, clock, wheel, random } = services
    const { sockets, plane, database } = ipsec
    const { memory } = dataplane
    this.#log = log
    this.#settings = isakmpSettings(config)
    this.#l2tp = new L2tpListener({
      memory,
      clock,
      wheel,
      random,
      links: new PppCalls(services),
      settings: tunnelSettings(config),
      event: (peer, event) => this.#onL2tpEvent(peer, event),
    })
    const service = this
    this.#ikev1 = new Ikev1Listener({
      sockets,
      sender: plane,
      memory,
      database,
      clock,
      wheel,
      random,
      owner: {
        get settings() {
          return service.#settings
        },
        open: peer => this.#l2tp.open(peer),
        event: (peer, event) => this.#onIkeEvent(peer, event),
      },
    })
    if (config.l2tp.isAllowedWithoutIpsec) this.#l2tp.openPlain(plane, config.server.listen)
  }

  status(): L2tpServiceStatus {
    return { ...this.#l2tp.status(), ikev1: this.#ikev1.status() }
  }

  /**
   * What the result of this does: new peers are answered so, and those that are up keep what they
   * have. Throws CertificateError.
   */
  prepare(config: Config): () => void {
    const settings = isakmpSettings(config)
    return () => {
      this.#settings = settings
      this.#l2tp.settings = tunnelSettings(config)
    }
  }

  /** Calls first, then the IPsec around them. */
  async stop(): Promise<void> {
    await this.#l2tp.stop()
    await this.#ikev1.stop()
  }

  #onL2tpEvent(peer: string, event: L2tpEvent): void {
    switch (event.type) {
      case 'tunnel-up':
        this.#log.debug({ event: 'tunnel-up', peer, host: event.peer.hostName }, 'tunnel up')
        break
      case 'tunnel-down': {
        const { cause, message } = event.reason
        const by = event.by
        this.#log.debug({ event: 'tunnel-down', peer, by, cause, message }, 'tunnel down')
        break
      }
      case 'call-down': {
        const { cause, message } = event.reason
        this.#log.debug({ event: 'call-down', peer, by: event.by, cause, message }, 'call down')
        break
      }
      case 'call-up':
      case 'call-offered':
      case 'link-info':
      case 'wan-error':
      case 'tie-lost':
      case 'unexpected':
      case 'closed':
        break
    }
  }

  #onIkeEvent(peer: string, event: IsakmpEvent): void {
    switch (event.type) {
      case 'phase1-up': {
        const { path, method, nat } = event
        const { encryption, keyBits, hash, group } = event.suite
        const suite = `${encryption.name}-${keyBits}/${hash}/${group}`
        const from = `${path.peer.address} port ${path.peer.port}`
        this.#log.debug({ event: 'phase1-up', peer, from, method, suite, nat }, 'isakmp sa up')
        break
      }
      case 'child-up': {
        const { inboundSpi, replaces, isUdpEncapsulated, suite } = event.child
        const cipher = `${suite.encryption.name}-${suite.keyBits}`
        const what = { inboundSpi, replaces, isUdpEncapsulated, cipher }
        this.#log.debug({ event: 'child-up', peer, ...what }, 'esp pair up')
        break
      }
      case 'child-down':
      case 'child-failed':
      case 'rekey-due':
        this.#log.debug({ ...event, event: event.type, peer }, event.type)
        break
      case 'closed': {
        const { cause, detail, by } = event
        this.#log.debug({ event: 'isakmp-closed', peer, by, cause, detail }, 'isakmp sa closed')
        break
      }
      case 'child-confirmed':
      case 'foreign-delete':
      case 'initial-contact':
      case 'path-changed':
      case 'notified':
      case 'unexpected':
        break
    }
  }
}

function tunnelSettings({ server, l2tp }: Config): TunnelSettings {
  return {
    hostName: server.name,
    vendorName: 'OpenRAS',
    helloAfterMs: l2tp.helloMs,
    emptyTimeoutMs: 60_000,
    ...(l2tp.secret !== undefined && { secret: l2tp.secret }),
  }
}

/** Throws CertificateError. */
function isakmpSettings(config: Config): IsakmpSettings {
  const { l2tp, ikev2 } = config
  const legacy = l2tp.acceptsLegacyAlgorithms
  const credential = l2tp.clientAuthorities.length > 0 ? rsaCredential(config) : undefined
  return {
    policy: createPolicy({ allowsModp1024: legacy, allowsTripleDes: legacy }),
    preSharedKeys: l2tp.preSharedKeys.map(({ peer, key }) => ({ scope: scopeOf(peer), key })),
    // UDP carries many ESP packets per system call; raw IP carries one.
    forcesEncapsulation: !ikev2.takesPlainEsp,
    ...(credential !== undefined && {
      credential,
      trust: createTrust({
        authorities: l2tp.clientAuthorities.map(readAuthority),
        clock: systemWallClock,
      }),
    }),
  }
}

function scopeOf(peer: IpNetwork | undefined): KeyScope {
  if (peer === undefined) return { type: 'anyone' }
  const { address, prefixLength } = peer
  return typeof address === 'number'
    ? { type: 'ipv4', network: { address, prefixLength } }
    : { type: 'ipv6', network: { address, prefixLength } }
}

/** IKEv1 signs with RSA alone (RFC 2409 §5.1). Throws CertificateError. */
function rsaCredential(config: Config): IkeCredential {
  for (const { chainPem, keyPem } of loadIkeCertificates(config)) {
    const privateKey = createPrivateKey(keyPem.exposeText())
    if (privateKey.asymmetricKeyType !== 'rsa') continue
    const blocks =
      chainPem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? []
    return { privateKey, chain: blocks.map(pem => Uint8Array.from(new X509Certificate(pem).raw)) }
  }
  throw new CertificateError('l2tp.clientAuthorities needs a server certificate with an RSA key')
}

function readAuthority(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new CertificateError(`cannot read ${path}: ${messageOf(error)}`)
  }
}

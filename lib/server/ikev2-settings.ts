/** What our side of every IKEv2 connection is, out of the configuration. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import type { CertificatePair } from '../certificates/certificate-pair.ts'
import type { ClientAuthorities } from '../certificates/client-authorities.ts'
import type { Config } from '../config.ts'
import { utf8 } from '../core/bytes.ts'
import type { RandomSource } from '../core/random.ts'
import { EncryptionId, IntegrityId, KeyExchangeId, PrfId } from '../crypto/transforms.ts'
import type { EapConversationMaker } from '../eap/conversation.ts'
import { Md5ServerMethod } from '../eap/md5-method.ts'
import type { EapServerMethodMaker } from '../eap/method.ts'
import { Mschapv2ServerMethod } from '../eap/mschapv2-method.ts'
import { identityOf } from '../ikev2/identity.ts'
import type { IkeSettings, TunnelLimits } from '../ikev2/ike-connection.ts'
import {
  type Credential,
  defaultAlgorithms,
  defaultFeatures,
  defaultSignaturePolicy,
  defaultTiming,
  type LocalIdentity,
  type Timing,
} from '../ikev2/options.ts'
import type { EspAlgorithms, IkeAlgorithms } from '../ikev2/suite.ts'
import type { TicketOffice } from '../ikev2/ticket-office.ts'

/** Everything but the session. */
export type ResponderSettings = IkeSettings

export interface SettingsParts {
  readonly config: Config
  readonly certificates: readonly CertificatePair[]
  readonly authorities: ClientAuthorities
  readonly random: RandomSource
  /** Offered before those that `auth` names. */
  readonly eapMethods?: readonly EapServerMethodMaker[]
  /** Who holds the conversations instead of us. */
  readonly relayedEap?: EapConversationMaker
  /** Where tickets are made, if any are. */
  readonly tickets?: TicketOffice
}

export function responderSettings(parts: SettingsParts): ResponderSettings {
  const { config, authorities, random, relayedEap: begin } = parts
  const { ikev2 } = config
  const algorithms = algorithmsOf(ikev2)
  const methods = [...(parts.eapMethods ?? []), ...eapMethods(config, random)]
  return {
    role: 'responder',
    localIdentities: localIdentities(parts),
    peer: {
      acceptsCertificates: !authorities.isEmpty,
      authorities: authorities.keyHashes,
      presharedKeys: ikev2.sites.map(site => ({
        identity: identityOf(site.identity),
        secret: site.presharedKey,
      })),
      ...((methods.length > 0 || begin !== undefined) && {
        eap: {
          methods,
          acceptsEapOnly: ikev2.acceptsEapOnly,
          ...(begin !== undefined && { begin }),
        },
      }),
    },
    signature: defaultSignaturePolicy,
    ikeAlgorithms: algorithms.ike,
    child: {
      algorithms: algorithms.esp,
      transportMode: false,
      localSelectors: [],
      remoteSelectors: [],
    },
    ...(ikev2.postQuantumKeys.length > 0 && {
      ppk: {
        keys: ikev2.postQuantumKeys.map(({ identity, key }) => ({
          identity: utf8(identity),
          secret: key,
        })),
        isMandatory: ikev2.requiresPostQuantumKey,
      },
    }),
    ...(ikev2.redirectTo !== undefined && { redirectTo: ikev2.redirectTo }),
    ...(parts.tickets !== undefined && { tickets: parts.tickets }),
    vendorIds: [],
    timing: timingOf(ikev2),
    features: {
      ...defaultFeatures,
      // UDP carries many ESP packets per system call; raw IP carries one.
      forcesEncapsulation: !ikev2.takesPlainEsp,
    },
  }
}

export function tunnelLimits({ ikev2, tun }: Config): TunnelLimits {
  return { mtuBytes: tun.mtuBytes, rekeyBytes: ikev2.saDataBytes }
}

/** The certificate of the first pair stands for the server's name and all that it is issued for. */
function localIdentities({
  config,
  certificates,
}: SettingsParts): [LocalIdentity, ...LocalIdentity[]] {
  const credentials = certificates.map(credentialOf)
  const first: Credential = credentials[0] ?? { type: 'none' }
  const others = certificates.flatMap((pair, i) =>
    namesOf(pair.leaf).map(name => ({
      identity: identityOf(name),
      credential: credentials[i] ?? first,
    })),
  )
  const sites = config.ikev2.sites.map(site => ({
    identity: identityOf(site.localIdentity),
    credential: { type: 'psk', secret: site.presharedKey } as const,
  }))
  return [{ identity: identityOf(config.server.name), credential: first }, ...others, ...sites]
}

function credentialOf({ chainPem, keyPem }: CertificatePair): Credential {
  const blocks = chainPem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? []
  const chain = blocks.map(block => new X509Certificate(block))
  return {
    type: 'certificate',
    chain: chain
      .filter((one, i) => i === 0 || !one.checkIssued(one))
      .map(one => Uint8Array.from(one.raw)),
    key: createPrivateKey(keyPem.exposeText()),
  }
}

/** Names and addresses of the certificate. */
function namesOf(leaf: X509Certificate): string[] {
  const alternatives = leaf.subjectAltName ?? ''
  return [...alternatives.matchAll(/(?:^|, )(?:DNS|IP Address):([^,"]+)/g)].map(
    ([, name = '']) => name,
  )
}

function eapMethods(config: Config, random: RandomSource): EapServerMethodMaker[] {
  const methods: EapServerMethodMaker[] = []
  const serverName = config.server.name
  const { auth, eap } = config
  if (auth.methods.includes('mschapv2') && !eap.methods.includes('mschapv2')) {
    methods.push(() => new Mschapv2ServerMethod({ random, serverName }))
  }
  if (auth.methods.includes('chap') && !eap.methods.includes('md5')) {
    methods.push(() => new Md5ServerMethod(random, serverName))
  }
  return methods
}

const kems = {
  'ml-kem-512': KeyExchangeId.mlKem512,
  'ml-kem-768': KeyExchangeId.mlKem768,
  'ml-kem-1024': KeyExchangeId.mlKem1024,
} as const

function algorithmsOf({ acceptsLegacyAlgorithms, additionalKeyExchanges }: Config['ikev2']): {
  ike: IkeAlgorithms
  esp: EspAlgorithms
} {
  const { esp } = defaultAlgorithms
  const ike: IkeAlgorithms = {
    ...defaultAlgorithms.ike,
    additionalKeyExchange: additionalKeyExchanges.map(name => kems[name]),
  }
  if (!acceptsLegacyAlgorithms) return { ike, esp }
  const encryption = [{ id: EncryptionId.tripleDes, keyBits: 192 }]
  const keyExchange = [KeyExchangeId.modp1536, KeyExchangeId.modp1024]
  return {
    ike: {
      ...ike,
      encryption: [...ike.encryption, ...encryption],
      prf: [...ike.prf, PrfId.hmacSha1],
      integrity: [...ike.integrity, IntegrityId.hmacSha1_96],
      keyExchange: [...ike.keyExchange, ...keyExchange],
    },
    esp: {
      ...esp,
      encryption: [...esp.encryption, ...encryption],
      // Who came with such a group rekeys its Child SAs with it.
      keyExchange: [...esp.keyExchange, ...keyExchange],
    },
  }
}

/** Repetitions go on for as long as a peer may be out of reach. */
function timingOf({ networkOutageMs, saLifetimeMs }: Config['ikev2']): Timing {
  const { retransmit } = defaultTiming
  let [tries, waitedMs] = [0, 0]
  while (waitedMs < networkOutageMs || tries < retransmit.tries) {
    waitedMs += Math.min(retransmit.firstMs * retransmit.factor ** tries, retransmit.capMs)
    tries++
  }
  return {
    ...defaultTiming,
    retransmit: { ...retransmit, tries },
    // Ours, or the peer's that is half an hour younger: one of the two makes new keys in time.
    childRekeyMs: 0.9 * saLifetimeMs,
    childExpireMs: saLifetimeMs + networkOutageMs,
    ikeRekeyMs: saLifetimeMs,
    ikeExpireMs: Math.max(defaultTiming.ikeExpireMs, 2 * saLifetimeMs),
  }
}

/** The EAP methods that the configuration names, for PPP and IKEv2 alike. */
import type { RejectReason } from '../aaa/authenticator.ts'
import { splitUserName } from '../aaa/policy/user-name.ts'
import { accountRefusal, authorizationOf } from '../aaa/users/account.ts'
import type { UserStore } from '../aaa/users/user-store.ts'
import { loadCertificatePair } from '../certificates/certificate-pair.ts'
import { ClientAuthorities } from '../certificates/client-authorities.ts'
import { OcspResponses } from '../certificates/ocsp-responses.ts'
import { principalNames } from '../certificates/principal-name.ts'
import type { Config } from '../config.ts'
import { systemWallClock, type WallClock } from '../core/clock.ts'
import { assertNever, CertificateError, messageOf } from '../core/errors.ts'
import { type Logger, silentLogger } from '../core/log.ts'
import type { RandomSource } from '../core/random.ts'
import { TlsLimit, TlsTerminal } from '../crypto/tls-engine.ts'
import { Md5ServerMethod } from '../eap/md5-method.ts'
import type { EapServerMethodMaker } from '../eap/method.ts'
import { Mschapv2ServerMethod } from '../eap/mschapv2-method.ts'
import { peapServerMethod } from '../eap/peap-method.ts'
import { type CertificateJudge, tlsServerMethod } from '../eap/tls-method.ts'
import { ttlsServerMethod } from '../eap/ttls-method.ts'
import { logOcspFault, ownCertificate, stapleOf } from './server-certificates.ts'

export interface EapParts {
  readonly config: Config
  readonly users: () => UserStore
  readonly random: RandomSource
  readonly wallClock?: WallClock
  readonly log?: Logger
}

/** What proofs the authenticator must take, for EAP and otherwise. */
export function proofMethods(
  { methods }: Config['auth'],
  eap: Config['eap'],
): Config['auth']['methods'] {
  const inner = eap.methods.includes('ttls') ? eap.inner : []
  const hasMschapv2 = eap.methods.some(method => method === 'peap' || method === 'mschapv2')
  const mschapv2 = hasMschapv2 ? (['mschapv2'] as const) : []
  const chap = eap.methods.includes('md5') ? (['chap'] as const) : []
  return [...new Set([...methods, ...inner, ...mschapv2, ...chap])]
}

/** In the order of the configuration. Throws CertificateError. */
export function makeEapMethods(parts: EapParts): readonly EapServerMethodMaker[] {
  const { config, random } = parts
  const { eap, server } = config
  const mschapv2: EapServerMethodMaker = () =>
    new Mschapv2ServerMethod({ random, serverName: server.name })
  const tunnels = eap.methods.some(method => method !== 'mschapv2' && method !== 'md5')
    ? makeTunnels(parts)
    : undefined
  const { tls, tunnel } = tunnels ?? {}
  const inner = tls === undefined ? [mschapv2] : [mschapv2, tls]
  return eap.methods.flatMap((method): EapServerMethodMaker[] => {
    switch (method) {
      case 'tls':
        return tls === undefined ? [] : [tls]
      case 'peap':
        if (tunnel === undefined) return []
        return [size => peapServerMethod({ terminal: tunnel, methods: inner, random }, size)]
      case 'ttls':
        if (tunnel === undefined) return []
        return [
          size => ttlsServerMethod({ terminal: tunnel, inner: eap.inner, methods: inner }, size),
        ]
      case 'mschapv2':
        return [mschapv2]
      case 'md5':
        return [() => new Md5ServerMethod(random, server.name)]
      default:
        return assertNever(method)
    }
  })
}

/** A terminal that asks for certificates and one that does not: no session fits both. */
function makeTunnels(parts: EapParts): {
  readonly tls: EapServerMethodMaker | undefined
  readonly tunnel: TlsTerminal
} {
  const { config, users, wallClock = systemWallClock, log = silentLogger } = parts
  const { eap } = config
  const now = wallClock.now()
  const files = eap.certificate ?? config.sstp.certificates[0]
  const pair = files === undefined ? ownCertificate(config).pair : loadCertificatePair(files, now)
  const { chainPem, keyPem } = pair
  const limit = new TlsLimit(eap.mostConversations)
  const staple = stapleOf(pair, log)
  const base = { chainPem, keyPem, limit, ...(staple !== undefined && { staple }) }
  try {
    const tunnel = new TlsTerminal({ ...base, sessionContext: 'eap-tunnel', isResumable: false })
    const authorities = clientAuthorities(eap, now, log)
    if (authorities.isEmpty) {
      if (!eap.methods.includes('tls')) return { tls: undefined, tunnel }
      throw new CertificateError('EAP-TLS needs eap.clientAuthorities: whom certificates come from')
    }
    const terminal = new TlsTerminal({
      ...base,
      clientAuthoritiesPem: authorities.pem,
      sessionContext: 'eap-tls',
      isResumable: true,
    })
    const judge = certificateJudge(authorities, users, wallClock)
    return { tls: size => tlsServerMethod(terminal, judge, size), tunnel }
  } catch (thrown) {
    if (thrown instanceof CertificateError) throw thrown
    throw new CertificateError(`EAP cannot use its certificate: ${messageOf(thrown)}`, {
      cause: thrown,
    })
  }
}

/** Throws CertificateError. */
function clientAuthorities(eap: Config['eap'], now: Date, log: Logger): ClientAuthorities {
  const { ocsp } = eap
  const onFault = logOcspFault(log)
  return ClientAuthorities.load(
    eap.clientAuthorities,
    eap.revocationLists,
    ocsp && {
      responses: OcspResponses.load({ folder: ocsp.folder, onFault }, now),
      isRequired: ocsp.isRequired,
    },
  )
}

/**
 * A certificate stands for the user that it names: by UPN, else mail address, DNS name, common name, with
 * or without the realm. Who is not among the users does not come in.
 */
export function certificateJudge(
  authorities: ClientAuthorities,
  users: () => UserStore,
  wallClock: WallClock,
): CertificateJudge {
  const reject = (reason: RejectReason) => ({ type: 'reject', reason }) as const
  return chain => {
    const now = wallClock.now()
    const judged = authorities.judge(chain, now)
    const [leaf] = chain
    if (judged.type === 'reject' || leaf === undefined) return reject('bad-credentials')
    const store = users()
    for (const name of [...principalNames(leaf), ...judged.names]) {
      const user = store.find(name) ?? store.find(splitUserName(name).user)
      if (user === undefined) continue
      const refusal = accountRefusal(user, now)
      return refusal === undefined
        ? { type: 'accept', authorization: authorizationOf(user) }
        : reject(refusal)
    }
    return reject('no-dial-in')
  }
}

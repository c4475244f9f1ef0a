/** IKEv2 (RFC 7296): the machine and what its composer needs. */
export type { ConfigurationGrant, ConfigurationRequest } from './configuration.ts'
export { CookieJar, type FirstRequest, readFirstRequest } from './cookie-jar.ts'
export type { AuthenticatedBy, ChildDescription, ChildDownReason, IkeSaEvent } from './event.ts'
export { describeIdentity, identityOf, isSameIdentity } from './identity.ts'
export { IkeSa } from './ike-sa.ts'
export type { CertificateVerdict, Grant, GrantVerdict, IkeSaInput } from './input.ts'
export {
  type Credential,
  defaultFeatures,
  defaultSignaturePolicy,
  defaultTiming,
  type Features,
  type IkeSaHost,
  type IkeSaOptions,
  type LocalIdentity,
  type PeerPolicy,
  type Timing,
} from './options.ts'
export { type Endpoint, IKE_PORT, NAT_TRAVERSAL_PORT, type Path } from './path.ts'
export { answerStranger } from './stranger.ts'
export {
  defaultEspAlgorithms,
  defaultIkeAlgorithms,
  type EspAlgorithms,
  type EspSuite,
  type IkeAlgorithms,
} from './suite.ts'
export {
  describeSelector,
  everything,
  hostSelector,
  ipv4Selector,
  ipv6Selector,
} from './traffic-selectors.ts'

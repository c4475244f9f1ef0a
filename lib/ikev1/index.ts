/** IKEv1 for L2TP/IPsec (RFC 2407, 2408, 2409, 3706, 3947), sans-IO: what a listener needs. */
export {
  type CertificateTrust,
  createTrust,
  type IkeCredential,
  type TrustOptions,
  type TrustVerdict,
} from './certificates.ts'
export type { Child, ChildRequest, IsakmpEvent, IsakmpInput } from './event.ts'
export { IsakmpMachine } from './isakmp-machine.ts'
export { type IsakmpOptions, udpL2tp } from './isakmp-options.ts'
export {
  defaultIsakmpLimits,
  type IsakmpEntry,
  type IsakmpLimits,
  type IsakmpRoute,
  IsakmpTable,
} from './isakmp-table.ts'
export type { Endpoint, NatState, Path } from './path.ts'
export {
  createPolicy,
  type IkePolicy,
  type Lifetimes,
  type Phase1AuthenticationMethod,
  type Phase1Suite,
  type PolicyChoices,
} from './policy.ts'
export type { KeyScope, PreSharedKey } from './pre-shared-keys.ts'
export type { ProtectedService } from './quick-mode-exchange.ts'
export type { Identification } from './wire/payload.ts'

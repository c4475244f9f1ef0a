/** All payloads as one union, and their codecs as one table. */
import { putBytes } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import { type AuthenticationPayload, authenticationCodec } from './authentication.ts'
import {
  type CertificatePayload,
  type CertificateRequestPayload,
  certificateCodec,
  certificateRequestCodec,
} from './certificate.ts'
import { type ConfigurationPayload, configurationCodec } from './configuration.ts'
import { type DeletePayload, deleteCodec } from './delete.ts'
import { type EncryptedFragmentPayload, encryptedFragmentCodec } from './encrypted-fragment.ts'
import { type IdentificationPayload, initiatorIdCodec, responderIdCodec } from './identification.ts'
import { type KeyExchangePayload, keyExchangeCodec } from './key-exchange.ts'
import { type NotifyPayload, notifyCodec } from './notify.ts'
import {
  type EapPayload,
  type EncryptedPayload,
  eapCodec,
  encryptedCodec,
  type NoncePayload,
  nonceCodec,
  type VendorIdPayload,
  vendorIdCodec,
} from './opaque.ts'
import type { PayloadCodec } from './payload-codec.ts'
import { type PayloadName, PayloadType, payloadName } from './payload-type.ts'
import {
  type SecurityAssociationPayload,
  securityAssociationCodec,
} from './security-association.ts'
import {
  initiatorSelectorsCodec,
  responderSelectorsCodec,
  type TrafficSelectorPayload,
} from './traffic-selector.ts'

/** A payload of a type that we do not know. */
export interface UnknownPayload {
  readonly type: 'unknown'
  readonly code: number
  /** The peer wants the message refused when we do not know the type (RFC 7296 §2.5). */
  readonly isCritical: boolean
  readonly data: Uint8Array
}

export type Payload =
  | SecurityAssociationPayload
  | KeyExchangePayload
  | IdentificationPayload<'IDi'>
  | IdentificationPayload<'IDr'>
  | CertificatePayload
  | CertificateRequestPayload
  | AuthenticationPayload
  | NoncePayload
  | NotifyPayload
  | DeletePayload
  | VendorIdPayload
  | TrafficSelectorPayload<'TSi'>
  | TrafficSelectorPayload<'TSr'>
  | EncryptedPayload
  | ConfigurationPayload
  | EapPayload
  | EncryptedFragmentPayload
  | UnknownPayload

export type PayloadOf<Name extends Payload['type']> = Extract<Payload, { type: Name }>

const codecs: { readonly [Name in PayloadName]: PayloadCodec<PayloadOf<Name>> } = {
  SA: securityAssociationCodec,
  KE: keyExchangeCodec,
  IDi: initiatorIdCodec,
  IDr: responderIdCodec,
  CERT: certificateCodec,
  CERTREQ: certificateRequestCodec,
  AUTH: authenticationCodec,
  Nonce: nonceCodec,
  N: notifyCodec,
  D: deleteCodec,
  V: vendorIdCodec,
  TSi: initiatorSelectorsCodec,
  TSr: responderSelectorsCodec,
  SK: encryptedCodec,
  CP: configurationCodec,
  EAP: eapCodec,
  SKF: encryptedFragmentCodec,
}

// Each codec belongs to the name that it stands under, which a union cannot express.
function codecOf(name: PayloadName): PayloadCodec<Payload> {
  return codecs[name] as PayloadCodec<Payload>
}

export function checkPayload(code: number, body: Uint8Array): WireFault {
  const name = payloadName(code)
  return name === undefined ? WireFault.none : codecOf(name).check(body)
}

/** After `checkPayload`. The critical bit of a known type means nothing (RFC 7296 §3.2). */
export function parsePayload(code: number, isCritical: boolean, body: Uint8Array): Payload {
  const name = payloadName(code)
  if (name === undefined) return { type: 'unknown', code, isCritical, data: body }
  return codecOf(name).parse(body)
}

/** The number that stands in the next-payload field before this payload. */
export function payloadCode(payload: Payload): number {
  return payload.type === 'unknown' ? payload.code : PayloadType[payload.type]
}

export function payloadBodyBytes(payload: Payload): number {
  return payload.type === 'unknown' ? payload.data.length : codecOf(payload.type).bodyBytes(payload)
}

export function encodePayloadBody(payload: Payload, out: Uint8Array, at: number): number {
  return payload.type === 'unknown'
    ? putBytes(out, at, payload.data)
    : codecOf(payload.type).encode(payload, out, at)
}

/** REDIRECT: being sent to another gateway, RFC 5685 §3 to §7. */
import { concatBytes, equalBytes, u32, utf8, utf8Text } from '../../core/bytes.ts'
import { formatIpv4, formatIpv6 } from '../../core/ip-address.ts'
import type { Connection } from '../connection.ts'
import { addressBytes } from '../path.ts'
import type { Task } from '../task.ts'
import { notify } from '../wire/notify.ts'
import { NotifyType } from '../wire/notify-type.ts'
import type { Payload } from '../wire/payload.ts'

/** RFC 5685 §7.2: gateway kind (1 IPv4, 2 IPv6, 3 FQDN), length, gateway, then our nonce. */
export function followRedirect(
  connection: Connection,
  data: Uint8Array,
  nonce: Uint8Array | undefined,
): void {
  const redirect = parseRedirect(data)
  // RFC 5685 §3: the nonce shows that the answer is to our request.
  if (redirect === undefined || (nonce !== undefined && !equalBytes(redirect.nonce, nonce))) {
    connection.unexpected('redirect-malformed')
    return
  }
  connection.emit({ type: 'redirected', gateway: redirect.gateway })
  connection.close('user-request', 'redirected')
}

export interface Redirect {
  readonly gateway: string
  readonly nonce: Uint8Array
}

export function parseRedirect(data: Uint8Array): Redirect | undefined {
  const lengthBytes = data[1] ?? 0
  if (data.length < 2 + lengthBytes || lengthBytes === 0) return undefined
  const gateway = data.subarray(2, 2 + lengthBytes)
  const nonce = data.subarray(2 + lengthBytes)
  if (data[0] === 1 && lengthBytes === 4) return { gateway: formatIpv4(u32(gateway, 0)), nonce }
  if (data[0] === 2 && lengthBytes === 16) return { gateway: formatIpv6(gateway), nonce }
  if (data[0] !== 3) return undefined
  const name = utf8Text(gateway)
  return /^[a-z0-9.-]{1,253}$/i.test(name) ? { gateway: name, nonce } : undefined
}

export function redirectData(gateway: string, nonce: Uint8Array): Uint8Array {
  const address = addressBytes(gateway)
  const kind = address.length === 4 ? 1 : address.length === 16 ? 2 : 3
  const bytes = address.length === 0 ? utf8(gateway) : address
  return concatBytes(Uint8Array.of(kind, bytes.length), bytes, nonce)
}

/** Sends the peer of an established SA elsewhere (RFC 5685 §5). */
export class SendRedirect implements Task {
  readonly name = 'send-redirect'
  readonly exchange = 'INFORMATIONAL'
  readonly survivesRekey = true
  readonly #gateway: string

  constructor(gateway: string) {
    this.#gateway = gateway
  }

  build(): readonly Payload[] {
    return [notify(NotifyType.REDIRECT, redirectData(this.#gateway, new Uint8Array(0)))]
  }

  // The peer deletes the SA when it has a new one.
  process(): void {}
}

/**
 * Answers to datagrams that belong to no IKE SA, RFC 7296 §2.5, §2.21.4: stateless, in clear, never
 * longer than the question. The listener limits how many it sends.
 */
import { u32 } from '../core/bytes.ts'
import { exchangeName } from './wire/exchange-type.ts'
import { checkHeader, HEADER_BYTES, parseHeader, SPI_BYTES } from './wire/header.ts'
import { encodeMessage } from './wire/message.ts'
import { notify } from './wire/notify.ts'
import { NotifyType } from './wire/notify-type.ts'

const VERSION_AT = 17
const FLAGS_AT = 19
const FLAG_RESPONSE = 0x20
const MESSAGE_ID_AT = 20
const OUR_MAJOR_VERSION = 2

/**
 * INVALID_MAJOR_VERSION for what is newer than we are, INVALID_IKE_SPI for a request of an SA that we
 * do not know: the peer learns that we have restarted. Undefined when silence is right.
 */
export function answerStranger(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length < HEADER_BYTES) return undefined
  const isResponse = ((bytes[FLAGS_AT] ?? 0) & FLAG_RESPONSE) !== 0
  if (isResponse) return undefined
  const isNewer = (bytes[VERSION_AT] ?? 0) >>> 4 > OUR_MAJOR_VERSION
  if (!isNewer && checkHeader(bytes)) return undefined
  const header = parseHeader(bytes)
  const isFirst = header.responderSpi.every(byte => byte === 0)
  const exchange = exchangeName(header.exchangeType)
  if (!isNewer && (isFirst || exchange === undefined || exchange === 'IKE_SA_INIT')) {
    return undefined
  }
  const type = isNewer ? NotifyType.INVALID_MAJOR_VERSION : NotifyType.INVALID_IKE_SPI
  const answer = encodeMessage(
    {
      initiatorSpi: header.initiatorSpi,
      responderSpi: isFirst ? new Uint8Array(SPI_BYTES) : header.responderSpi,
      exchangeType: header.exchangeType,
      isFromInitiator: !header.isFromInitiator,
      isResponse: true,
      canHigherVersion: false,
      messageId: u32(bytes, MESSAGE_ID_AT),
    },
    [notify(type)],
  )
  return answer.length <= bytes.length ? answer : undefined
}

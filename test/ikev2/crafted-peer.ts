/** An initiator that has proved itself and then says whatever a test likes: its keys are in the key log. */
import { fromHex } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { PayloadCipher } from '../../lib/crypto/payload-cipher.ts'
import { EncryptionId, encryptionTransform } from '../../lib/crypto/transforms.ts'
import { openMessage, parseInner, sealMessage } from '../../lib/ikev2/protection.ts'
import { type MessageHead, parseMessage } from '../../lib/ikev2/wire/message.ts'
import type { Payload } from '../../lib/ikev2/wire/payload.ts'
import { type End, Pair, type PairOptions } from './pair.ts'

/** Keys of one IKE SA. */
export interface Keys {
  readonly spis: Pick<MessageHead, 'initiatorSpi' | 'responderSpi'>
  /** What the initiator seals with, and what the responder does. */
  readonly fromInitiator: PayloadCipher
  readonly fromResponder: PayloadCipher
}

/** Ciphers out of the key log: a peer that speaks whatever we like. */
export function keysOf(end: End): Keys {
  const line = end.of('key-log').at(-1)?.line ?? ''
  const [spiI = '', spiR = '', ei = '', er = ''] = line.split(',')
  const encryption = encryptionTransform(EncryptionId.aesGcm16)
  if (encryption === undefined) throw new Error('no AES-GCM')
  const cipher = (key: string) =>
    new PayloadCipher({
      encryption,
      integrity: undefined,
      encryptionKey: fromHex(key),
      integrityKey: new Uint8Array(0),
    })
  return {
    spis: { initiatorSpi: fromHex(spiI), responderSpi: fromHex(spiR) },
    fromInitiator: cipher(ei),
    fromResponder: cipher(er),
  }
}

export const random = new SeededRandom(4)

export function headOf(keys: Keys, exchangeType: number, messageId: number): MessageHead {
  return {
    ...keys.spis,
    exchangeType,
    messageId,
    isFromInitiator: true,
    isResponse: false,
    canHigherVersion: false,
  }
}

/** Feeds the responder a request of the (authentic) initiator and returns its last answer's payloads. */
export function ask(pair: Pair, keys: Keys, exchangeType: number, id: number, payloads: Payload[]) {
  const bytes = sealMessage(keys.fromInitiator, headOf(keys, exchangeType, id), payloads, random)
  return askBytes(pair, keys, bytes)
}

export function askBytes(
  pair: Pair,
  keys: Keys,
  bytes: Uint8Array,
): readonly Payload[] | undefined {
  const before = pair.responder.of('datagram').length
  const path = pair.responder.path
  pair.send('responder', { type: 'datagram', bytes, path })
  const answer = pair.responder.of('datagram')[before]?.bytes
  if (answer === undefined) return undefined
  const outer = parseMessage(answer)
  const opened = openMessage(keys.fromResponder, answer.slice(), outer.encryptedAt, false)
  return parseInner(opened.plaintext, outer.innerType).payloads
}

/** An established pair whose initiator is replaced by the test. */
export function established(options: PairOptions = {}): { pair: Pair; keys: Keys } {
  const pair = new Pair(options)
  pair.dial()
  pair.settle(1000)
  pair.link = { ...pair.link, loss: 1 }
  return { pair, keys: keysOf(pair.initiator) }
}

/** The payloads of a request for a Child SA whose packets come in under `spi`, 8 hexadecimal digits. */
export function childRequest(pair: Pair, spi: string): Payload[] {
  const { localSelectors, remoteSelectors } = pair.initiator.options.child
  return [
    {
      type: 'SA',
      proposals: [
        {
          proposalNumber: 1,
          protocolId: 3,
          spi: fromHex(spi),
          transforms: [
            {
              transformType: 1,
              transformId: 20,
              attributes: [{ attributeType: 14, value: 256 }],
            },
            { transformType: 5, transformId: 0, attributes: [] },
          ],
        },
      ],
    },
    { type: 'Nonce', data: new Uint8Array(32) },
    { type: 'TSi', selectors: localSelectors },
    { type: 'TSr', selectors: remoteSelectors },
  ]
}

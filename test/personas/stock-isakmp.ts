/**
 * The IKEv1 of a stock L2TP client: main mode and quick mode as initiator, informational exchanges, and
 * the ESP pairs that come of them. It shares codecs, key schedule and ciphers with the server, and no
 * state machine.
 */
import { X509Certificate } from 'node:crypto'
import { concatBytes, copyBytes, equalBytes, fromHex, toHex, u32 } from '../../lib/core/bytes.ts'
import { randomBytes, SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { keyExchange } from '../../lib/crypto/key-exchanges.ts'
import {
  EncryptionId,
  encryptionTransform,
  integrityTransform,
} from '../../lib/crypto/transforms.ts'
import { isSignatureGood, signHash } from '../../lib/ikev1/certificates.ts'
import { noCookie } from '../../lib/ikev1/cookies.ts'
import { Reassembly } from '../../lib/ikev1/fragments.ts'
import { exchangeIv, Phase1Keys, phase1Iv } from '../../lib/ikev1/key-schedule.ts'
import { encodeMessage, openMessage } from '../../lib/ikev1/message.ts'
import { addressBytes, type CookiePair, detectNat, natPayloads } from '../../lib/ikev1/path.ts'
import type { Phase1Suite } from '../../lib/ikev1/policy.ts'
import { CbcChain } from '../../lib/ikev1/protection.ts'
import { spiBytes } from '../../lib/ikev1/quick-mode-exchange.ts'
import { vendorIdName } from '../../lib/ikev1/vendor-ids.ts'
import { HEADER_BYTES, type IsakmpHeader, parseHeader } from '../../lib/ikev1/wire/header.ts'
import { ExchangeType, NotifyType, PayloadType } from '../../lib/ikev1/wire/numbers.ts'
import {
  encodePayloads,
  filterPayloads,
  findPayload,
  idPayload,
  type Payload,
  parsePayloads,
  saPayload,
} from '../../lib/ikev1/wire/payload.ts'
import type { Flight } from '../support/datagram-network.ts'
import {
  type IpsecServer,
  serverAddress,
  serverIpv6Address,
  sharedKey,
  type Waiting,
} from '../support/ipsec-server.ts'
import type { MachineCertificate } from '../support/machine-certificate.ts'
import { type L2tpPersona, phase1Numbers, phase2Numbers } from './l2tp-personas.ts'
import { phase1ProposalsOf, phase2ProposalsOf } from './l2tp-proposals.ts'
import { StockEsp } from './stock-esp.ts'

export interface StockIsakmpOptions {
  readonly server: IpsecServer
  readonly address: string
  readonly key?: string
  /** In place of the preshared key. */
  readonly certificate?: MachineCertificate
  readonly seed?: number
}

interface Sa {
  readonly cookies: CookiePair
  readonly suite: Phase1Suite
  readonly keys: Phase1Keys
  readonly lastBlock: Uint8Array
  readonly isDraft: boolean
}

interface Pending {
  readonly datagrams: readonly Uint8Array[]
  readonly resolve: (message: Uint8Array) => void
  readonly reject: (error: Error) => void
  tries: number
  dueMs: number
}

const udpProtocol = 17
const l2tpPort = 1701

export class StockIsakmp implements Waiting {
  readonly persona: L2tpPersona
  readonly esp = new StockEsp()
  readonly complaints: string[] = []
  readonly received: Flight[] = []
  readonly address: string
  readonly serverAddress: string
  /** R-U-THERE of the server, and their answers to ours. */
  asked = 0
  answered = 0
  repetitions = 0
  /** The server has deleted the ISAKMP SA. */
  isDeleted = false
  /** Packets out of ESP, from the UDP header on. */
  onPacket: (packet: Uint8Array) => void = () => {}
  readonly #options: StockIsakmpOptions
  readonly #random: SeededRandom
  readonly #pending = new Map<string, Pending>()
  readonly #reassembly = new Reassembly()
  #sa: Sa | undefined
  #spi: number
  #isFloated = false
  #isGone = false
  #hasBeenUp = false

  constructor(persona: L2tpPersona, options: StockIsakmpOptions) {
    const { server, address, seed = 1 } = options
    this.persona = persona
    this.address = address
    this.serverAddress = address.includes(':') ? serverIpv6Address : serverAddress
    this.#options = options
    this.#random = new SeededRandom(2000 + seed)
    this.#spi = 0x0d00_0000 + seed * 0x1_0000
    server.network.listen(address, flight => {
      if (!this.#isGone) this.#receive(flight)
    })
    server.waiting.add(this)
  }

  get suite(): Phase1Suite | undefined {
    return this.#sa?.suite
  }

  /** Of the newest ISAKMP SA. */
  get cookies(): CookiePair {
    return this.#current.cookies
  }

  /** Is switched off: nothing is sent or answered any more. */
  vanish(): void {
    this.#isGone = true
    this.#options.server.waiting.delete(this)
  }

  // Main mode

  /** A new ISAKMP SA; the pairs of the one before go on. */
  async phase1(): Promise<void> {
    const { persona } = this
    const { certificate } = this.#options
    const initiatorCookie = randomBytes(this.#random, 8)
    const start: CookiePair = { initiatorCookie, responderCookie: noCookie }
    const sa = saPayload(phase1ProposalsOf(persona, certificate === undefined ? 1 : 3))
    const vendors = persona.vendorIds.map((text): Payload => ({ type: 'VID', data: fromHex(text) }))
    const first = encodeMessage(
      start,
      ExchangeType.identityProtection,
      0,
      [sa, ...vendors],
      undefined,
    )
    const key = `main ${toHex(initiatorCookie)}`
    const second = await this.#exchange(key, first)
    const cookies = { initiatorCookie, responderCookie: parseHeader(second, 0).responderCookie }
    const answer = this.#plain(second)
    const suite = this.#chosen(answer)
    const traversal = filterPayloads(answer, 'VID').map(({ data }) => vendorIdName(data) ?? '')
    const isDraft = !traversal.includes('RFC 3947')
    if (traversal.includes('DPD') && !persona.speaksDpd) this.complaints.push('DPD, unasked')

    const offer = keyExchange(suite.group)?.offer(this.#random)
    if (offer === undefined) throw new Error('no such group')
    const nonceI = randomBytes(this.#random, persona.nonceBytes)
    const path = {
      local: { address: this.address, port: this.#port },
      peer: { address: this.serverAddress, port: this.#port },
      isFloated: this.#isFloated,
    }
    const third = encodeMessage(
      cookies,
      ExchangeType.identityProtection,
      0,
      [
        { type: 'KE', data: offer.publicValue },
        { type: 'NONCE', data: nonceI },
        ...(certificate === undefined
          ? []
          : [{ type: 'CR', encoding: 4, data: new Uint8Array(0) } as const]),
        ...natPayloads(suite.hash, cookies, path, isDraft, false),
      ],
      undefined,
    )
    const fourth = this.#plain(await this.#exchange(key, third))
    const theirs = findPayload(fourth, 'KE')?.data ?? new Uint8Array(0)
    const nonceR = findPayload(fourth, 'NONCE')?.data ?? new Uint8Array(0)
    const shared = offer.finish(theirs)
    if (!(shared instanceof Secret)) throw new Error('a bad public value of the server')
    if (detectNat(filterPayloads(fourth, 'NAT-D'), suite.hash, cookies, path) === undefined) {
      this.complaints.push('no NAT detection')
    }
    this.#isFloated = true

    const secrets = { nonceI, nonceR, shared: shared.expose(), cookies }
    const psk =
      certificate === undefined ? Secret.fromText(this.#options.key ?? sharedKey) : undefined
    const keys = new Phase1Keys(suite, secrets, psk)
    const chain = new CbcChain(keys, phase1Iv(suite, offer.publicValue, theirs))
    const id = idPayload(this.#identity(0, 0))
    const hash = keys.authenticationHash(
      offer.publicValue,
      theirs,
      initiatorCookie,
      cookies.responderCookie,
      sa.body,
      id.body,
    )
    const fifth = encodeMessage(
      cookies,
      ExchangeType.identityProtection,
      0,
      [id, ...this.#proof(hash), ...this.#initialContact(cookies)],
      chain,
    )
    const sixth = await this.#exchange(key, fifth)
    const opened = chain.open(sixth.subarray(HEADER_BYTES))
    if (opened === undefined) throw new Error('message 6 cannot be decrypted')
    opened.accept()
    const proof = this.#payloads(opened.plaintext, sixth)
    const expected = keys.authenticationHash(
      theirs,
      offer.publicValue,
      cookies.responderCookie,
      initiatorCookie,
      sa.body,
      findPayload(proof, 'ID')?.body ?? new Uint8Array(0),
    )
    if (!this.#isProof(proof, expected)) this.complaints.push('the server does not prove itself')
    this.#sa = { cookies, suite, keys, lastBlock: copyBytes(chain.iv), isDraft }
    this.#hasBeenUp = true
  }

  /** The answer must be one of ours, unchanged. */
  #chosen(answer: readonly Payload[]): Phase1Suite {
    const [proposal] = findPayload(answer, 'SA')?.proposals ?? []
    const [transform] = proposal?.transforms ?? []
    const offered = this.persona.phase1[(transform?.number ?? 0) - 1]
    if (transform === undefined || offered === undefined) throw new Error('no proposal chosen')
    const [cipher, hash, group] = offered
    const of = (type: number) => transform.attributes.find(one => one.type === type)?.value
    const [id, keyBits] = phase1Numbers.ciphers[cipher]
    const isOurs =
      of(1) === id &&
      (of(14) ?? 0) === keyBits &&
      of(2) === phase1Numbers.hashes[hash] &&
      of(4) === phase1Numbers.groups[group] &&
      of(12) === this.persona.phase1Seconds
    if (!isOurs || hash === 'md5') this.complaints.push('a transform that was not offered')
    const encryption = encryptionTransform(
      cipher === '3des' ? EncryptionId.tripleDes : EncryptionId.aesCbc,
    )
    if (encryption === undefined || hash === 'md5') throw new Error('no such cipher')
    const bits = keyBits === 0 ? 192 : keyBits
    return { encryption, keyBits: bits, hash, group: phase1Numbers.groups[group] }
  }

  #identity(protocol: number, port: number) {
    const data = addressBytes(this.address)
    return { idType: data.length === 16 ? 5 : 1, protocol, port, data }
  }

  #proof(hash: Uint8Array): Payload[] {
    const { certificate } = this.#options
    if (certificate === undefined) return [{ type: 'HASH', data: hash }]
    return [
      ...certificate.chain.map((data): Payload => ({ type: 'CERT', encoding: 4, data })),
      { type: 'SIG', data: signHash(certificate.key, hash) },
    ]
  }

  #isProof(payloads: readonly Payload[], expected: Uint8Array): boolean {
    if (this.#options.certificate === undefined) {
      return equalBytes(findPayload(payloads, 'HASH')?.data ?? new Uint8Array(0), expected)
    }
    const certificate = findPayload(payloads, 'CERT')
    const signature = findPayload(payloads, 'SIG')
    if (certificate === undefined || signature === undefined) return false
    const { publicKey } = new X509Certificate(certificate.data)
    return isSignatureGood(publicKey, expected, signature.data)
  }

  /** Only the first time: with the second it would end what the first has made. */
  #initialContact({ initiatorCookie, responderCookie }: CookiePair): Payload[] {
    if (!this.persona.sendsInitialContact || this.#hasBeenUp) return []
    const spi = concatBytes(initiatorCookie, responderCookie)
    const notifyType = NotifyType['INITIAL-CONTACT']
    return [{ type: 'N', protocolId: 1, notifyType, spi, data: new Uint8Array(0) }]
  }

  // Quick mode

  /** A new pair; the one before is deleted, as all clients do. */
  async phase2(): Promise<void> {
    const { persona } = this
    const sa = this.#current
    const before = this.esp.current?.inbound.spi
    const messageId = u32(randomBytes(this.#random, 4), 0) || 1
    const chain = this.#chain(messageId)
    const inboundSpi = this.#spi++
    const nonceI = randomBytes(this.#random, persona.nonceBytes)
    const offer = persona.pfs
      ? keyExchange(phase1Numbers.groups.modp1024)?.offer(this.#random)
      : undefined
    const mine = idPayload(this.#identity(udpProtocol, persona.l2tpPort))
    const data = addressBytes(this.serverAddress)
    const idType = data.length === 16 ? 5 : 1
    const server = idPayload({ idType, protocol: udpProtocol, port: l2tpPort, data })
    const payloads: Payload[] = [
      saPayload(phase2ProposalsOf(persona, inboundSpi)),
      { type: 'NONCE', data: nonceI },
      ...(offer === undefined ? [] : [{ type: 'KE', data: offer.publicValue } as const]),
      mine,
      server,
      ...(persona.sendsOriginalAddresses ? this.#originalAddresses(sa.isDraft) : []),
    ]
    const hash = sa.keys.messageHash(messageId, encodePayloads(payloads))
    const request = encodeMessage(
      sa.cookies,
      ExchangeType.quickMode,
      messageId,
      [{ type: 'HASH', data: hash }, ...payloads],
      chain,
    )
    const bytes = await this.#exchange(`quick ${messageId}`, request)
    const opened = openMessage(parseHeader(bytes, 0), bytes, chain, rest =>
      sa.keys.messageHash(messageId, nonceI, rest),
    )
    if (opened.type !== 'authentic') throw new Error(`quick mode: ${opened.type}`)
    const answer = opened.payloads
    const nonceR = findPayload(answer, 'NONCE')?.data ?? new Uint8Array(0)
    const secret = offer?.finish(findPayload(answer, 'KE')?.data ?? new Uint8Array(0))
    const ids = filterPayloads(answer, 'ID').map(({ body }) => toHex(body))
    if (ids.join() !== [mine, server].map(({ body }) => toHex(body)).join()) {
      this.complaints.push('the identities did not come back unchanged')
    }
    const { suite, outboundSpi } = this.#chosenPair(answer)
    const keysOf = (spi: number) =>
      sa.keys.childKeys(
        suite,
        3,
        spiBytes(spi),
        nonceI,
        nonceR,
        secret instanceof Secret ? secret.expose() : undefined,
      )
    this.esp.add({
      mode: 'transport',
      inboundSpi,
      outboundSpi,
      suite,
      inboundKeys: keysOf(inboundSpi),
      outboundKeys: keysOf(outboundSpi),
    })
    const confirmation = sa.keys.confirmationHash(messageId, nonceI, nonceR)
    const third = encodeMessage(
      sa.cookies,
      ExchangeType.quickMode,
      messageId,
      [{ type: 'HASH', data: confirmation }],
      chain,
    )
    if (third !== undefined) this.transmitIke(third)
    if (before !== undefined) this.deleteEsp(before)
  }

  #chosenPair(answer: readonly Payload[]) {
    const [proposal] = findPayload(answer, 'SA')?.proposals ?? []
    const { persona } = this
    const index = (proposal?.number ?? 0) - 1
    const offered = persona.phase2[index % persona.phase2.length]
    if (proposal === undefined || offered === undefined) throw new Error('no proposal chosen')
    const [cipher, hash] = offered
    if (cipher === 'des' || cipher === 'null' || hash === 'md5') {
      throw new Error(`${cipher} with ${hash}: nobody may choose that`)
    }
    const mode = persona.modes[Math.floor(index / persona.phase2.length)]
    if (mode === 2) this.complaints.push('transport mode without UDP behind a NAT')
    const encryption = encryptionTransform(
      cipher === '3des' ? EncryptionId.tripleDes : EncryptionId.aesCbc,
    )
    const integrity = integrityTransform(hash === 'sha1' ? 2 : 12)
    if (encryption === undefined || integrity === undefined) throw new Error('no such cipher')
    const keyBits = cipher === '3des' ? 192 : phase2Numbers.ciphers[cipher][1]
    const suite = { encryption, keyBits, integrity, hasEsn: false }
    return { suite, outboundSpi: u32(proposal.spi, 0) }
  }

  #originalAddresses(isDraft: boolean): Payload[] {
    return [this.address, this.serverAddress].map(address => {
      const data = addressBytes(address)
      return { type: 'NAT-OA', isDraft, idType: data.length === 16 ? 5 : 1, data }
    })
  }

  // Informational exchanges

  deleteEsp(inboundSpi: number): void {
    this.#inform([{ type: 'D', protocolId: 3, spis: [spiBytes(inboundSpi)] }])
    this.esp.remove(inboundSpi)
  }

  deleteIsakmp(): void {
    this.#inform([{ type: 'D', protocolId: 1, spis: [this.#cookieSpi] }])
  }

  /** RFC 3706 §5.3. */
  areYouThere(): void {
    const notifyType = NotifyType['R-U-THERE']
    const data = spiBytes(77)
    this.#inform([{ type: 'N', protocolId: 1, notifyType, spi: this.#cookieSpi, data }])
  }

  get #cookieSpi(): Uint8Array {
    const { initiatorCookie, responderCookie } = this.#current.cookies
    return concatBytes(initiatorCookie, responderCookie)
  }

  #inform(payloads: readonly Payload[]): void {
    const { keys, cookies } = this.#current
    const messageId = u32(randomBytes(this.#random, 4), 0) || 1
    const hash = keys.messageHash(messageId, encodePayloads(payloads))
    const message = encodeMessage(
      cookies,
      ExchangeType.informational,
      messageId,
      [{ type: 'HASH', data: hash }, ...payloads],
      this.#chain(messageId),
    )
    if (message !== undefined) this.transmitIke(message)
  }

  #informed(header: IsakmpHeader, bytes: Uint8Array): void {
    const sa = this.#sa
    // Those of an older SA are of no interest.
    if (sa === undefined || !equalBytes(header.initiatorCookie, sa.cookies.initiatorCookie)) return
    const opened = openMessage(header, bytes, this.#chain(header.messageId), rest =>
      sa.keys.messageHash(header.messageId, rest),
    )
    if (opened.type !== 'authentic') {
      this.complaints.push(`an informational message: ${opened.type}`)
      return
    }
    for (const payload of opened.payloads) {
      if (payload.type === 'D' && payload.protocolId === 1) this.isDeleted = true
      if (payload.type === 'D' && payload.protocolId === 3) {
        for (const spi of payload.spis) {
          const inboundSpi = this.esp.inboundSpiOf(u32(spi, 0))
          if (inboundSpi !== undefined) this.esp.remove(inboundSpi)
        }
      }
      if (payload.type !== 'N') continue
      if (payload.notifyType === NotifyType['R-U-THERE-ACK']) this.answered++
      if (payload.notifyType !== NotifyType['R-U-THERE']) continue
      this.asked++
      if (!this.persona.speaksDpd) this.complaints.push('R-U-THERE, unannounced')
      this.#inform([{ ...payload, notifyType: NotifyType['R-U-THERE-ACK'] }])
    }
  }

  // The wire

  /** Sends a packet in the newest pair, from its UDP header on. */
  send(packet: Uint8Array): void {
    this.#transmit(this.esp.seal(packet, udpProtocol))
  }

  keepAlive(): void {
    this.#transmit(Uint8Array.of(0xff))
  }

  get #port(): number {
    return this.#isFloated ? 4500 : 500
  }

  get #current(): Sa {
    if (this.#sa === undefined) throw new Error('no ISAKMP SA')
    return this.#sa
  }

  #chain(messageId: number): CbcChain {
    const { keys, suite, lastBlock } = this.#current
    return new CbcChain(keys, exchangeIv(suite, lastBlock, messageId))
  }

  #transmit(bytes: Uint8Array): void {
    if (this.#isGone) return
    const from = { address: this.address, port: this.#port }
    const to = { address: this.serverAddress, port: this.#port }
    this.#options.server.network.send({ from, to, bytes: bytes.slice() })
  }

  transmitIke(message: Uint8Array): void {
    this.#transmit(this.#isFloated ? concatBytes(new Uint8Array(4), message) : message)
  }

  #exchange(key: string, message: Uint8Array | undefined): Promise<Uint8Array> {
    if (message === undefined) throw new Error('no cipher for this')
    return new Promise((resolve, reject) => {
      const dueMs = this.#options.server.nowMs + (this.persona.retransmitMs[0] ?? 1000)
      this.#pending.set(key, { datagrams: [message], resolve, reject, tries: 0, dueMs })
      this.transmitIke(message)
    })
  }

  onTime(nowMs: number): void {
    for (const [key, pending] of [...this.#pending]) {
      if (nowMs < pending.dueMs) continue
      const waitMs = this.persona.retransmitMs[++pending.tries]
      if (waitMs === undefined) {
        this.#pending.delete(key)
        pending.reject(new Error(`no answer in ${key.split(' ')[0]} mode`))
        continue
      }
      pending.dueMs = nowMs + waitMs
      this.repetitions++
      for (const bytes of pending.datagrams) this.transmitIke(bytes)
    }
  }

  #receive(flight: Flight): void {
    this.received.push(flight)
    const { bytes, from } = flight
    if (from.port === 4500 && u32(bytes, 0) !== 0) {
      const packet = this.esp.open(bytes)
      if (typeof packet === 'string') this.complaints.push(packet)
      else this.onPacket(packet)
      return
    }
    this.#receiveIke(bytes.slice(from.port === 4500 ? 4 : 0))
  }

  #receiveIke(bytes: Uint8Array): void {
    const header = parseHeader(bytes, 0)
    if (header.nextPayload === PayloadType.fragment) {
      const whole = this.#reassembly.add(bytes)
      if (typeof whole === 'number') this.complaints.push('a bad fragment')
      else if (whole !== undefined) this.#receiveIke(whole)
      return
    }
    if (header.exchangeType === ExchangeType.informational) {
      // In clear it is a refusal of main mode, which a client may believe or not.
      if ((header.flags & 1) !== 0) this.#informed(header, bytes)
      return
    }
    const key =
      header.exchangeType === ExchangeType.quickMode
        ? `quick ${header.messageId}`
        : `main ${toHex(header.initiatorCookie)}`
    const pending = this.#pending.get(key)
    this.#pending.delete(key)
    pending?.resolve(bytes)
  }

  #plain(bytes: Uint8Array): readonly Payload[] {
    return this.#payloads(bytes.subarray(HEADER_BYTES), bytes)
  }

  #payloads(body: Uint8Array, message: Uint8Array): readonly Payload[] {
    const parsed = parsePayloads(body, 0, body.length, parseHeader(message, 0).nextPayload)
    if (typeof parsed === 'number') throw new Error(`fault ${parsed} in a message of the server`)
    return parsed.payloads
  }
}

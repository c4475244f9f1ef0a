/**
 * Plays an IKEv2 persona: an initiator that puts on the wire what its data say and otherwise follows
 * RFC 7296. It shares codecs, key schedule and ciphers with the server, and no state machine; what a
 * server must never do to it is an entry in `complaints`.
 */
import { type KeyObject, X509Certificate } from 'node:crypto'
import { equalBytes, fromHex, putU16, putU32, u16, u32 } from '../../lib/core/bytes.ts'
import { randomBytes } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import type { KeyExchangeOffer } from '../../lib/crypto/key-exchange.ts'
import { keyExchange } from '../../lib/crypto/key-exchanges.ts'
import { Mschapv2PeerMethod } from '../../lib/eap/mschapv2-method.ts'
import { EapPeer } from '../../lib/eap/peer.ts'
import { sharedKeyAuth, signedOctets } from '../../lib/ikev2/auth-octets.ts'
import { type ConfigurationGrant, parseConfigurationReply } from '../../lib/ikev2/configuration.ts'
import { identityOf } from '../../lib/ikev2/identity.ts'
import { childKeys, ikeKeys, initialSkeyseed, rekeySkeyseed } from '../../lib/ikev2/key-schedule.ts'
import { natHash } from '../../lib/ikev2/nat-detection.ts'
import { addressBytes } from '../../lib/ikev2/path.ts'
import { parseSignatureHashes, signOctets, verifySignature } from '../../lib/ikev2/signature.ts'
import { everything } from '../../lib/ikev2/traffic-selectors.ts'
import { ExchangeType } from '../../lib/ikev2/wire/exchange-type.ts'
import { parseHeader } from '../../lib/ikev2/wire/header.ts'
import {
  type Identification,
  IdType,
  identificationBody,
} from '../../lib/ikev2/wire/identification.ts'
import {
  allPayloads,
  encodeMessage,
  findNotify,
  findPayload,
} from '../../lib/ikev2/wire/message.ts'
import { notify } from '../../lib/ikev2/wire/notify.ts'
import { NotifyType } from '../../lib/ikev2/wire/notify-type.ts'
import type { Payload } from '../../lib/ikev2/wire/payload.ts'
import type { Proposal } from '../../lib/ikev2/wire/security-association.ts'
import type { TrafficSelector } from '../../lib/ikev2/wire/traffic-selector.ts'
import { type IpsecServer, serverAddress, serverName } from '../support/ipsec-server.ts'
import { Ikev2Line, ikePort, type Response } from './ikev2-line.ts'
import {
  type AuthPart,
  type GroupName,
  groupIds,
  type Ikev2Persona,
  type InitPart,
} from './ikev2-personas.ts'
import {
  answerFault,
  espProposalsOf,
  espSuiteOf,
  ikeProposalsOf,
  ikeSuiteOf,
  type Spis,
  StockSa,
  spiOf,
  subjectOf,
  throwError,
} from './ikev2-wire.ts'
import { StockEsp } from './stock-esp.ts'

export interface Ikev2ClientOptions {
  readonly server: IpsecServer
  readonly address?: string
  readonly userName: string
  readonly password: string
  /** Of the device, DER, and its key. */
  readonly certificate?: { readonly chain: readonly Uint8Array[]; readonly key: KeyObject }
  readonly seed?: number
}

interface Nonces {
  readonly initiator: Uint8Array
  readonly responder: Uint8Array
}

/** What AUTH covers of IKE_SA_INIT. */
interface InitState {
  readonly message: Uint8Array
  readonly nonces: Nonces
  readonly response: Response
}

/** Notifications of the first IKE_AUTH; 16420 is IKEV2_MESSAGE_ID_SYNC_SUPPORTED (RFC 6311 §6). */
const authNotifies = {
  'initial-contact': NotifyType.INITIAL_CONTACT,
  mobike: NotifyType.MOBIKE_SUPPORTED,
  'no-additional-addresses': NotifyType.NO_ADDITIONAL_ADDRESSES,
  'multiple-auth': NotifyType.MULTIPLE_AUTH_SUPPORTED,
  'eap-only': NotifyType.EAP_ONLY_AUTHENTICATION,
  'no-tfc': NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED,
  'non-first-fragments': NotifyType.NON_FIRST_FRAGMENTS_ALSO,
  'message-id-sync': 16_420,
} as const

const noSpi = new Uint8Array(8)
const signature = { acceptsSha1: true, prefersPss: false }

export class Ikev2Client extends Ikev2Line {
  /** Inner packets that arrived. */
  readonly packets: Uint8Array[] = []
  readonly esp = new StockEsp()
  grant: ConfigurationGrant = {}
  selectors: { mine: readonly TrafficSelector[]; theirs: readonly TrafficSelector[] } = {
    mine: [],
    theirs: [],
  }
  isClosed = false
  readonly #options: Ikev2ClientOptions
  #spi: Uint8Array
  #serverHashes: number[] = []
  #nextSpi = 0x0c00_0000

  constructor(persona: Ikev2Persona, options: Ikev2ClientOptions) {
    const { server, address = '10.0.0.2', seed = 1 } = options
    super(persona, server, address, seed)
    this.#options = options
    this.#spi = randomBytes(this.random, 8)
    this.#nextSpi += seed * 0x1_0000
  }

  get suite(): StockSa['suite'] | undefined {
    return this.sa?.suite
  }

  // Set-up

  async connect(): Promise<void> {
    const init = await this.#init()
    await this.#authenticate(init)
  }

  async #init(): Promise<InitState> {
    const { persona } = this
    const offers = ikeProposalsOf(persona.ike, new Uint8Array(0))
    const nonce = randomBytes(this.random, persona.nonceBytes)
    let group: number = groupIds[persona.ike[0]?.groups[0] ?? 'modp2048']
    let cookie: Uint8Array | undefined
    for (let tries = 0; tries < 5; tries++) {
      const offer = keyExchange(group)?.offer(this.random)
      // A group that only the client knows: the server must ask for another one.
      const publicValue = offer?.publicValue ?? randomBytes(this.random, 256)
      const payloads = [
        ...(cookie === undefined ? [] : [notify(NotifyType.COOKIE, cookie)]),
        ...persona.init.flatMap(part => this.#initPart(part, offers, group, publicValue, nonce)),
      ]
      const head = { initiatorSpi: this.#spi, responderSpi: noSpi, canHigherVersion: false }
      const message = encodeMessage(
        { ...head, exchangeType: 34, isFromInitiator: true, isResponse: false, messageId: 0 },
        payloads,
      )
      const response = await this.exchange('init', ExchangeType.IKE_SA_INIT, 0, [message])
      cookie = findNotify(response.payloads, NotifyType.COOKIE)?.data ?? cookie
      const wanted = findNotify(response.payloads, NotifyType.INVALID_KE_PAYLOAD)
      if (wanted !== undefined) group = u16(wanted.data, 0)
      const ke = findPayload(response.payloads, 'KE')
      if (ke !== undefined && offer !== undefined) {
        return this.#initDone({ message, nonce, offers, offer, response })
      }
      throwError(response.payloads)
    }
    throw new Error('no end of retries')
  }

  #initPart(
    part: InitPart,
    offers: readonly Proposal[],
    group: number,
    publicValue: Uint8Array,
    nonce: Uint8Array,
  ): Payload[] {
    const { persona } = this
    const spis = { initiatorSpi: this.#spi, responderSpi: noSpi }
    switch (part) {
      case 'sa':
        return [{ type: 'SA', proposals: offers }]
      case 'ke':
        return [{ type: 'KE', group, publicValue }]
      case 'nonce':
        return [{ type: 'Nonce', data: nonce }]
      case 'fragmentation':
        return [notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)]
      case 'nat-source':
      case 'nat-destination':
        return [this.natNotify(part, spis)]
      case 'hashes': {
        const data = new Uint8Array(2 * persona.hashes.length)
        for (const [i, hash] of persona.hashes.entries()) putU16(data, 2 * i, hash)
        return [notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, data)]
      }
      case 'redirect':
        return [notify(NotifyType.REDIRECT_SUPPORTED)]
      default:
        return [{ type: 'V', data: fromHex(part.slice('vendor '.length)) }]
    }
  }

  #initDone(state: {
    readonly message: Uint8Array
    readonly nonce: Uint8Array
    readonly offers: readonly Proposal[]
    readonly offer: KeyExchangeOffer
    readonly response: Response
  }): InitState {
    const { message, nonce, offers, offer, response } = state
    const { payloads } = response
    const ke = findPayload(payloads, 'KE')
    const theirs = findPayload(payloads, 'Nonce')?.data ?? new Uint8Array(0)
    const chosen = this.#chosen(payloads, offers)
    const suite = ikeSuiteOf(chosen)
    const secret = ke && offer.finish(ke.publicValue)
    if (!(secret instanceof Secret)) throw new Error('a bad public value of the server')
    if (ke?.group !== suite.keyExchangeId) this.complaints.push('KE of another group')
    const spis = { initiatorSpi: this.#spi, responderSpi: parseHeader(response.bytes).responderSpi }
    if (equalBytes(spis.responderSpi, noSpi)) this.complaints.push('no responder SPI')
    const nonces = { initiator: nonce, responder: theirs }
    const keys = ikeKeys(suite, initialSkeyseed(suite.prf, nonces, secret), nonces, spis)
    this.sa = new StockSa(spis, suite, keys, 1)
    this.fragments =
      this.persona.init.includes('fragmentation') &&
      findNotify(payloads, NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) !== undefined
    this.#serverHashes = parseSignatureHashes(
      findNotify(payloads, NotifyType.SIGNATURE_HASH_ALGORITHMS)?.data,
    )
    if (this.#serverHashes.length > 0 && !this.persona.init.includes('hashes')) {
      this.complaints.push('hashes for a client that does not know RFC 7427')
    }
    this.#float(payloads, spis)
    return { message, nonces, response }
  }

  /** Behind a NAT, of its own or of the server's, and with MOBIKE, a client goes on on 4500. */
  #float(payloads: readonly Payload[], spis: Spis): void {
    const source = findNotify(payloads, NotifyType.NAT_DETECTION_SOURCE_IP)
    if (source === undefined) {
      this.complaints.push('the server does not detect NATs')
      return
    }
    const plain = natHash(spis, { address: serverAddress, port: ikePort })
    if (equalBytes(source.data, plain)) this.complaints.push('the server does not force UDP')
    this.hasFloated = true
  }

  #chosen(payloads: readonly Payload[], offered: readonly Proposal[]): Proposal {
    const answer = findPayload(payloads, 'SA')?.proposals ?? []
    const fault = answerFault(answer, offered)
    if (fault !== undefined) this.complaints.push(fault)
    const [chosen] = answer
    if (chosen === undefined) throw new Error('no proposal in the answer')
    return chosen
  }

  async #authenticate({ message, nonces, response }: InitState): Promise<void> {
    const { persona } = this
    const sa = this.current
    const identity = this.#identity()
    const octets = (isOurs: boolean, of: Identification) =>
      signedOctets(sa.suite.prf, {
        message: isOurs ? message : response.bytes,
        otherNonce: isOurs ? nonces.responder : nonces.initiator,
        macKey: isOurs ? sa.keys.pi : sa.keys.pr,
        idBody: identificationBody(of),
        intermediateAuth: undefined,
      })
    const inboundSpi = this.#nextSpi++
    const offers = espProposalsOf(
      persona.esp,
      spiOf(inboundSpi),
      persona.offersGroupInAuth ? this.#groupNames(true) : [],
    )
    const first = persona.auth.flatMap(part =>
      this.#authPart(part, offers, identity, () => octets(true, identity)),
    )
    let answer = await this.request(ExchangeType.IKE_AUTH, first)
    throwError(answer)
    const theirs = this.#judgeServer(answer, of => octets(false, of))
    if (persona.proof === 'eap') {
      const msk = await this.#eap(answer)
      const data = sharedKeyAuth(sa.suite.prf, msk, octets(true, identity))
      answer = await this.request(ExchangeType.IKE_AUTH, [{ type: 'AUTH', method: 2, data }])
      throwError(answer)
      const auth = findPayload(answer, 'AUTH')
      const expected = sharedKeyAuth(sa.suite.prf, msk, octets(false, theirs))
      if (auth === undefined || !equalBytes(auth.data, expected)) {
        this.complaints.push('the last AUTH of the server is wrong')
      }
    }
    const cp = findPayload(answer, 'CP')
    if (cp !== undefined) this.grant = parseConfigurationReply(cp)
    if (findPayload(answer, 'SA') === undefined) throwError(answer, true)
    const suite = espSuiteOf(this.#chosen(answer, offers))
    if (suite.keyExchangeId !== 0) this.complaints.push('a group in IKE_AUTH')
    this.#addPair(answer, suite, inboundSpi, nonces, undefined)
    this.selectors = {
      mine: findPayload(answer, 'TSi')?.selectors ?? [],
      theirs: findPayload(answer, 'TSr')?.selectors ?? [],
    }
  }

  #identity(): Identification {
    const { identity } = this.persona
    const { userName, certificate } = this.#options
    if (identity === 'address')
      return { idType: IdType.ID_IPV4_ADDR, data: addressBytes(this.address) }
    if (identity === 'name') return identityOf(userName)
    const der = certificate?.chain[0] ?? new Uint8Array(0)
    return { idType: IdType.ID_DER_ASN1_DN, data: subjectOf(der) }
  }

  #authPart(
    part: AuthPart,
    offers: readonly Proposal[],
    identity: Identification,
    octets: () => Uint8Array,
  ): Payload[] {
    const { persona } = this
    const { certificate } = this.#options
    switch (part) {
      case 'idi':
        return [{ type: 'IDi', ...identity }]
      case 'idr':
        return [{ type: 'IDr', ...identityOf(serverName) }]
      case 'certificate':
        return (certificate?.chain ?? []).map(data => ({ type: 'CERT', encoding: 4, data }))
      case 'certificate-request':
        return this.#certificateRequests()
      case 'auth': {
        if (certificate === undefined) throw new Error('no certificate to prove')
        const made = signOctets(certificate.key, octets(), this.#serverHashes, signature)
        if (made === undefined) throw new Error('a key that cannot sign')
        return [{ type: 'AUTH', ...made }]
      }
      case 'configuration':
        return [
          {
            type: 'CP',
            configurationType: 1,
            attributes: persona.configuration.map(attributeType => ({
              attributeType,
              value: this.wishes.get(attributeType) ?? new Uint8Array(0),
            })),
          },
        ]
      case 'sa':
        return [{ type: 'SA', proposals: offers }]
      case 'tsi':
        return [{ type: 'TSi', selectors: this.#asked }]
      case 'tsr':
        return [{ type: 'TSr', selectors: this.#asked }]
      default:
        return [notify(authNotifies[part])]
    }
  }

  /** Values of the CFG_REQUEST: an address that the client had before. */
  readonly wishes = new Map<number, Uint8Array>()

  get #asked(): readonly TrafficSelector[] {
    const wantsIpv6 = this.persona.configuration.includes(8)
    return everything.filter(({ family }) => family === 4 || wantsIpv6)
  }

  /** All roots of a machine, none of them ours: unknown ones are no failure. */
  #certificateRequests(): Payload[] {
    const { authorities } = this.persona
    const data = randomBytes(this.random, 20 * authorities)
    return [{ type: 'CERTREQ', encoding: 4, authorities: data }]
  }

  /** The certificate is the server's, for its name, and AUTH is made with its key. */
  #judgeServer(
    payloads: readonly Payload[],
    octets: (of: Identification) => Uint8Array,
  ): Identification {
    const idr = findPayload(payloads, 'IDr')
    const auth = findPayload(payloads, 'AUTH')
    const [certificate] = allPayloads(payloads, 'CERT')
    if (!idr || !auth || !certificate) throw new Error('the server does not prove itself')
    const leaf = new X509Certificate(certificate.data)
    if (leaf.checkHost(serverName) === undefined) this.complaints.push('a foreign certificate')
    const verdict = verifySignature(leaf.publicKey, octets(idr), auth, signature)
    if (verdict.type !== 'valid') this.complaints.push(`AUTH of the server: ${verdict.detail}`)
    else if (!this.persona.init.includes('hashes') && auth.method === 14) {
      this.complaints.push('RFC 7427 for a client that has not heard of it')
    } else if (verdict.isPss) this.complaints.push('RSA-PSS, which Android refuses')
    return { idType: idr.idType, data: Uint8Array.from(idr.data) }
  }

  async #eap(first: readonly Payload[]): Promise<Secret> {
    const { userName: plain, password } = this.#options
    const userName = this.persona.eapName(plain)
    const random = this.random
    const method = { random, userName, password: Secret.fromText(password) }
    const peer = new EapPeer({
      identity: userName,
      methods: [() => new Mschapv2PeerMethod(method)],
      requiresMsk: true,
    })
    let payloads = first
    for (let rounds = 0; rounds < 10; rounds++) {
      const packet = findPayload(payloads, 'EAP')
      if (packet === undefined) throw new Error('no EAP in the answer')
      peer.handle({ type: 'packet', bytes: Uint8Array.from(packet.data) })
      const out = peer.poll()
      if (out?.type === 'event') {
        if (out.event.type === 'success' && out.event.msk !== undefined) return out.event.msk
        throw new Error(`EAP: ${out.event.type}`)
      }
      if (out === undefined) throw new Error('EAP stands still')
      payloads = await this.request(ExchangeType.IKE_AUTH, [{ type: 'EAP', data: out.bytes }])
      throwError(payloads)
    }
    throw new Error('no end of EAP')
  }

  // Rekeying

  #groupNames(withKe: boolean): (GroupName | 'none')[] {
    if (!withKe) return []
    const id = this.current.suite.keyExchangeId
    const name = (Object.keys(groupIds) as GroupName[]).find(one => groupIds[one] === id)
    if (name === undefined) throw new Error('no such group')
    return this.persona.childRekeyOffers === 'group-or-none' ? [name, 'none'] : [name]
  }

  /** Makes a pair in place of the newest one; `deletes` leaves the old one for later when false. */
  async rekeyChild(withKe: boolean, deletes = true): Promise<void> {
    const old = this.esp.current?.inbound.spi ?? 0
    const inboundSpi = this.#nextSpi++
    const sa = this.current
    const offers = espProposalsOf(this.persona.esp, spiOf(inboundSpi), this.#groupNames(withKe))
    const nonce = randomBytes(this.random, this.persona.nonceBytes)
    const group = sa.suite.keyExchangeId
    const offer = withKe ? keyExchange(group)?.offer(this.random) : undefined
    const rekeyed = { ...notify(NotifyType.REKEY_SA), protocolId: 3, spi: spiOf(old) }
    const answer = await this.request(ExchangeType.CREATE_CHILD_SA, [
      rekeyed,
      { type: 'SA', proposals: offers },
      { type: 'Nonce', data: nonce },
      ...(offer === undefined
        ? []
        : [{ type: 'KE', group, publicValue: offer.publicValue } as const]),
      { type: 'TSi', selectors: this.selectors.mine },
      { type: 'TSr', selectors: this.selectors.theirs },
    ])
    throwError(answer)
    const suite = espSuiteOf(this.#chosen(answer, offers))
    const ke = findPayload(answer, 'KE')
    if ((suite.keyExchangeId !== 0) !== withKe) this.complaints.push('KE where none was, or none')
    const secret = ke && offer?.finish(ke.publicValue)
    const responder = findPayload(answer, 'Nonce')?.data ?? new Uint8Array(0)
    this.#addPair(
      answer,
      suite,
      inboundSpi,
      { initiator: nonce, responder },
      secret instanceof Secret ? secret : undefined,
    )
    if (deletes) await this.deleteChild(old)
  }

  async deleteChild(inboundSpi: number): Promise<void> {
    const paired = this.esp.outboundSpi(inboundSpi)
    const answer = await this.request(ExchangeType.INFORMATIONAL, [
      { type: 'D', protocolId: 3, spis: [spiOf(inboundSpi)] },
    ])
    const deleted = findPayload(answer, 'D')?.spis.map(spi => u32(spi, 0)) ?? []
    if (!deleted.includes(paired)) this.complaints.push('the paired SPI is not deleted')
    this.esp.remove(inboundSpi)
  }

  async rekeyIke(): Promise<void> {
    const old = this.current
    const { suite: before } = old
    const spi = randomBytes(this.random, 8)
    const offers = ikeProposalsOf(this.persona.ike, spi)
    const nonce = randomBytes(this.random, this.persona.nonceBytes)
    const group = before.keyExchangeId
    const offer = keyExchange(group)?.offer(this.random)
    if (offer === undefined) throw new Error('no such group')
    const answer = await this.request(ExchangeType.CREATE_CHILD_SA, [
      { type: 'SA', proposals: offers },
      { type: 'Nonce', data: nonce },
      { type: 'KE', group, publicValue: offer.publicValue },
    ])
    throwError(answer)
    const chosen = this.#chosen(answer, offers)
    const suite = ikeSuiteOf(chosen)
    const responder = Uint8Array.from(findPayload(answer, 'Nonce')?.data ?? [])
    const secret = offer.finish(findPayload(answer, 'KE')?.publicValue ?? new Uint8Array(0))
    if (!(secret instanceof Secret)) throw new Error('a bad public value of the server')
    const nonces = { initiator: nonce, responder }
    const spis = { initiatorSpi: spi, responderSpi: Uint8Array.from(chosen.spi) }
    const seed = rekeySkeyseed(before.prf, old.keys.d, nonces, secret)
    this.sa = new StockSa(spis, suite, ikeKeys(suite, seed, nonces, spis), 0)
    this.sas.push(old)
    await this.request(ExchangeType.INFORMATIONAL, [{ type: 'D', protocolId: 1, spis: [] }], old)
    this.sas.splice(this.sas.indexOf(old), 1)
  }

  #addPair(
    payloads: readonly Payload[],
    suite: ReturnType<typeof espSuiteOf>,
    inboundSpi: number,
    nonces: Nonces,
    secret: Secret | undefined,
  ): void {
    const spi = findPayload(payloads, 'SA')?.proposals[0]?.spi ?? new Uint8Array(4)
    const { suite: ike, keys } = this.current
    const made = childKeys(ike.prf, keys.d, suite, nonces, secret)
    const bytesOf = (of: typeof made.fromInitiator) => ({
      encryptionKey: of.encryption.expose(),
      integrityKey: of.integrity.expose(),
    })
    this.esp.add({
      inboundSpi,
      outboundSpi: u32(spi, 0),
      suite: {
        encryption: suite.encryption,
        keyBits: suite.keyBits,
        integrity: suite.integrity,
        hasEsn: suite.hasEsn,
      },
      inboundKeys: bytesOf(made.fromResponder),
      outboundKeys: bytesOf(made.fromInitiator),
    })
  }

  // Living and leaving

  /** Asks whether the server lives. */
  async checkLiveness(): Promise<void> {
    const answer = await this.request(ExchangeType.INFORMATIONAL, [])
    if (answer.some(({ type }) => type !== 'N')) this.complaints.push('liveness: more than asked')
  }

  /** RFC 4555 §3.5, from the address that the client has now. */
  async updateAddresses(): Promise<void> {
    const { spis } = this.current
    const answer = await this.request(ExchangeType.INFORMATIONAL, [
      notify(NotifyType.UPDATE_SA_ADDRESSES),
      this.natNotify('nat-source', spis),
      this.natNotify('nat-destination', spis),
    ])
    throwError(answer)
  }

  async leave(): Promise<void> {
    const answer = await this.request(ExchangeType.INFORMATIONAL, [
      { type: 'D', protocolId: 1, spis: [] },
    ])
    if (answer.length > 0) this.complaints.push('more than nothing in answer to a Delete')
    this.close()
  }

  /** Is gone: nothing is sent or answered any more. */
  close(): void {
    this.isClosed = true
    this.server.waiting.delete(this)
    this.server.network.listen(this.address, () => {})
  }

  /** One byte keeps the mapping of a NAT alive (RFC 3948 §2.3). */
  keepAlive(): void {
    this.transmit(Uint8Array.of(0xff))
  }

  /** Sends an IP packet through the newest pair. */
  send(packet: Uint8Array): void {
    this.transmit(this.esp.seal(packet))
  }

  protected answerTo(exchangeType: number, payloads: readonly Payload[]): Payload[] {
    if (exchangeType === ExchangeType.CREATE_CHILD_SA) {
      const { refusesChildRekey } = this.persona
      if (refusesChildRekey === undefined) return [notify(NotifyType.TEMPORARY_FAILURE)]
      const code = new Uint8Array(4)
      putU32(code, 0, refusesChildRekey)
      return [notify(NotifyType.MS_STATUS, code)]
    }
    const cookie2 = findNotify(payloads, NotifyType.COOKIE2)
    const deleted = findPayload(payloads, 'D')
    if (deleted?.protocolId === 1) this.isClosed = true
    const pairs: Uint8Array[] = []
    for (const spi of deleted?.protocolId === 3 ? deleted.spis : []) {
      const inboundSpi = this.esp.inboundSpiOf(u32(spi, 0))
      if (inboundSpi === undefined) continue
      pairs.push(spiOf(inboundSpi))
      this.esp.remove(inboundSpi)
    }
    return [
      ...(cookie2 === undefined ? [] : [notify(NotifyType.COOKIE2, Uint8Array.from(cookie2.data))]),
      ...(pairs.length === 0 ? [] : [{ type: 'D', protocolId: 3, spis: pairs } as const]),
    ]
  }

  protected espArrived(bytes: Uint8Array): void {
    const packet = this.esp.open(bytes)
    if (typeof packet === 'string') this.complaints.push(packet)
    else this.packets.push(packet)
  }
}

/**
 * Plays an IKEv2 persona: an initiator that puts on the wire what its data say and otherwise follows
 * RFC 7296. It shares codecs, key schedule and ciphers with the server, and no state machine; what a
 * server must never do to it is an entry in `complaints`.
 */
import { createHash, type KeyObject, X509Certificate } from 'node:crypto'
import { concatBytes, equalBytes, fromHex, putU16, putU32, u16, u32 } from '../../lib/core/bytes.ts'
import { randomBytes, SeededRandom } from '../../lib/core/random.ts'
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
  parseMessage,
} from '../../lib/ikev2/wire/message.ts'
import { notify } from '../../lib/ikev2/wire/notify.ts'
import { isErrorNotify, NotifyType, notifyName } from '../../lib/ikev2/wire/notify-type.ts'
import type { Payload } from '../../lib/ikev2/wire/payload.ts'
import type { Proposal } from '../../lib/ikev2/wire/security-association.ts'
import type { TrafficSelector } from '../../lib/ikev2/wire/traffic-selector.ts'
import type { Flight } from '../support/datagram-network.ts'
import {
  type IpsecServer,
  serverAddress,
  serverName,
  type Waiting,
} from '../support/ipsec-server.ts'
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

interface Pending {
  readonly exchangeType: number
  readonly messageId: number
  readonly datagrams: readonly Uint8Array[]
  readonly resolve: (response: Response) => void
  readonly reject: (error: Error) => void
  tries: number
  dueMs: number
}

interface Response {
  readonly payloads: readonly Payload[]
  readonly bytes: Uint8Array
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

const noSpi = new Uint8Array(8)
const ikePort = 500
const natPort = 4500
const signature = { acceptsSha1: true, prefersPss: false }

export class Ikev2Client implements Waiting {
  readonly persona: Ikev2Persona
  readonly complaints: string[] = []
  /** Inner packets that arrived. */
  readonly packets: Uint8Array[] = []
  /** Every datagram that came, as it came. */
  readonly received: Flight[] = []
  readonly esp = new StockEsp()
  grant: ConfigurationGrant = {}
  selectors: { mine: readonly TrafficSelector[]; theirs: readonly TrafficSelector[] } = {
    mine: [],
    theirs: [],
  }
  isClosed = false
  repetitions = 0
  /** Requests of the server by exchange type. */
  readonly requests: number[] = []
  address: string
  #sa: StockSa | undefined
  /** Older IKE SAs, whose deletion is on its way. */
  readonly #sas: StockSa[] = []
  readonly #options: Ikev2ClientOptions
  readonly #random: SeededRandom
  readonly #pending = new Map<string, Pending>()
  readonly #replies = new Map<string, readonly Uint8Array[]>()
  #spi: Uint8Array
  #hasFloated = false
  #fragments = false
  #serverHashes: number[] = []
  #nextSpi = 0x0c00_0000

  constructor(persona: Ikev2Persona, options: Ikev2ClientOptions) {
    const { server, address = '10.0.0.2', seed = 1 } = options
    this.persona = persona
    this.address = address
    this.#options = options
    this.#random = new SeededRandom(1000 + seed)
    this.#spi = randomBytes(this.#random, 8)
    this.#nextSpi += seed * 0x1_0000
    this.#listen()
    server.waiting.add(this)
  }

  get suite(): StockSa['suite'] | undefined {
    return this.#sa?.suite
  }

  /** The client's interface has another address from now on. */
  changeAddress(address: string): void {
    this.address = address
    this.#listen()
  }

  #listen(): void {
    const here = this.address
    this.#options.server.network.listen(here, flight => {
      if (this.address === here) this.#receive(flight)
    })
  }

  // Set-up

  async connect(): Promise<void> {
    const init = await this.#init()
    await this.#authenticate(init)
  }

  async #init(): Promise<InitState> {
    const { persona } = this
    const offers = ikeProposalsOf(persona.ike, new Uint8Array(0))
    const nonce = randomBytes(this.#random, persona.nonceBytes)
    let group: number = groupIds[persona.ike[0]?.groups[0] ?? 'modp2048']
    let cookie: Uint8Array | undefined
    for (let tries = 0; tries < 5; tries++) {
      const offer = keyExchange(group)?.offer(this.#random)
      // A group that only the client knows: the server must ask for another one.
      const publicValue = offer?.publicValue ?? randomBytes(this.#random, 256)
      const payloads = [
        ...(cookie === undefined ? [] : [notify(NotifyType.COOKIE, cookie)]),
        ...persona.init.flatMap(part => this.#initPart(part, offers, group, publicValue, nonce)),
      ]
      const head = { initiatorSpi: this.#spi, responderSpi: noSpi, canHigherVersion: false }
      const message = encodeMessage(
        { ...head, exchangeType: 34, isFromInitiator: true, isResponse: false, messageId: 0 },
        payloads,
      )
      const response = await this.#exchange('init', ExchangeType.IKE_SA_INIT, 0, [message])
      cookie = findNotify(response.payloads, NotifyType.COOKIE)?.data ?? cookie
      const wanted = findNotify(response.payloads, NotifyType.INVALID_KE_PAYLOAD)
      if (wanted !== undefined) group = u16(wanted.data, 0)
      const ke = findPayload(response.payloads, 'KE')
      if (ke !== undefined && offer !== undefined) {
        return this.#initDone({ message, nonce, offers, offer, response })
      }
      this.#throwError(response.payloads)
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
        return [this.#natNotify(part, spis)]
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

  #natNotify(part: 'nat-source' | 'nat-destination', spis: Spis): Payload {
    if (part === 'nat-destination') {
      const to = { address: serverAddress, port: this.#hasFloated ? natPort : ikePort }
      return notify(NotifyType.NAT_DETECTION_DESTINATION_IP, natHash(spis, to))
    }
    const hash = natHash(spis, { address: this.address, port: this.#sourcePort })
    if (this.persona.forcesEncapsulation) hash.fill(0)
    return notify(NotifyType.NAT_DETECTION_SOURCE_IP, hash)
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
    this.#sa = new StockSa(spis, suite, keys, 1)
    this.#fragments =
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
    this.#hasFloated = true
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
    const sa = this.#current
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
    let answer = await this.#request(ExchangeType.IKE_AUTH, first)
    this.#throwError(answer)
    const theirs = this.#judgeServer(answer, of => octets(false, of))
    if (persona.proof === 'eap') {
      const msk = await this.#eap(answer)
      const data = sharedKeyAuth(sa.suite.prf, msk, octets(true, identity))
      answer = await this.#request(ExchangeType.IKE_AUTH, [{ type: 'AUTH', method: 2, data }])
      this.#throwError(answer)
      const auth = findPayload(answer, 'AUTH')
      const expected = sharedKeyAuth(sa.suite.prf, msk, octets(false, theirs))
      if (auth === undefined || !equalBytes(auth.data, expected)) {
        this.complaints.push('the last AUTH of the server is wrong')
      }
    }
    const cp = findPayload(answer, 'CP')
    if (cp !== undefined) this.grant = parseConfigurationReply(cp)
    if (findPayload(answer, 'SA') === undefined) this.#throwError(answer, true)
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
      case 'initial-contact':
        return [notify(NotifyType.INITIAL_CONTACT)]
      case 'mobike':
        return [notify(NotifyType.MOBIKE_SUPPORTED)]
      case 'no-additional-addresses':
        return [notify(NotifyType.NO_ADDITIONAL_ADDRESSES)]
      case 'multiple-auth':
        return [notify(NotifyType.MULTIPLE_AUTH_SUPPORTED)]
      case 'eap-only':
        return [notify(NotifyType.EAP_ONLY_AUTHENTICATION)]
      case 'no-tfc':
        return [notify(NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED)]
      case 'non-first-fragments':
        return [notify(NotifyType.NON_FIRST_FRAGMENTS_ALSO)]
      case 'message-id-sync':
        // RFC 6311 §6: IKEV2_MESSAGE_ID_SYNC_SUPPORTED.
        return [notify(16_420)]
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
    const data = randomBytes(this.#random, 20 * authorities)
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
    const random = this.#random
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
      payloads = await this.#request(ExchangeType.IKE_AUTH, [{ type: 'EAP', data: out.bytes }])
      this.#throwError(payloads)
    }
    throw new Error('no end of EAP')
  }

  // Rekeying

  #groupNames(withKe: boolean): (GroupName | 'none')[] {
    if (!withKe) return []
    const id = this.#current.suite.keyExchangeId
    const name = (Object.keys(groupIds) as GroupName[]).find(one => groupIds[one] === id)
    if (name === undefined) throw new Error('no such group')
    return this.persona.childRekeyOffers === 'group-or-none' ? [name, 'none'] : [name]
  }

  /** Makes a pair in place of the newest one; `deletes` leaves the old one for later when false. */
  async rekeyChild(withKe: boolean, deletes = true): Promise<void> {
    const old = this.esp.current?.inbound.spi ?? 0
    const inboundSpi = this.#nextSpi++
    const sa = this.#current
    const offers = espProposalsOf(this.persona.esp, spiOf(inboundSpi), this.#groupNames(withKe))
    const nonce = randomBytes(this.#random, this.persona.nonceBytes)
    const group = sa.suite.keyExchangeId
    const offer = withKe ? keyExchange(group)?.offer(this.#random) : undefined
    const rekeyed = { ...notify(NotifyType.REKEY_SA), protocolId: 3, spi: spiOf(old) }
    const answer = await this.#request(ExchangeType.CREATE_CHILD_SA, [
      rekeyed,
      { type: 'SA', proposals: offers },
      { type: 'Nonce', data: nonce },
      ...(offer === undefined
        ? []
        : [{ type: 'KE', group, publicValue: offer.publicValue } as const]),
      { type: 'TSi', selectors: this.selectors.mine },
      { type: 'TSr', selectors: this.selectors.theirs },
    ])
    this.#throwError(answer)
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
    const answer = await this.#request(ExchangeType.INFORMATIONAL, [
      { type: 'D', protocolId: 3, spis: [spiOf(inboundSpi)] },
    ])
    const deleted = findPayload(answer, 'D')?.spis.map(spi => u32(spi, 0)) ?? []
    if (!deleted.includes(paired)) this.complaints.push('the paired SPI is not deleted')
    this.esp.remove(inboundSpi)
  }

  async rekeyIke(): Promise<void> {
    const old = this.#current
    const { suite: before } = old
    const spi = randomBytes(this.#random, 8)
    const offers = ikeProposalsOf(this.persona.ike, spi)
    const nonce = randomBytes(this.#random, this.persona.nonceBytes)
    const group = before.keyExchangeId
    const offer = keyExchange(group)?.offer(this.#random)
    if (offer === undefined) throw new Error('no such group')
    const answer = await this.#request(ExchangeType.CREATE_CHILD_SA, [
      { type: 'SA', proposals: offers },
      { type: 'Nonce', data: nonce },
      { type: 'KE', group, publicValue: offer.publicValue },
    ])
    this.#throwError(answer)
    const chosen = this.#chosen(answer, offers)
    const suite = ikeSuiteOf(chosen)
    const responder = Uint8Array.from(findPayload(answer, 'Nonce')?.data ?? [])
    const secret = offer.finish(findPayload(answer, 'KE')?.publicValue ?? new Uint8Array(0))
    if (!(secret instanceof Secret)) throw new Error('a bad public value of the server')
    const nonces = { initiator: nonce, responder }
    const spis = { initiatorSpi: spi, responderSpi: Uint8Array.from(chosen.spi) }
    const seed = rekeySkeyseed(before.prf, old.keys.d, nonces, secret)
    this.#sa = new StockSa(spis, suite, ikeKeys(suite, seed, nonces, spis), 0)
    this.#sas.push(old)
    await this.#request(ExchangeType.INFORMATIONAL, [{ type: 'D', protocolId: 1, spis: [] }], old)
    this.#sas.splice(this.#sas.indexOf(old), 1)
  }

  #addPair(
    payloads: readonly Payload[],
    suite: ReturnType<typeof espSuiteOf>,
    inboundSpi: number,
    nonces: Nonces,
    secret: Secret | undefined,
  ): void {
    const spi = findPayload(payloads, 'SA')?.proposals[0]?.spi ?? new Uint8Array(4)
    const { suite: ike, keys } = this.#current
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
        hasEsn: suite.hasExtendedSequenceNumbers,
      },
      inboundKeys: bytesOf(made.fromResponder),
      outboundKeys: bytesOf(made.fromInitiator),
    })
  }

  // Living and leaving

  /** Asks whether the server lives. */
  async checkLiveness(): Promise<void> {
    const answer = await this.#request(ExchangeType.INFORMATIONAL, [])
    if (answer.some(({ type }) => type !== 'N')) this.complaints.push('liveness: more than asked')
  }

  /** RFC 4555 §3.5, from the address that the client has now. */
  async updateAddresses(): Promise<void> {
    const { spis } = this.#current
    const answer = await this.#request(ExchangeType.INFORMATIONAL, [
      notify(NotifyType.UPDATE_SA_ADDRESSES),
      this.#natNotify('nat-source', spis),
      this.#natNotify('nat-destination', spis),
    ])
    this.#throwError(answer)
  }

  async leave(): Promise<void> {
    const answer = await this.#request(ExchangeType.INFORMATIONAL, [
      { type: 'D', protocolId: 1, spis: [] },
    ])
    if (answer.length > 0) this.complaints.push('more than nothing in answer to a Delete')
    this.close()
  }

  /** Is gone: nothing is sent or answered any more. */
  close(): void {
    this.isClosed = true
    this.#options.server.waiting.delete(this)
    this.#options.server.network.listen(this.address, () => {})
  }

  /** One byte keeps the mapping of a NAT alive (RFC 3948 §2.3). */
  keepAlive(): void {
    this.#transmit(Uint8Array.of(0xff))
  }

  /** Sends an IP packet through the newest pair. */
  send(packet: Uint8Array): void {
    this.#transmit(this.esp.seal(packet))
  }

  // The wire

  get #current(): StockSa {
    if (this.#sa === undefined) throw new Error('no IKE SA')
    return this.#sa
  }

  get #sourcePort(): number {
    return this.persona.ports[this.#hasFloated ? 1 : 0]
  }

  #transmit(bytes: Uint8Array): void {
    const to = { address: serverAddress, port: this.#hasFloated ? natPort : ikePort }
    const from = { address: this.address, port: this.#sourcePort }
    this.#options.server.network.send({ from, to, bytes: bytes.slice() })
  }

  #transmitIke(message: Uint8Array): void {
    this.#transmit(this.#hasFloated ? concatBytes(new Uint8Array(4), message) : message)
  }

  async #request(
    exchangeType: number,
    payloads: readonly Payload[],
    sa = this.#current,
  ): Promise<readonly Payload[]> {
    const messageId = sa.nextRequestId++
    const packetBytes = this.#fragments ? this.persona.fragmentPacketBytes : 0
    const head = { exchangeType, isResponse: false, messageId }
    const datagrams = sa.seal(head, payloads, packetBytes, this.#random)
    return (await this.#exchange(keyOf(sa), exchangeType, messageId, datagrams)).payloads
  }

  #exchange(
    key: string,
    exchangeType: number,
    messageId: number,
    datagrams: readonly Uint8Array[],
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      const dueMs = this.#options.server.nowMs + (this.persona.retransmitMs[0] ?? 1000)
      const pending = { exchangeType, messageId, datagrams, resolve, reject, tries: 0, dueMs }
      this.#pending.set(key, pending)
      for (const bytes of datagrams) this.#transmitIke(bytes)
    })
  }

  onTime(nowMs: number): void {
    for (const [key, pending] of [...this.#pending]) {
      if (nowMs < pending.dueMs) continue
      pending.tries++
      const waitMs = this.persona.retransmitMs[pending.tries]
      if (waitMs === undefined) {
        this.#pending.delete(key)
        pending.reject(new Error(`no answer to exchange ${pending.exchangeType}`))
        continue
      }
      pending.dueMs = nowMs + waitMs
      this.repetitions++
      for (const bytes of pending.datagrams) this.#transmitIke(bytes)
    }
  }

  #receive(flight: Flight): void {
    this.received.push(flight)
    const { bytes, from } = flight
    if (from.port === natPort && u32(bytes, 0) !== 0) {
      const packet = this.esp.open(bytes)
      if (typeof packet === 'string') this.complaints.push(packet)
      else this.packets.push(packet)
      return
    }
    this.#receiveIke(bytes.slice(from.port === natPort ? 4 : 0))
  }

  #receiveIke(bytes: Uint8Array): void {
    const header = parseHeader(bytes)
    if (header.exchangeType === ExchangeType.IKE_SA_INIT) {
      const parsed = parseMessage(bytes)
      if (parsed.fault) this.complaints.push('a malformed IKE_SA_INIT')
      this.#settle('init', { payloads: parsed.payloads, bytes })
      return
    }
    const sa = [this.#sa, ...this.#sas].find(
      one => one !== undefined && equalBytes(one.spis.initiatorSpi, header.initiatorSpi),
    )
    if (sa === undefined) {
      this.complaints.push('a message of an IKE SA that is not ours')
      return
    }
    if (header.isFromInitiator) this.complaints.push('the server says that it is the initiator')
    const opened = sa.open(bytes.slice(), header)
    if (opened === undefined) return
    if (typeof opened === 'string') this.complaints.push(opened)
    else if (header.isResponse) {
      const pending = this.#pending.get(keyOf(sa))
      if (pending?.messageId === header.messageId)
        this.#settle(keyOf(sa), { payloads: opened, bytes })
    } else this.#answer(sa, header.exchangeType, header.messageId, opened)
  }

  #settle(key: string, response: Response): void {
    const pending = this.#pending.get(key)
    this.#pending.delete(key)
    pending?.resolve(response)
  }

  #answer(
    sa: StockSa,
    exchangeType: number,
    messageId: number,
    payloads: readonly Payload[],
  ): void {
    const key = `${keyOf(sa)} ${messageId}`
    const known = this.#replies.get(key)
    if (known === undefined) this.requests.push(exchangeType)
    const head = { exchangeType, isResponse: true, messageId }
    const reply = known ?? sa.seal(head, this.#answerTo(exchangeType, payloads), 0, this.#random)
    this.#replies.set(key, reply)
    for (const bytes of reply) this.#transmitIke(bytes)
  }

  #answerTo(exchangeType: number, payloads: readonly Payload[]): Payload[] {
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

  #throwError(payloads: readonly Payload[], always = false): void {
    const error = allPayloads(payloads, 'N').find(
      ({ notifyType }) => isErrorNotify(notifyType) && notifyType !== NotifyType.INVALID_KE_PAYLOAD,
    )
    if (error !== undefined || always) {
      throw new Error(error === undefined ? 'no SA' : notifyName(error.notifyType))
    }
  }
}

function keyOf(sa: StockSa): string {
  return createHash('sha1').update(sa.spis.initiatorSpi).digest('hex')
}

function spiOf(spi: number): Uint8Array {
  const out = new Uint8Array(4)
  putU32(out, 0, spi)
  return out
}

/** The subject of a certificate as it stands there (RFC 5280 §4.1): the sixth field of what is signed. */
function subjectOf(der: Uint8Array): Uint8Array {
  const inner = (at: number) =>
    at + ((der[at + 1] ?? 0) < 0x80 ? 2 : 2 + ((der[at + 1] ?? 0) & 0x7f))
  const end = (at: number) => {
    const short = der[at + 1] ?? 0
    if (short < 0x80) return at + 2 + short
    let lengthBytes = 0
    for (let i = 0; i < (short & 0x7f); i++)
      lengthBytes = lengthBytes * 256 + (der[at + 2 + i] ?? 0)
    return inner(at) + lengthBytes
  }
  let at = inner(inner(0))
  for (let field = 0; field < 5; field++) at = end(at)
  return der.slice(at, end(at))
}

/**
 * Main mode with pre-shared keys or RSA signatures: what each message carries and proves. RFC 2409
 * §5, RFC 3947 §3. The states stand in `main-mode.ts`; sending, repeating and fragmenting is the
 * machine's.
 */
import { equalBytes } from '../core/bytes.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { randomBytes } from '../core/random.ts'
import { type Secret, wipe } from '../core/secret.ts'
import type { KeyExchangeOffer } from '../crypto/key-exchange.ts'
import { keyExchange } from '../crypto/key-exchanges.ts'
import { isSignatureGood, signHash } from './certificates.ts'
import { exchangeIv, Phase1Keys, phase1Iv } from './key-schedule.ts'
import { type MainModeEvent, type MainModeState, mainModeTable } from './main-mode.ts'
import {
  addressBytes,
  type CookiePair,
  detectNat,
  NAT_TRAVERSAL_PORT,
  type NatState,
  natPayloads,
  type Path,
} from './path.ts'
import type { Phase1Options, Phase1Ports } from './phase1-options.ts'
import {
  choosePhase1,
  type Phase1AuthenticationMethod,
  type Phase1Choice,
  phase1Offer,
} from './policy.ts'
import { keysFor } from './pre-shared-keys.ts'
import { CbcChain, type Opened } from './protection.ts'
import {
  dpdVendorId,
  fragmentationVendorId,
  type NatTraversalVersion,
  natTraversalVersions,
  newestNatTraversal,
  type VendorIdName,
  vendorIdName,
  vendorIds,
} from './vendor-ids.ts'
import { CertificateEncoding, IdType, NotifyType, PayloadType } from './wire/numbers.ts'
import {
  filterPayloads,
  findPayload,
  type Identification,
  idPayload,
  type Payload,
  type PayloadOf,
  parsePayloads,
  saPayload,
} from './wire/payload.ts'

/** Specification constants: RFC 2409 §5. */
const shortestNonceBytes = 8
const longestNonceBytes = 256

/** Implementation constants. */
const nonceBytes = 32
/** Each costs an exchange or a decryption, and the second is a guess at the pre-shared key. */
const mostBadPublicValues = 3
const mostUndecryptable = 10

interface Candidate {
  readonly keys: Phase1Keys
  readonly chain: CbcChain
}

export class Phase1 {
  readonly #options: Phase1Options
  readonly #ports: Phase1Ports
  #state: MainModeState = 'idle'
  #isInitiator = false
  #path: Path
  #cookies: CookiePair
  #choice: Phase1Choice | undefined
  /** The initiator's SA body, byte for byte: part of both hashes. */
  #saBody: Uint8Array = new Uint8Array(0)
  #offer: KeyExchangeOffer | undefined
  #publicI: Uint8Array = new Uint8Array(0)
  #publicR: Uint8Array = new Uint8Array(0)
  #nonceI: Uint8Array = new Uint8Array(0)
  #nonceR: Uint8Array = new Uint8Array(0)
  #candidates: Candidate[] = []
  #nat: NatState = { isLocalBehindNat: false, isPeerBehindNat: false }
  #natTraversal: NatTraversalVersion | undefined
  readonly #announced = new Set<VendorIdName>()
  #peerIdentity: Identification | undefined
  #subject: string | undefined
  #wantsCertificate = false
  #suspicion: string | undefined
  #badPublicValues = 0
  #undecryptable = 0
  #isPeerNew = false

  constructor(options: Phase1Options, cookies: CookiePair, path: Path, ports: Phase1Ports) {
    this.#options = options
    this.#ports = ports
    this.#cookies = cookies
    this.#path = path
  }

  get state(): MainModeState {
    return this.#state
  }

  get isInitiator(): boolean {
    return this.#isInitiator
  }

  get path(): Path {
    return this.#path
  }

  get cookies(): CookiePair {
    return this.#cookies
  }

  get choice(): Phase1Choice | undefined {
    return this.#choice
  }

  get nat(): NatState {
    return this.#nat
  }

  /** UDP encapsulation of ESP has been agreed and is needed. */
  get isEncapsulated(): boolean {
    return this.#nat.isLocalBehindNat || this.#nat.isPeerBehindNat
  }

  get usesDraftNumbers(): boolean {
    return this.#natTraversal !== undefined && this.#natTraversal !== 'RFC 3947'
  }

  get vendorIds(): ReadonlySet<VendorIdName> {
    return this.#announced
  }

  get peerIdentity(): Identification | undefined {
    return this.#peerIdentity
  }

  get subject(): string | undefined {
    return this.#subject
  }

  /** The keys, once one candidate is left. */
  get keys(): Phase1Keys | undefined {
    return this.#candidates[0]?.keys
  }

  get chain(): CbcChain | undefined {
    return this.#candidates[0]?.chain
  }

  /** For the messages of one later exchange (RFC 2409, appendix B); undefined before there are keys. */
  exchangeChain(messageId: number): CbcChain | undefined {
    const { keys, chain } = this
    if (keys === undefined || chain === undefined) return undefined
    return new CbcChain(keys, exchangeIv(keys.suite, chain.iv, messageId))
  }

  setPath(path: Path): void {
    this.#path = path
  }

  open(): void {
    this.#isInitiator = true
    this.#step('open')
  }

  close(cause: DisconnectCause, detail: string): void {
    this.#step('close', cause, detail)
  }

  /** No answer in time, or the lifetime is over. */
  expire(): void {
    if (this.#state === 'established') {
      this.#step('expire', 'session-timeout', 'phase 1 lifetime over')
    } else if (this.#suspicion !== undefined) {
      this.#step('expire', 'authentication-failed', this.#suspicion)
    } else this.#step('expire', 'setup-timeout', `no answer in ${this.#state}`)
  }

  /** Messages 1 to 4. True when the message was the one that was waited for. */
  receive(payloads: readonly Payload[], responderCookie: Uint8Array): boolean {
    const sa = findPayload(payloads, 'SA')
    if (sa !== undefined) return this.#receiveSa(sa, payloads, responderCookie)
    const ke = findPayload(payloads, 'KE')
    const nonce = findPayload(payloads, 'NONCE')
    if (ke !== undefined && nonce !== undefined) return this.#receiveKe(ke, nonce, payloads)
    this.#ports.count('ikev1-incomplete-message')
    return false
  }

  /** Messages 5 and 6. True when it proved who the peer is. */
  receiveSealed(ciphertext: Uint8Array, firstPayload: number, path: Path): boolean {
    if (mainModeTable[this.#state].auth === null) {
      this.#ports.unexpected('auth')
      return false
    }
    let failure: string | undefined
    for (const candidate of this.#candidates) {
      const opened = candidate.chain.open(ciphertext)
      if (opened === undefined) {
        this.#ports.count('ikev1-bad-ciphertext')
        return false
      }
      const { plaintext } = opened
      const parsed = parsePayloads(plaintext, 0, plaintext.length, firstPayload)
      wipe(plaintext)
      if (typeof parsed === 'number') continue
      const id = findPayload(parsed.payloads, 'ID')
      if (id === undefined || firstPayload !== PayloadType.ID) continue
      failure = this.#refusalOfProof(candidate.keys, id, parsed.payloads)
      if (failure !== undefined) continue
      this.#accept(candidate, opened, id, parsed.payloads, path)
      return true
    }
    if (failure === undefined) {
      // The wrong key, or anybody's bytes: there is no telling.
      this.#suspicion = 'messages do not decrypt: the pre-shared keys differ'
      this.#ports.count('ikev1-undecryptable')
      if (++this.#undecryptable >= mostUndecryptable) this.expire()
      return false
    }
    this.#step('auth-bad', 'authentication-failed', failure)
    return true
  }

  destroy(): void {
    for (const { keys } of this.#candidates) keys.destroy()
    this.#offer?.destroy()
  }

  #step(event: MainModeEvent, cause: DisconnectCause = 'nas-error', detail = ''): void {
    const cell = mainModeTable[this.#state][event]
    if (cell === null) {
      if (event !== 'close' && event !== 'expire') this.#ports.unexpected(event)
      return
    }
    this.#state = cell.next
    for (const action of cell.actions) {
      switch (action) {
        case 'send-sa':
          this.#sendSa()
          break
        case 'answer-sa':
          this.#answerSa()
          break
        case 'send-ke':
        case 'answer-ke':
          this.#sendKe()
          break
        case 'send-auth':
        case 'answer-auth':
          this.#sendAuth()
          break
        case 'send-notify':
          this.#ports.sendNotify(
            event === 'auth-bad'
              ? NotifyType['AUTHENTICATION-FAILED']
              : NotifyType['NO-PROPOSAL-CHOSEN'],
          )
          break
        case 'send-delete':
          this.#ports.sendDelete()
          break
        case 'up':
          this.#ports.up()
          break
        case 'down':
          this.#ports.down(cause, detail)
          break
      }
    }
  }

  // Messages 1 and 2

  #sendSa(): void {
    const { policy } = this.#options
    const [method = 'pre-shared-key'] = this.#methods()
    const sa = saPayload(phase1Offer(policy, method))
    this.#saBody = sa.body
    this.#ports.send([
      sa,
      ...natTraversalVersions.map(version => vid(vendorIds[version].bytes)),
      vid(dpdVendorId),
      vid(fragmentationVendorId),
    ])
  }

  #methods(): Phase1AuthenticationMethod[] {
    const { credential, trust, preSharedKeys } = this.#options
    const methods: Phase1AuthenticationMethod[] = []
    if (credential !== undefined && trust !== undefined) methods.push('rsa-signatures')
    if (keysFor(preSharedKeys, this.#path.peer.address).length > 0) methods.push('pre-shared-key')
    return methods
  }

  #receiveSa(
    sa: PayloadOf<'SA'>,
    payloads: readonly Payload[],
    responderCookie: Uint8Array,
  ): boolean {
    if (mainModeTable[this.#state].sa === null) {
      this.#ports.unexpected('sa')
      return false
    }
    for (const { data } of filterPayloads(payloads, 'VID')) {
      const name = vendorIdName(data)
      if (name !== undefined) this.#announced.add(name)
    }
    this.#natTraversal = newestNatTraversal(this.#announced)
    const choice = choosePhase1(sa.proposals, this.#options.policy, this.#methods())
    if (typeof choice === 'string') {
      this.#step('sa-bad', 'protocol-error', choice)
      return true
    }
    this.#choice = choice
    if (this.#isInitiator) {
      this.#cookies = { ...this.#cookies, responderCookie }
    } else this.#saBody = sa.body
    this.#step('sa')
    return true
  }

  /** Only what the peer has announced too: the answer is never longer than the request. */
  #answerSa(): void {
    if (this.#choice === undefined) return
    const answer: Payload[] = [saPayload([this.#choice.answer])]
    if (this.#natTraversal !== undefined) answer.push(vid(vendorIds[this.#natTraversal].bytes))
    if (this.#announced.has('DPD')) answer.push(vid(dpdVendorId))
    if (this.#announced.has('FRAGMENTATION')) answer.push(vid(vendorIds.FRAGMENTATION.bytes))
    this.#ports.send(answer)
  }

  // Messages 3 and 4

  #receiveKe(
    ke: PayloadOf<'KE'>,
    nonce: PayloadOf<'NONCE'>,
    payloads: readonly Payload[],
  ): boolean {
    if (mainModeTable[this.#state].ke === null || this.#choice === undefined) {
      this.#ports.unexpected('ke')
      return false
    }
    const { random } = this.#options
    const { suite } = this.#choice
    if (nonce.data.length < shortestNonceBytes || nonce.data.length > longestNonceBytes) {
      this.#ports.count('ikev1-bad-nonce')
      return false
    }
    const exchange = keyExchange(suite.group)
    if (exchange === undefined) return false
    let shared: Secret
    if (this.#isInitiator) {
      const result = this.#offer?.finish(ke.data)
      if (result === undefined || typeof result === 'number') {
        // The private value is gone with the attempt: begin again rather than go on without.
        this.#ports.count('ikev1-bad-public-value')
        this.#step('close', 'protocol-error', 'bad public value')
        return true
      }
      shared = result
      this.#publicR = ke.data
      this.#nonceR = nonce.data
    } else {
      const answer = exchange.answer(ke.data, random)
      if (typeof answer === 'number') {
        this.#ports.count('ikev1-bad-public-value')
        if (++this.#badPublicValues >= mostBadPublicValues) {
          this.#step('close', 'protocol-error', 'bad public values')
        }
        return false
      }
      shared = answer.sharedSecret
      this.#publicI = ke.data
      this.#publicR = answer.publicValue
      this.#nonceI = nonce.data
      this.#nonceR = randomBytes(random, nonceBytes)
    }
    this.#derive(shared)
    this.#detectNat(payloads)
    this.#wantsCertificate = filterPayloads(payloads, 'CR').length > 0
    this.#step('ke')
    return true
  }

  #derive(shared: Secret): void {
    if (this.#choice === undefined) return
    const { suite, method } = this.#choice
    const secrets = {
      nonceI: this.#nonceI,
      nonceR: this.#nonceR,
      shared: shared.expose(),
      cookies: this.#cookies,
    }
    const known = keysFor(this.#options.preSharedKeys, this.#path.peer.address)
    // An initiator has to choose before it sees anything under the key.
    const tried = this.#isInitiator ? known.slice(0, 1) : known
    const presharedKeys = method === 'pre-shared-key' ? tried : [undefined]
    this.#candidates = presharedKeys.map(key => {
      const keys = new Phase1Keys(suite, secrets, key)
      return { keys, chain: new CbcChain(keys, phase1Iv(suite, this.#publicI, this.#publicR)) }
    })
    shared.destroy()
  }

  #detectNat(payloads: readonly Payload[]): void {
    if (this.#natTraversal === undefined || this.#choice === undefined) return
    const { hash } = this.#choice.suite
    const sent = filterPayloads(payloads, 'NAT-D')
    const found = detectNat(sent, hash, this.#cookies, this.#path)
    if (found === undefined) {
      this.#natTraversal = undefined
      return
    }
    const isForced = this.#options.forcesEncapsulation === true
    this.#nat = { ...found, isLocalBehindNat: found.isLocalBehindNat || isForced }
    // RFC 3947 §4: the initiator moves with message 5.
    if (this.#isInitiator && this.isEncapsulated && !this.#path.isFloated) {
      this.#path = {
        local: { ...this.#path.local, port: NAT_TRAVERSAL_PORT },
        peer: { ...this.#path.peer, port: NAT_TRAVERSAL_PORT },
        isFloated: true,
      }
    }
  }

  #sendKe(): void {
    const { random, forcesEncapsulation = false, trust } = this.#options
    if (this.#choice === undefined) return
    const { suite, method } = this.#choice
    if (this.#isInitiator) {
      this.#offer = keyExchange(suite.group)?.offer(random)
      this.#publicI = this.#offer?.publicValue ?? this.#publicI
      this.#nonceI = randomBytes(random, nonceBytes)
    }
    const isOurs = this.#isInitiator
    const payloads: Payload[] = [
      { type: 'KE', data: isOurs ? this.#publicI : this.#publicR },
      { type: 'NONCE', data: isOurs ? this.#nonceI : this.#nonceR },
    ]
    if (method === 'rsa-signatures') {
      const authorities = trust?.authorities ?? []
      for (const data of authorities.length === 0 ? [new Uint8Array(0)] : authorities) {
        payloads.push({ type: 'CR', encoding: CertificateEncoding.x509Signature, data })
      }
    }
    if (this.#natTraversal !== undefined) {
      payloads.push(
        ...natPayloads(
          suite.hash,
          this.#cookies,
          this.#path,
          this.usesDraftNumbers,
          forcesEncapsulation,
        ),
      )
    }
    this.#ports.send(payloads)
  }

  // Messages 5 and 6

  #ownIdentity(): Identification {
    const { identity, credential } = this.#options
    if (identity !== undefined) return identity
    if (this.#choice?.method === 'rsa-signatures' && credential?.subject !== undefined) {
      return { idType: IdType.derAsn1Dn, protocol: 0, port: 0, data: credential.subject }
    }
    return addressIdentity(this.#path.local.address, 0, 0)
  }

  #hashOf(keys: Phase1Keys, isInitiators: boolean, idBody: Uint8Array): Uint8Array {
    const { initiatorCookie, responderCookie } = this.#cookies
    return isInitiators
      ? keys.authenticationHash(
          this.#publicI,
          this.#publicR,
          initiatorCookie,
          responderCookie,
          this.#saBody,
          idBody,
        )
      : keys.authenticationHash(
          this.#publicR,
          this.#publicI,
          responderCookie,
          initiatorCookie,
          this.#saBody,
          idBody,
        )
  }

  #sendAuth(): void {
    const candidate = this.#candidates[0]
    if (candidate === undefined || this.#choice === undefined) return
    const { credential, sendsInitialContact = false } = this.#options
    const id = idPayload(this.#ownIdentity())
    const hash = this.#hashOf(candidate.keys, this.#isInitiator, id.body)
    const payloads: Payload[] = [id]
    if (this.#choice.method === 'rsa-signatures' && credential !== undefined) {
      const certificates = this.#wantsCertificate ? credential.chain : credential.chain.slice(0, 1)
      for (const data of certificates) {
        payloads.push({ type: 'CERT', encoding: CertificateEncoding.x509Signature, data })
      }
      payloads.push({ type: 'SIG', data: signHash(credential.privateKey, hash) })
    } else payloads.push({ type: 'HASH', data: hash })
    if (this.#isInitiator && sendsInitialContact) {
      payloads.push(initialContact(this.#cookies))
    }
    this.#ports.sendSealed(payloads, candidate.chain)
  }

  /** Why a message 5 or 6 proves nothing, undefined when it proves the identity. */
  #refusalOfProof(
    keys: Phase1Keys,
    id: PayloadOf<'ID'>,
    payloads: readonly Payload[],
  ): string | undefined {
    const expected = this.#hashOf(keys, !this.#isInitiator, id.body)
    if (this.#choice?.method === 'pre-shared-key') {
      const hash = findPayload(payloads, 'HASH')
      if (hash === undefined) return 'no hash'
      return equalBytes(hash.data, expected) ? undefined : 'wrong hash'
    }
    const signature = findPayload(payloads, 'SIG')
    if (signature === undefined) return 'no signature'
    const chain = filterPayloads(payloads, 'CERT')
      .filter(one => one.encoding === CertificateEncoding.x509Signature)
      .map(one => one.data)
    const verdict = this.#options.trust?.judge(chain)
    if (verdict === undefined) return 'certificates are not taken here'
    if (verdict.type === 'refused') return verdict.detail
    if (!isSignatureGood(verdict.publicKey, expected, signature.data)) return 'wrong signature'
    this.#subject = verdict.subject
    return undefined
  }

  #accept(
    candidate: Candidate,
    opened: Opened,
    id: Identification,
    payloads: readonly Payload[],
    path: Path,
  ): void {
    opened.accept()
    for (const other of this.#candidates) if (other !== candidate) other.keys.destroy()
    this.#candidates = [candidate]
    this.#peerIdentity = id
    this.#path = path
    this.#isPeerNew = filterPayloads(payloads, 'N').some(
      notify => notify.notifyType === NotifyType['INITIAL-CONTACT'],
    )
    this.#step('auth')
  }

  /** The message that proved the identity held an INITIAL-CONTACT. */
  get isPeerNew(): boolean {
    return this.#isPeerNew
  }
}

function vid(data: Uint8Array): PayloadOf<'VID'> {
  return { type: 'VID', data }
}

/** The identity that is an address; protocol and port only in phase 2. */
export function addressIdentity(address: string, protocol: number, port: number): Identification {
  const data = addressBytes(address)
  const idType = data.length === 16 ? IdType.ipv6Address : IdType.ipv4Address
  return { idType, protocol, port, data }
}

function initialContact(cookies: CookiePair): PayloadOf<'N'> {
  const spi = new Uint8Array(16)
  spi.set(cookies.initiatorCookie)
  spi.set(cookies.responderCookie, 8)
  return {
    type: 'N',
    protocolId: 1,
    notifyType: NotifyType['INITIAL-CONTACT'],
    spi,
    data: new Uint8Array(0),
  }
}

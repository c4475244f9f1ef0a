/**
 * The wire of a stock IKEv2 client: requests that are repeated until they are answered, responses and
 * requests of the server, ESP and IKE side by side.
 */
import { createHash } from 'node:crypto'
import { concatBytes, equalBytes, u32 } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { natHash } from '../../lib/ikev2/nat-detection.ts'
import { ExchangeType } from '../../lib/ikev2/wire/exchange-type.ts'
import { parseHeader } from '../../lib/ikev2/wire/header.ts'
import { parseMessage } from '../../lib/ikev2/wire/message.ts'
import { notify } from '../../lib/ikev2/wire/notify.ts'
import { NotifyType } from '../../lib/ikev2/wire/notify-type.ts'
import type { Payload } from '../../lib/ikev2/wire/payload.ts'
import type { Flight } from '../support/datagram-network.ts'
import { type IpsecServer, serverAddress, type Waiting } from '../support/ipsec-server.ts'
import type { Ikev2Persona } from './ikev2-personas.ts'
import type { Spis, StockSa } from './ikev2-wire.ts'

export const ikePort = 500
export const natPort = 4500

interface Pending {
  readonly exchangeType: number
  readonly messageId: number
  readonly datagrams: readonly Uint8Array[]
  readonly resolve: (response: Response) => void
  readonly reject: (error: Error) => void
  tries: number
  dueMs: number
}

export interface Response {
  readonly payloads: readonly Payload[]
  readonly bytes: Uint8Array
}

export abstract class Ikev2Line implements Waiting {
  readonly persona: Ikev2Persona
  readonly complaints: string[] = []
  /** Every datagram that came, as it came. */
  readonly received: Flight[] = []
  /** Requests of the server by exchange type. */
  readonly requests: number[] = []
  repetitions = 0
  address: string
  protected readonly server: IpsecServer
  protected readonly random: SeededRandom
  protected sa: StockSa | undefined
  /** Older IKE SAs, whose deletion is on its way. */
  protected readonly sas: StockSa[] = []
  protected hasFloated = false
  protected fragments = false
  readonly #pending = new Map<string, Pending>()
  readonly #replies = new Map<string, readonly Uint8Array[]>()

  constructor(persona: Ikev2Persona, server: IpsecServer, address: string, seed: number) {
    this.persona = persona
    this.server = server
    this.address = address
    this.random = new SeededRandom(1000 + seed)
    this.#listen()
    server.waiting.add(this)
  }

  /** What answers a request of the server. */
  protected abstract answerTo(exchangeType: number, payloads: readonly Payload[]): Payload[]
  protected abstract espArrived(bytes: Uint8Array): void

  /** The client's interface has another address from now on. */
  changeAddress(address: string): void {
    this.address = address
    this.#listen()
  }

  #listen(): void {
    const here = this.address
    this.server.network.listen(here, flight => {
      if (this.address === here) this.#receive(flight)
    })
  }

  protected get current(): StockSa {
    if (this.sa === undefined) throw new Error('no IKE SA')
    return this.sa
  }

  protected get sourcePort(): number {
    return this.persona.ports[this.hasFloated ? 1 : 0]
  }

  protected natNotify(part: 'nat-source' | 'nat-destination', spis: Spis): Payload {
    if (part === 'nat-destination') {
      const to = { address: serverAddress, port: this.hasFloated ? natPort : ikePort }
      return notify(NotifyType.NAT_DETECTION_DESTINATION_IP, natHash(spis, to))
    }
    const hash = natHash(spis, { address: this.address, port: this.sourcePort })
    if (this.persona.forcesEncapsulation) hash.fill(0)
    return notify(NotifyType.NAT_DETECTION_SOURCE_IP, hash)
  }

  protected transmit(bytes: Uint8Array): void {
    const to = { address: serverAddress, port: this.hasFloated ? natPort : ikePort }
    const from = { address: this.address, port: this.sourcePort }
    this.server.network.send({ from, to, bytes: bytes.slice() })
  }

  #transmitIke(message: Uint8Array): void {
    this.transmit(this.hasFloated ? concatBytes(new Uint8Array(4), message) : message)
  }

  protected async request(
    exchangeType: number,
    payloads: readonly Payload[],
    sa = this.current,
  ): Promise<readonly Payload[]> {
    const messageId = sa.nextRequestId++
    const packetBytes = this.fragments ? this.persona.fragmentPacketBytes : 0
    const head = { exchangeType, isResponse: false, messageId }
    const datagrams = sa.seal(head, payloads, packetBytes, this.random)
    return (await this.exchange(keyOf(sa), exchangeType, messageId, datagrams)).payloads
  }

  protected exchange(
    key: string,
    exchangeType: number,
    messageId: number,
    datagrams: readonly Uint8Array[],
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      const dueMs = this.server.nowMs + (this.persona.retransmitMs[0] ?? 1000)
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
      this.espArrived(bytes)
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
    const sa = [this.sa, ...this.sas].find(
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
    const reply = known ?? sa.seal(head, this.answerTo(exchangeType, payloads), 0, this.random)
    this.#replies.set(key, reply)
    for (const bytes of reply) this.#transmitIke(bytes)
  }
}

function keyOf(sa: StockSa): string {
  return createHash('sha1').update(sa.spis.initiatorSpi).digest('hex')
}

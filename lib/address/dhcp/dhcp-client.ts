/**
 * One client of DHCP servers behind our own relay agent (RFC 2131 §4.4), for somebody who asks for an
 * address through a tunnel and knows nothing of DHCP. Sans-IO.
 *
 * States, RFC 2131 figure 5: idle - nothing is wanted; selecting - asked for offers; requesting - took
 * one; rebooting - asked for an address of before; bound; renewing - asks the server that gave it;
 * rebinding - asks all; over - given back, refused or lost.
 */
import { putU32, u32 } from '../../core/bytes.ts'
import { assertNever } from '../../core/errors.ts'
import { Outbox, type Output, type Timeout } from '../../core/machine.ts'
import { type RandomSource, randomU32 } from '../../core/random.ts'
import { TimerTable } from '../../core/timers.ts'
import { DhcpMessageType, DhcpOption } from '../wire/dhcp.ts'
import {
  type DhcpMessage,
  DhcpOp,
  dhcpMessageBytes,
  encodeDhcpMessage,
  linkSelection,
} from '../wire/dhcp-message.ts'

// Specification constants.

/** RFC 2131 §4.4.5: renewals are not repeated sooner than this. */
const shortestRenewalMs = 60_000
/** RFC 2131 §3.3: an infinite lease. */
const infiniteSeconds = 0xffff_ffff

// Implementation constants.

/** RFC 2131 §4.1 has 4, 8, 16 s for a shared wire; somebody waits here at a dialler. */
const waitsMs = [1000, 2000, 4000]
/** Addresses in a row that are in use although a server gives them. */
const mostDeclines = 2
/** Shorter leases are taken for this: nobody means them, and they would keep us busy. */
const shortestLeaseSeconds = 10
const messageSizeBytes = 1472
/** Clients of ours get everything else from us; some servers tell times only to those who ask. */
const wantedOptions = Uint8Array.of(
  DhcpOption.leaseTime,
  DhcpOption.renewalTime,
  DhcpOption.rebindingTime,
)

/** What is to be said of an address that a server names. */
export type AddressJudgement = 'good' | 'outside' | 'in-use'

export interface DhcpClientOptions {
  /** Option 61: by this the server knows the client again (RFC 2132 §9.14). */
  readonly clientId: Uint8Array
  /** 6 bytes, locally administered. */
  readonly hardwareAddress: Uint8Array
  /** `giaddr`: ours, where answers come to. */
  readonly relayAddress: number
  /** Ours in the tunnels: of the link whose addresses are wanted (RFC 3527). */
  readonly linkAddress: number
  readonly random: RandomSource
  /** Pure; asked for each address that is offered or given. */
  readonly judge: (address: number) => AddressJudgement
}

export type DhcpClientInput =
  /** `address`: had before, and asked for again (INIT-REBOOT); else an address that would be liked. */
  | { readonly type: 'acquire'; readonly address?: number; readonly wish?: number }
  /** An address that was had before, to be given back: `release` follows. */
  | { readonly type: 'adopt'; readonly address: number; readonly server: number }
  | { readonly type: 'message'; readonly message: DhcpMessage }
  | { readonly type: 'release' }

export type DhcpClientEvent =
  /** To one server, or to all. */
  | { readonly type: 'send'; readonly server: number | undefined; readonly bytes: Uint8Array }
  /** For the first time, or again. `expiresMs`: monotonic, `Infinity` for ever. */
  | {
      readonly type: 'bound'
      readonly address: number
      readonly server: number
      readonly expiresMs: number
    }
  | { readonly type: 'refused'; readonly reason: 'no-answer' | 'in-use' }
  /** Nobody renewed it, or it was taken back: whoever has the address must stop using it. */
  | { readonly type: 'lost'; readonly address: number; readonly reason: 'expired' | 'taken-back' }
  | { readonly type: 'unexpected'; readonly what: string }

type State =
  | 'idle'
  | 'selecting'
  | 'requesting'
  | 'rebooting'
  | 'bound'
  | 'renewing'
  | 'rebinding'
  | 'over'

export class DhcpClient {
  readonly #options: DhcpClientOptions
  readonly #outbox = new Outbox<DhcpClientEvent>()
  readonly #timers = new TimerTable<'repeat' | 'renew' | 'rebind' | 'expire'>()
  #state: State = 'idle'
  #transactionId = 0
  #beganMs = 0
  #repeats = 0
  #declines = 0
  #address = 0
  #server = 0
  #wish = 0
  #rebindMs = Number.POSITIVE_INFINITY
  #expiresMs = Number.POSITIVE_INFINITY

  constructor(options: DhcpClientOptions) {
    this.#options = options
  }

  get state(): State {
    return this.#state
  }

  /** 0 before there is one. */
  get address(): number {
    return this.#address
  }

  handle(input: DhcpClientInput | Timeout, nowMs: number): void {
    switch (input.type) {
      case 'acquire':
        this.#acquire(input.address, input.wish ?? 0, nowMs)
        return
      case 'adopt':
        this.#address = input.address
        this.#server = input.server
        this.#state = 'bound'
        return
      case 'message':
        this.#message(input.message, nowMs)
        return
      case 'release':
        this.#release()
        return
      case 'timeout':
        this.#timeout(nowMs)
        return
      default:
        assertNever(input)
    }
  }

  poll(): Output<DhcpClientEvent> | undefined {
    return this.#outbox.poll()
  }

  nextDeadlineMs(): number {
    return this.#timers.nextDeadlineMs()
  }

  #acquire(address: number | undefined, wish: number, nowMs: number): void {
    if (this.#state !== 'idle') {
      this.#unexpected('dhcp-acquire-twice')
      return
    }
    this.#wish = wish
    if (address === undefined) {
      this.#select(nowMs)
      return
    }
    this.#address = address
    this.#begin('rebooting', nowMs)
  }

  #select(nowMs: number): void {
    this.#address = 0
    this.#server = 0
    this.#begin('selecting', nowMs)
  }

  #begin(state: 'selecting' | 'requesting' | 'rebooting', nowMs: number): void {
    // RFC 2131 §4.4.1: the REQUEST has the number of the DISCOVER.
    if (state !== 'requesting') {
      this.#transactionId = randomU32(this.#options.random)
      this.#beganMs = nowMs
    }
    this.#state = state
    this.#repeats = 0
    this.#ask(nowMs)
    this.#timers.set('repeat', nowMs + (waitsMs[0] ?? 0))
  }

  // What comes in

  #message(message: DhcpMessage, nowMs: number): void {
    if (message.op !== DhcpOp.reply) {
      this.#unexpected('dhcp-not-reply')
      return
    }
    if (message.transactionId !== this.#transactionId) {
      this.#unexpected('dhcp-other-transaction')
      return
    }
    const type = message.options.get(DhcpOption.messageType)?.[0]
    const server = numberOf(message, DhcpOption.serverIdentifier)
    if (server === undefined) {
      this.#unexpected('dhcp-without-server')
      return
    }
    switch (this.#state) {
      case 'selecting':
        if (type === DhcpMessageType.offer) this.#offer(message, server, nowMs)
        else this.#unexpected('dhcp-not-offer')
        return
      case 'requesting':
      case 'rebooting':
      case 'renewing':
      case 'rebinding':
        if (type === DhcpMessageType.ack) this.#ack(message, server, nowMs)
        else if (type === DhcpMessageType.nak) this.#nak(nowMs)
        // Others have made offers too.
        else if (type !== DhcpMessageType.offer) this.#unexpected('dhcp-not-answer')
        return
      case 'idle':
      case 'bound':
      case 'over':
        this.#unexpected(`dhcp-answer-while-${this.#state}`)
        return
      default:
        assertNever(this.#state)
    }
  }

  #offer(message: DhcpMessage, server: number, nowMs: number): void {
    // One that is in use is taken all the same: the server learns it when it is declined.
    if (this.#options.judge(message.yourAddress) === 'outside') {
      this.#unexpected('dhcp-offer-outside')
      return
    }
    this.#address = message.yourAddress
    this.#server = server
    this.#begin('requesting', nowMs)
  }

  #ack(message: DhcpMessage, server: number, nowMs: number): void {
    const leaseSeconds = numberOf(message, DhcpOption.leaseTime)
    const isOurs = message.yourAddress === this.#address
    if (leaseSeconds === undefined || leaseSeconds === 0 || !isOurs) {
      this.#unexpected('dhcp-bad-ack')
      return
    }
    const isNew = this.#state === 'requesting' || this.#state === 'rebooting'
    const judgement = isNew ? this.#options.judge(this.#address) : 'good'
    this.#server = server
    if (judgement !== 'good') {
      this.#decline(judgement, nowMs)
      return
    }
    this.#state = 'bound'
    this.#repeats = 0
    this.#setLease(message, leaseSeconds, nowMs)
    const expiresMs = this.#expiresMs
    this.#outbox.event({ type: 'bound', address: this.#address, server, expiresMs })
  }

  /** RFC 2131 §4.4.5: half, seven eighths, and the end, unless the server says otherwise. */
  #setLease(message: DhcpMessage, leaseSeconds: number, nowMs: number): void {
    this.#timers.clearAll()
    this.#expiresMs = Number.POSITIVE_INFINITY
    if (leaseSeconds === infiniteSeconds) return
    const seconds = Math.max(leaseSeconds, shortestLeaseSeconds)
    const told = (option: number, otherwise: number) =>
      Math.min(numberOf(message, option) ?? otherwise, seconds)
    const rebindSeconds = told(DhcpOption.rebindingTime, seconds * 0.875)
    const renewSeconds = Math.min(told(DhcpOption.renewalTime, seconds * 0.5), rebindSeconds)
    this.#rebindMs = nowMs + rebindSeconds * 1000
    this.#expiresMs = nowMs + seconds * 1000
    this.#timers.set('renew', nowMs + Math.max(renewSeconds, 1) * 1000)
    this.#timers.set('rebind', this.#rebindMs)
    this.#timers.set('expire', this.#expiresMs)
  }

  /** RFC 2131 §3.1, 5. It has 10 s of waiting here, for a loop that `mostDeclines` ends sooner. */
  #decline(judgement: AddressJudgement, nowMs: number): void {
    this.#send(DhcpMessageType.decline, this.#server, 0, nowMs, [
      [DhcpOption.requestedAddress, numberBytes(this.#address)],
      [DhcpOption.serverIdentifier, numberBytes(this.#server)],
    ])
    this.#unexpected(`dhcp-declined-${judgement}`)
    if (this.#declines++ < mostDeclines) this.#select(nowMs)
    else this.#end({ type: 'refused', reason: 'in-use' })
  }

  #nak(nowMs: number): void {
    if (this.#state === 'requesting' || this.#state === 'rebooting') this.#select(nowMs)
    else this.#end({ type: 'lost', address: this.#address, reason: 'taken-back' })
  }

  // What goes out

  #release(): void {
    const isHeld =
      this.#state === 'bound' || this.#state === 'renewing' || this.#state === 'rebinding'
    this.#timers.clearAll()
    this.#state = 'over'
    if (!isHeld) return
    this.#transactionId = randomU32(this.#options.random)
    this.#send(DhcpMessageType.release, this.#server, this.#address, this.#beganMs, [
      [DhcpOption.serverIdentifier, numberBytes(this.#server)],
    ])
  }

  #timeout(nowMs: number): void {
    for (
      let name = this.#timers.takeExpired(nowMs);
      name !== undefined;
      name = this.#timers.takeExpired(nowMs)
    ) {
      switch (name) {
        case 'repeat':
          this.#repeat(nowMs)
          break
        case 'renew':
          this.#renew('renewing', this.#rebindMs, nowMs)
          break
        case 'rebind':
          this.#renew('rebinding', this.#expiresMs, nowMs)
          break
        case 'expire':
          this.#end({ type: 'lost', address: this.#address, reason: 'expired' })
          break
        default:
          assertNever(name)
      }
    }
  }

  #repeat(nowMs: number): void {
    if (this.#state === 'renewing' || this.#state === 'rebinding') {
      const end = this.#state === 'renewing' ? this.#rebindMs : this.#expiresMs
      this.#renew(this.#state, end, nowMs)
      return
    }
    const waitMs = waitsMs[++this.#repeats]
    if (waitMs !== undefined) {
      this.#ask(nowMs)
      this.#timers.set('repeat', nowMs + waitMs)
      return
    }
    // RFC 2131 §3.2: who is not answered about an address of before asks for another.
    if (this.#state === 'rebooting') this.#select(nowMs)
    else this.#end({ type: 'refused', reason: 'no-answer' })
  }

  /** Asks, and again after half of what is left until `endMs`. */
  #renew(state: 'renewing' | 'rebinding', endMs: number, nowMs: number): void {
    if (this.#state !== state) {
      this.#state = state
      this.#transactionId = randomU32(this.#options.random)
      this.#beganMs = nowMs
    }
    this.#ask(nowMs)
    const waitMs = Math.max((endMs - nowMs) / 2, shortestRenewalMs)
    if (nowMs + waitMs < endMs) this.#timers.set('repeat', nowMs + waitMs)
    else this.#timers.clear('repeat')
  }

  /** The question of the state. RFC 2131 table 4 and 5. */
  #ask(nowMs: number): void {
    const requested: [number, Uint8Array] = [
      DhcpOption.requestedAddress,
      numberBytes(this.#address),
    ]
    switch (this.#state) {
      case 'selecting': {
        const wish: [number, Uint8Array][] =
          this.#wish === 0 ? [] : [[DhcpOption.requestedAddress, numberBytes(this.#wish)]]
        this.#send(DhcpMessageType.discover, undefined, 0, nowMs, wish)
        return
      }
      case 'requesting':
        // To all: those whose offers were not taken learn it so.
        this.#send(DhcpMessageType.request, undefined, 0, nowMs, [
          requested,
          [DhcpOption.serverIdentifier, numberBytes(this.#server)],
        ])
        return
      case 'rebooting':
        this.#send(DhcpMessageType.request, undefined, 0, nowMs, [requested])
        return
      case 'renewing':
        this.#send(DhcpMessageType.request, this.#server, this.#address, nowMs, [])
        return
      case 'rebinding':
        this.#send(DhcpMessageType.request, undefined, this.#address, nowMs, [])
        return
      case 'idle':
      case 'bound':
      case 'over':
        return
      default:
        assertNever(this.#state)
    }
  }

  #send(
    type: number,
    server: number | undefined,
    clientAddress: number,
    nowMs: number,
    more: readonly [number, Uint8Array][],
  ): void {
    const { clientId, hardwareAddress, relayAddress, linkAddress } = this.#options
    const message: DhcpMessage = {
      op: DhcpOp.request,
      transactionId: this.#transactionId,
      seconds: Math.min(Math.floor((nowMs - this.#beganMs) / 1000), 0xffff),
      clientAddress,
      yourAddress: 0,
      relayAddress,
      hardwareAddress,
      options: new Map([
        [DhcpOption.messageType, Uint8Array.of(type)],
        [DhcpOption.clientIdentifier, clientId],
        ...more,
        [DhcpOption.parameterRequestList, wantedOptions],
        [DhcpOption.messageSize, Uint8Array.of(messageSizeBytes >>> 8, messageSizeBytes & 0xff)],
        // RFC 3046 §2.1: the last.
        [DhcpOption.relayAgentInformation, linkSelection(linkAddress)],
      ]),
    }
    const bytes = new Uint8Array(dhcpMessageBytes(message))
    encodeDhcpMessage(message, bytes)
    this.#outbox.event({ type: 'send', server, bytes })
  }

  #end(event: Extract<DhcpClientEvent, { type: 'refused' | 'lost' }>): void {
    this.#state = 'over'
    this.#timers.clearAll()
    this.#outbox.event(event)
  }

  #unexpected(what: string): void {
    this.#outbox.event({ type: 'unexpected', what })
  }
}

/** A field of four bytes. */
function numberOf({ options }: DhcpMessage, option: number): number | undefined {
  const value = options.get(option)
  return value?.length === 4 ? u32(value, 0) : undefined
}

function numberBytes(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  putU32(bytes, 0, value)
  return bytes
}

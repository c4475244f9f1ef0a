/**
 * A DHCP relay agent for clients that have their address and ask what else there is (DHCPINFORM, RFC
 * 2131 §4.3.5, RFC 1542 §4): their message goes to the DHCP servers, the answer into their tunnel.
 */
import type { Clock } from '../../core/clock.ts'
import { Counters, faultName } from '../../core/faults.ts'
import type { DhcpLink } from '../dhcp-responder.ts'
import {
  CLIENT_PORT,
  checkDhcpRequest,
  DhcpMessageType,
  DhcpOption,
  isForDhcpServer,
  parseDhcpRequest,
  SERVER_PORT,
} from '../wire/dhcp.ts'
import {
  checkDhcpMessage,
  clientOf,
  DhcpOp,
  linkSelection,
  parseDhcpMessage,
  relayed,
} from '../wire/dhcp-message.ts'
import { putUdpHeaders, udpPayloadAt } from '../wire/udp-packet.ts'

/** One question of a client in this time; Windows repeats its own after four seconds. */
const shortestPauseMs = 500

export interface InformRelayOptions {
  /** `giaddr`: ours, where answers come to. */
  readonly relayAddress: number
  /** Ours in the tunnels. */
  readonly linkAddress: number
  readonly clock: Clock
  /** To all servers. */
  readonly send: (bytes: Uint8Array) => void
}

interface Waiting {
  readonly transmit: (packet: Uint8Array) => void
  /** Of its last question; undefined once it was answered. */
  transactionId: number | undefined
  askedMs: number
}

export class InformRelay {
  readonly counters = new Counters()
  readonly #options: InformRelayOptions
  readonly #byClient = new Map<number, Waiting>()

  constructor(options: InformRelayOptions) {
    this.#options = options
  }

  /** The part of one session: takes what is for a DHCP server; the answer comes by `transmit`. */
  link(clientAddress: number, transmit: (packet: Uint8Array) => void): Required<DhcpLink> {
    const waiting: Waiting = {
      transmit,
      transactionId: undefined,
      askedMs: Number.NEGATIVE_INFINITY,
    }
    this.#byClient.set(clientAddress, waiting)
    return {
      answer: packet => this.#forward(packet, clientAddress, waiting),
      close: () => {
        if (this.#byClient.get(clientAddress) === waiting) this.#byClient.delete(clientAddress)
      },
    }
  }

  /** A datagram from a server. */
  receive(bytes: Uint8Array): void {
    const fault = checkDhcpMessage(bytes)
    if (fault) {
      this.counters.count(`dhcp-malformed-${faultName(fault)}`)
      return
    }
    const { op, transactionId, options } = parseDhcpMessage(bytes)
    const client = clientOf(bytes)
    const waiting = this.#byClient.get(client)
    const isAnswer =
      op === DhcpOp.reply && options.get(DhcpOption.messageType)?.[0] === DhcpMessageType.ack
    if (!isAnswer || waiting?.transactionId !== transactionId) {
      this.counters.count('dhcp-inform-unasked')
      return
    }
    waiting.transactionId = undefined
    const packet = new Uint8Array(udpPayloadAt + bytes.length)
    packet.set(bytes, udpPayloadAt)
    putUdpHeaders(packet, packet.length, {
      source: this.#options.linkAddress,
      destination: client,
      sourcePort: SERVER_PORT,
      destinationPort: CLIENT_PORT,
    })
    this.counters.count('dhcp-inform-answered')
    waiting.transmit(packet)
  }

  #forward(packet: Uint8Array, clientAddress: number, waiting: Waiting): undefined {
    if (!isForDhcpServer(packet)) return
    const counter = this.#refusal(packet, clientAddress, waiting)
    if (counter !== undefined) {
      this.counters.count(counter)
      return
    }
    const { relayAddress, linkAddress, clock, send } = this.#options
    const headerBytes = ((packet[0] ?? 0) & 15) * 4 + 8
    const message = relayed(
      packet.subarray(headerBytes),
      clientAddress,
      relayAddress,
      linkSelection(linkAddress),
    )
    if (message === undefined) {
      this.counters.count('dhcp-relayed')
      return
    }
    const { transactionId } = parseDhcpRequest(packet)
    waiting.transactionId = transactionId
    waiting.askedMs = clock.nowMs()
    this.counters.count('dhcp-inform-relayed')
    send(message)
  }

  #refusal(packet: Uint8Array, clientAddress: number, waiting: Waiting): string | undefined {
    const fault = checkDhcpRequest(packet)
    if (fault) return `dhcp-malformed-${faultName(fault)}`
    const request = parseDhcpRequest(packet)
    if (request.messageType !== DhcpMessageType.inform) return 'dhcp-not-inform'
    const claimed = request.clientAddress
    if (claimed !== 0 && claimed !== clientAddress) return 'dhcp-other-address'
    const pauseMs = this.#options.clock.nowMs() - waiting.askedMs
    return pauseMs < shortestPauseMs ? 'dhcp-inform-too-often' : undefined
  }
}

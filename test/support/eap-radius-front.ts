/** A thin RADIUS front (RFC 3579) of EAP conversations on loopback, for `eapol_test` to talk to. */
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type { AuthenticationRequest, Verdict } from '../../lib/aaa/authenticator.ts'
import { sealResponse } from '../../lib/aaa/radius/authenticity.ts'
import { hideKey } from '../../lib/aaa/radius/hiding.ts'
import { AttributeList, bytesOf, bytesOfAll } from '../../lib/aaa/radius/wire/attributes.ts'
import {
  checkRadiusPacket,
  parseRadiusPacket,
  RadiusCode,
  type RadiusPacket,
} from '../../lib/aaa/radius/wire/packet.ts'
import { concatBytes } from '../../lib/core/bytes.ts'
import { Secret } from '../../lib/core/secret.ts'
import type { EapConversation, EapConversationMaker } from '../../lib/eap/conversation.ts'

const pieceBytes = 253

interface Call {
  readonly conversation: EapConversation
  readonly state: Uint8Array
}

export class EapRadiusFront {
  readonly secret = Secret.fromText('front-secret')
  readonly unexpected: string[] = []
  /** What the last conversation came to. */
  outcome = ''
  readonly #socket: Socket = createSocket('udp4')
  readonly #begin: EapConversationMaker
  readonly #judge: (request: AuthenticationRequest) => Verdict
  readonly #calls = new Map<string, Call>()
  #count = 0

  constructor(begin: EapConversationMaker, judge: (request: AuthenticationRequest) => Verdict) {
    this.#begin = begin
    this.#judge = judge
  }

  async listen(): Promise<number> {
    this.#socket.on('message', (bytes, { port, address }) => {
      this.#answer(Uint8Array.from(bytes))
        .then(reply => reply && this.#socket.send(reply, port, address))
        .catch((error: unknown) => this.unexpected.push(String(error)))
    })
    this.#socket.bind(0, '127.0.0.1')
    await once(this.#socket, 'listening')
    return this.#socket.address().port
  }

  close(): void {
    for (const { conversation } of this.#calls.values()) conversation.destroy()
    this.#socket.close()
  }

  async #answer(bytes: Uint8Array): Promise<Uint8Array | undefined> {
    if (checkRadiusPacket(bytes)) return undefined
    const packet = parseRadiusPacket(bytes)
    const message = concatBytes(...bytesOfAll(packet.attributes, 'EAP-Message'))
    const state = bytesOf(packet.attributes, 'State')
    const known = state && this.#calls.get(String(state))
    const call = known ?? this.#open(message[1] ?? 0)
    call.conversation.handle({ type: 'packet', bytes: message }, 0)
    return this.#drain(call, packet)
  }

  /** The peer has answered an Identity Request that the access point has sent. */
  #open(identifier: number): Call {
    const state = Uint8Array.of(this.#count >> 8, this.#count++)
    const conversation = this.#begin({
      call: { protocol: 'radius', peerAddress: '127.0.0.1', sessionId: String(state) },
      packetBytes: 1020,
      firstIdentifier: identifier,
    })
    conversation.handle({ type: 'start' }, 0)
    conversation.poll()
    const call = { conversation, state }
    this.#calls.set(String(state), call)
    return call
  }

  async #drain(call: Call, to: RadiusPacket): Promise<Uint8Array | undefined> {
    const { conversation } = call
    let message: Uint8Array | undefined
    let reply: Uint8Array | undefined
    for (let out = conversation.poll(); out !== undefined; out = conversation.poll()) {
      if (out.type === 'transmit') {
        message = out.bytes
        continue
      }
      const { event } = out
      switch (event.type) {
        case 'authenticate': {
          const verdict = this.#judge(event.request)
          conversation.handle({ type: 'verdict', ticket: event.ticket, verdict }, 0)
          break
        }
        case 'authorize': {
          const verdict = { type: 'accept', authorization: event.authorization } as const
          conversation.handle({ type: 'verdict', ticket: event.ticket, verdict }, 0)
          break
        }
        case 'pending':
          await event.settled
          conversation.handle({ type: 'wake', ticket: event.ticket }, 0)
          break
        case 'success':
          this.outcome = `success ${event.authorization.userName} by ${event.eapType}`
          reply = this.#seal(to, 'Access-Accept', message, event.msk, call.state)
          break
        case 'failure':
          this.outcome = `failure ${event.reason}`
          reply = this.#seal(to, 'Access-Reject', message, undefined, call.state)
          break
        case 'unexpected':
          this.unexpected.push(event.what)
          break
      }
    }
    if (reply !== undefined) return reply
    return message && this.#seal(to, 'Access-Challenge', message, undefined, call.state)
  }

  #seal(
    to: RadiusPacket,
    code: keyof typeof RadiusCode,
    message: Uint8Array | undefined,
    msk: Secret | undefined,
    state: Uint8Array,
  ): Uint8Array | undefined {
    const list = new AttributeList().bytes('State', state)
    for (let at = 0; message !== undefined && at < message.length; at += pieceBytes) {
      list.bytes('EAP-Message', message.slice(at, at + pieceBytes))
    }
    if (msk !== undefined) {
      const hide = (from: number, salt: number) =>
        hideKey(
          msk.expose().slice(from, from + 32),
          Uint8Array.of(0x80, salt),
          this.secret,
          to.authenticator,
        )
      list.bytes('MS-MPPE-Recv-Key', hide(0, 1)).bytes('MS-MPPE-Send-Key', hide(32, 2))
      msk.destroy()
    }
    const { attributes } = list
    const packet = { code: RadiusCode[code], identifier: to.identifier, attributes }
    return sealResponse(packet, to.authenticator, this.secret)
  }
}

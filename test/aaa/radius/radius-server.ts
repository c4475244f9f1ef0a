/** A RADIUS server for tests: it checks what it gets and answers as it was told. */
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import {
  checkAccessRequest,
  checkDynamicRequest,
  sealResponse,
} from '../../../lib/aaa/radius/authenticity.ts'
import type { RadiusServerEndpoint } from '../../../lib/aaa/radius/client.ts'
import {
  checkRadiusPacket,
  parseRadiusPacket,
  type RadiusAttribute,
  RadiusCode,
  type RadiusPacket,
} from '../../../lib/aaa/radius/wire/packet.ts'
import { systemRandom } from '../../../lib/core/random.ts'
import { Secret } from '../../../lib/core/secret.ts'

export const testSecret = Secret.fromText('a shared secret of the tests')

export interface TestReply {
  readonly code: number
  readonly attributes?: readonly RadiusAttribute[]
}

/** Undefined: say nothing. */
export type Answering = (request: RadiusPacket) => TestReply | undefined

/** The answer in bytes; throws when the request does not prove itself, since then a test is wrong. */
export function answerTo(
  bytes: Uint8Array,
  answering: Answering,
  secret = testSecret,
): Uint8Array | undefined {
  const fault = checkRadiusPacket(bytes)
  if (fault) throw new Error(`a malformed request: ${fault}`)
  const request = parseRadiusPacket(bytes)
  const isAccounting = request.code === RadiusCode['Accounting-Request']
  const disbelief = isAccounting
    ? checkDynamicRequest(bytes, secret, false)
    : checkAccessRequest(bytes, secret)
  if (disbelief !== undefined) throw new Error(`a request with ${disbelief}`)
  const reply = answering(request)
  if (reply === undefined) return undefined
  const { code, attributes = [] } = reply
  const { identifier, authenticator } = request
  return sealResponse({ code, identifier, attributes }, authenticator, secret)
}

/** On a UDP port of the loopback. */
export class TestRadiusServer {
  readonly #socket: Socket
  readonly requests: RadiusPacket[] = []
  readonly ports = new Set<number>()
  answering: Answering
  fault: Error | undefined

  private constructor(socket: Socket, answering: Answering) {
    this.#socket = socket
    this.answering = answering
    socket.on('message', (bytes, from) => {
      this.ports.add(from.port)
      try {
        const answer = answerTo(bytes, request => {
          this.requests.push(request)
          return this.answering(request)
        })
        if (answer !== undefined) socket.send(answer, from.port, from.address)
      } catch (error) {
        this.fault = error instanceof Error ? error : new Error(String(error))
      }
    })
  }

  static async open(answering: Answering): Promise<TestRadiusServer> {
    const socket = createSocket('udp4')
    socket.bind(0, '127.0.0.1')
    await once(socket, 'listening')
    return new TestRadiusServer(socket, answering)
  }

  get port(): number {
    return this.#socket.address().port
  }

  endpoint(settings: Partial<RadiusServerEndpoint> = {}): RadiusServerEndpoint {
    return { ...serverSettings, address: '127.0.0.1', port: this.port, ...settings }
  }

  close(): void {
    this.#socket.close()
  }
}

export const serverSettings = {
  secret: testSecret,
  needsMessageAuthenticator: true,
  score: 30,
  timeoutMs: 2000,
  tries: 2,
  deadTimeMs: 30_000,
  isProbed: true,
} as const

export const testRandom = systemRandom

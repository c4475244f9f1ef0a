/** The UDP port of dynamic authorization (RFC 5176 §2.1). */
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { isIPv6 } from 'node:net'
import { BindError, messageOf } from '../../core/errors.ts'
import type { DynamicAuthorization } from './dynamic-authorization.ts'

export class DynamicAuthorizationListener {
  readonly #judge: DynamicAuthorization
  readonly #sockets: Socket[] = []

  constructor(judge: DynamicAuthorization) {
    this.#judge = judge
  }

  /** Throws BindError. */
  async start(addresses: readonly string[], port: number): Promise<void> {
    for (const address of addresses) {
      const isV6 = isIPv6(address)
      const socket = createSocket({ type: isV6 ? 'udp6' : 'udp4', ipv6Only: isV6 })
      this.#sockets.push(socket)
      try {
        socket.bind(port, address)
        await once(socket, 'listening')
      } catch (error) {
        this.stop()
        throw new BindError(`radius.dynamic: ${address} port ${port}: ${messageOf(error)}`)
      }
      socket.on('error', () => this.#judge.counters.count('socket-error'))
      socket.on('message', (bytes, from) => {
        const answer = this.#judge.answer(bytes, from.address)
        if (answer === undefined) return
        socket.send(answer, from.port, from.address, error => {
          if (error !== null) this.#judge.counters.count('send-error')
        })
      })
    }
  }

  /** Of the first address; for tests that listen on port 0. */
  get port(): number {
    return this.#sockets[0]?.address().port ?? 0
  }

  stop(): void {
    for (const socket of this.#sockets.splice(0)) socket.close()
  }
}

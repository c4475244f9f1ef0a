/** A directory that is played: binds, searches by equality, StartTLS (RFC 4511), and what goes wrong. */
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { createSecureContext, createServer as createTlsServer, TLSSocket } from 'node:tls'
import { type DerElement, readDer, readDerList } from '../../../lib/certificates/der.ts'
import { concatBytes, utf8, utf8Text } from '../../../lib/core/bytes.ts'
import type { TestCertificate } from '../../support/sstp-certificates.ts'

export interface TestEntry {
  readonly dn: string
  readonly password?: string
  readonly attributes?: Readonly<Record<string, readonly string[]>>
}

export interface TestDirectoryOptions {
  readonly entries: readonly TestEntry[]
  readonly certificate?: TestCertificate
  /** TLS from the first byte. */
  readonly isTls?: boolean
  /** Instead of invalidCredentials: result code and text. */
  readonly refusal?: readonly [code: number, text: string]
  /** Takes connections and says nothing. */
  readonly isDeaf?: boolean
  /** Ends the connection once StartTLS is through. */
  readonly hangsUpAfterTls?: boolean
}

const invalidCredentials = 49

export class TestDirectory {
  readonly #options: TestDirectoryOptions
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  /** Name and password of each bind, and whether it came in clear. */
  readonly binds: {
    readonly name: string
    readonly password: string
    readonly isClear: boolean
  }[] = []
  /** Values of the filters. */
  readonly filters: string[] = []
  connections = 0

  constructor(options: TestDirectoryOptions) {
    this.#options = options
    const { isTls = false, certificate } = options
    const accept = (socket: Socket) => this.#accept(socket)
    this.#server =
      isTls && certificate !== undefined
        ? createTlsServer({ cert: certificate.cert, key: certificate.key.exposeText() }, accept)
        : createServer(accept)
    this.#server.on('tlsClientError', () => undefined)
  }

  /** Connections. */
  get open(): number {
    return this.#sockets.size
  }

  async listen(): Promise<string> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    const address = this.#server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    return `${this.#options.isTls === true ? 'ldaps' : 'ldap'}://127.0.0.1:${port}`
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
  }

  #accept(socket: Socket): void {
    this.connections++
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    this.#read(socket, this.#options.isTls !== true)
  }

  #read(socket: Socket, isClear: boolean): void {
    let held: Uint8Array = new Uint8Array(0)
    const onData = (chunk: Buffer) => {
      if (this.#options.isDeaf === true) return
      held = concatBytes(held, Uint8Array.from(chunk))
      for (let one = readDer(held); one !== undefined; one = readDer(held)) {
        held = held.slice(one.whole.length)
        const [id, operation] = readDerList(one.content, 3) ?? []
        if (id === undefined || operation === undefined) throw new Error('no message of LDAP')
        if (operation.tag === 0x77) {
          socket.off('data', onData)
          this.#startTls(socket, id)
          return
        }
        const answers = this.#answer(operation, isClear)
        for (const answer of answers) socket.write(tlv(0x30, id.whole, answer))
      }
    }
    socket.on('data', onData)
    socket.on('error', () => undefined)
  }

  #startTls(socket: Socket, id: DerElement): void {
    const { certificate, hangsUpAfterTls } = this.#options
    if (certificate === undefined) {
      socket.write(tlv(0x30, id.whole, result(0x78, 2, 'no TLS here')))
      this.#read(socket, true)
      return
    }
    socket.write(tlv(0x30, id.whole, result(0x78, 0)))
    const secure = new TLSSocket(socket, {
      isServer: true,
      secureContext: createSecureContext({
        cert: certificate.cert,
        key: certificate.key.exposeText(),
      }),
    })
    secure.on('error', () => undefined)
    if (hangsUpAfterTls === true) secure.on('secure', () => socket.destroy())
    this.#read(secure, false)
  }

  #answer({ tag, content }: DerElement, isClear: boolean): Uint8Array[] {
    const parts = readDerList(content, 10) ?? []
    const text = (index: number) => utf8Text(parts[index]?.content ?? new Uint8Array(0))
    if (tag === 0x60) return [this.#bind(text(1), text(2), isClear)]
    if (tag !== 0x63) return []
    const [attribute, value] = (parts[6] && readDerList(parts[6].content, 2)) ?? []
    if (parts[6]?.tag !== 0xa3 || attribute === undefined || value === undefined) {
      return this.#found(this.#options.entries.filter(({ dn }) => dn === text(0)))
    }
    const [name, wanted] = [utf8Text(attribute.content), utf8Text(value.content)]
    this.filters.push(wanted)
    return this.#found(
      this.#options.entries.filter(
        ({ dn, attributes }) =>
          dn.endsWith(text(0)) && attributes?.[name]?.includes(wanted) === true,
      ),
    )
  }

  #bind(name: string, password: string, isClear: boolean): Uint8Array {
    this.binds.push({ name, password, isClear })
    // RFC 4513 §5.1.2: as many servers have it, to their users' sorrow.
    if (password === '') return result(0x61, 0)
    const isRight = this.#options.entries.some(
      entry => entry.dn === name && entry.password === password,
    )
    const [code, text] = this.#options.refusal ?? [invalidCredentials, 'Invalid credentials']
    return isRight ? result(0x61, 0) : result(0x61, code, text)
  }

  #found(entries: readonly TestEntry[]): Uint8Array[] {
    const shown = entries.map(({ dn, attributes = {} }) =>
      tlv(
        0x64,
        tlv(0x04, utf8(dn)),
        tlv(
          0x30,
          ...Object.entries(attributes).map(([name, values]) =>
            tlv(0x30, tlv(0x04, utf8(name)), tlv(0x31, ...values.map(one => tlv(0x04, utf8(one))))),
          ),
        ),
      ),
    )
    return [...shown, result(0x65, 0)]
  }
}

function result(tag: number, code: number, text = ''): Uint8Array {
  return tlv(tag, tlv(0x0a, Uint8Array.of(code)), tlv(0x04, utf8('')), tlv(0x04, utf8(text)))
}

function tlv(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = concatBytes(...parts)
  const { length } = content
  const header =
    length < 0x80
      ? [tag, length]
      : length < 0x100
        ? [tag, 0x81, length]
        : [tag, 0x82, length >> 8, length & 0xff]
  return concatBytes(Uint8Array.from(header), content)
}

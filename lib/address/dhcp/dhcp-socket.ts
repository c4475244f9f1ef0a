/** The UDP socket of a DHCP relay agent: port 67, to and from the servers that were named (RFC 1542 §4). */
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { SystemError } from '../../core/errors.ts'
import { Counters } from '../../core/faults.ts'
import { formatIpv4, parseIpv4 } from '../../core/ip-address.ts'
import { SERVER_PORT } from '../wire/dhcp.ts'

/** Longest message that is looked at, bytes. */
const longestBytes = 4096

export interface DhcpSocketOptions {
  /** Host order. */
  readonly servers: readonly number[]
  /** Ours, that servers answer to; absent: that which leads to the first of them. */
  readonly relayAddress?: number
  /** 67 but for tests; a relay agent's is that of servers. */
  readonly port?: number
}

export class DhcpSocket {
  readonly counters = new Counters()
  readonly relayAddress: number
  readonly #socket: Socket
  readonly #servers: readonly number[]
  readonly #port: number

  private constructor(socket: Socket, relayAddress: number, options: DhcpSocketOptions) {
    this.#socket = socket
    this.relayAddress = relayAddress
    this.#servers = options.servers
    this.#port = options.port ?? SERVER_PORT
    socket.on('error', () => this.counters.count('dhcp-socket-error'))
  }

  /** Throws SystemError when the port or the address cannot be had. */
  static async open(options: DhcpSocketOptions): Promise<DhcpSocket> {
    const { port = SERVER_PORT, servers } = options
    const relayAddress = options.relayAddress ?? (await addressTowards(servers[0] ?? 0, port))
    const socket = createSocket('udp4')
    try {
      socket.bind(port, formatIpv4(relayAddress))
      await once(socket, 'listening')
    } catch (cause) {
      socket.close()
      throw new SystemError(`cannot open UDP ${formatIpv4(relayAddress)}:${port} for DHCP`, {
        cause,
      })
    }
    return new DhcpSocket(socket, relayAddress, options)
  }

  /** What servers send from here on. */
  listen(receive: (bytes: Uint8Array) => void): void {
    this.#socket.on('message', (bytes, { address, port }) => {
      const isServer = port === this.#port && this.#servers.includes(parseIpv4(address) ?? 0)
      if (!isServer) this.counters.count('dhcp-from-stranger')
      else if (bytes.length > longestBytes) this.counters.count('dhcp-malformed-oversize')
      else receive(bytes)
    })
  }

  /** To one of them, or to all. One that we were not told of gets nothing. */
  send(bytes: Uint8Array, server?: number): void {
    for (const one of this.#servers) {
      if (server !== undefined && server !== one && this.#servers.includes(server)) continue
      this.#socket.send(bytes, this.#port, formatIpv4(one), error => {
        if (error !== null) this.counters.count('dhcp-unsent')
      })
    }
  }

  /** What was sent before goes out first. */
  async close(): Promise<void> {
    await new Promise<void>(resolve => setImmediate(resolve))
    await new Promise<void>(resolve => this.#socket.close(() => resolve()))
  }
}

/** Our address on the way to a host, as the kernel's routes have it. */
async function addressTowards(host: number, port: number): Promise<number> {
  const probe = createSocket('udp4')
  try {
    probe.connect(port, formatIpv4(host))
    await once(probe, 'connect')
    return parseIpv4(probe.address().address) ?? 0
  } catch (cause) {
    throw new SystemError(`no route to the DHCP server ${formatIpv4(host)}`, { cause })
  } finally {
    probe.close()
  }
}

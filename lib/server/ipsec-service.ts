/** What all of IPsec shares in one server: the sockets, the datagrams on them, and the ESP SAs. */
import type { Config } from '../config.ts'
import type { Logger } from '../core/log.ts'
import { DatagramHub } from '../dataplane/datagram-hub.ts'
import type { DatagramPlane } from '../dataplane/datagrams.ts'
import { TcpListener } from '../ikev2/tcp-listener.ts'
import { type EspOwner, EspReceiver } from '../ipsec/esp-receiver.ts'
import { IkeSockets } from '../ipsec/ike-sockets.ts'
import { SaDatabase } from '../ipsec/sa-database.ts'
import type { NetworkServices } from './ppp-network.ts'

export class IpsecService {
  readonly database = new SaDatabase<EspOwner>()
  readonly plane: DatagramPlane
  readonly sockets: IkeSockets
  /** Where IKEv2 is taken over TCP. */
  readonly streams: TcpListener | undefined
  readonly #config: Config

  /** Opens nothing yet; without a `plane` the sockets are the kernel's. Throws SystemError. */
  constructor(
    config: Config,
    { dataplane, clock }: NetworkServices,
    log: Logger,
    plane: DatagramPlane = new DatagramHub(dataplane, clock),
  ) {
    const { memory } = dataplane
    const { isEnabled, tcpPort } = config.ikev2
    const hasStreams = isEnabled && tcpPort > 0
    this.#config = config
    this.streams = hasStreams ? new TcpListener({ plane, dataplane }) : undefined
    this.plane = this.streams ?? plane
    this.sockets = new IkeSockets({
      plane: this.plane,
      memory,
      esp: new EspReceiver(memory, this.database),
      hosts: config.server.listen,
      takesPlainEsp: config.ikev2.takesPlainEsp,
      onLost: reason => log.error({ event: 'socket-lost', reason }, 'an ipsec socket is gone'),
    })
  }

  /** Throws BindError. */
  open(): void {
    this.sockets.open()
  }

  /** After `open`. Rejects with BindError. */
  async openStreams(): Promise<void> {
    const { ikev2, server } = this.#config
    await this.streams?.listen(server.listen, ikev2.tcpPort)
  }

  async close(): Promise<void> {
    this.sockets.close()
    await this.streams?.close()
  }
}

/** Between paths as IKE knows them, in text, and routes as the sockets know them, in numbers. */
import type { DatagramRoute, Envelope } from '../dataplane/datagrams.ts'
import { type IkeSockets, NAT_TRAVERSAL_PORT } from '../ipsec/ike-sockets.ts'
import type { Path } from './path.ts'

/**
 * Among the addresses of sockets the ports of TCP stand above those of UDP, so that neither is taken for
 * the other. Paths have them as they are.
 */
export const STREAM_PORTS = 0x10000

export function pathOf({ local, peer, port }: Envelope): Path {
  if (peer.port < STREAM_PORTS) {
    return {
      local: { address: local.text, port: port.number },
      peer: { address: peer.text, port: peer.port },
    }
  }
  return {
    local: { address: local.text, port: local.port - STREAM_PORTS, isTcp: true },
    peer: { address: peer.text, port: peer.port - STREAM_PORTS, isTcp: true },
  }
}

/** Undefined when no socket is open there. */
export function routeTo(sockets: IkeSockets, { local, peer }: Path): DatagramRoute | undefined {
  if (peer.isTcp !== true) return sockets.routeTo(local, peer)
  return sockets.routeTo(
    { address: local.address, port: NAT_TRAVERSAL_PORT },
    { address: peer.address, port: peer.port + STREAM_PORTS },
  )
}

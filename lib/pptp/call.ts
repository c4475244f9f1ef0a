/** One call as PPP sees it: control frames and packets through GRE, the end through the control connection. */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import type { PacketSink } from '../core/packet-sink.ts'
import type { Carrier, FrameSealer, Link } from '../ppp/carrier.ts'
import type { GreCall } from './gre-call.ts'

/** 1500 bytes of Ethernet without IP, GRE with both numbers, and the PPP header; what others use, too. */
const MRU_BYTES = 1436

export interface CallPeer {
  readonly address: string
  readonly port: number
}

export interface CallOwner {
  /** PPP is over: end the call on the wire. */
  endCall(callId: number, cause: DisconnectCause): void
  countDroppedControl(): void
}

export class Call implements Carrier {
  readonly protocol = 'pptp'
  readonly peerAddress: string
  readonly peerLabel: string
  readonly mruBytes = MRU_BYTES
  readonly sink: PacketSink
  readonly gre: GreCall
  readonly #callId: number
  readonly #owner: CallOwner
  #isOver = false

  constructor(peer: CallPeer, callId: number, gre: GreCall, owner: CallOwner) {
    this.peerAddress = peer.address
    this.peerLabel = `${peer.address}:${peer.port}`
    this.gre = gre
    this.sink = gre
    this.#callId = callId
    this.#owner = owner
  }

  /** Gives the call its link; traffic is permitted at once, since PPTP binds nothing. */
  begin(link: Link): void {
    if (this.#isOver) return
    this.gre.link = link
    this.gre.permit(true)
    link.permitTraffic()
  }

  /** The call is gone on the wire: PPP hears of it, once. */
  lose(cause: DisconnectCause): void {
    const { link } = this.gre
    this.#isOver = true
    this.gre.close()
    link?.carrierLost(cause)
  }

  // Carrier

  setMtu(mtuBytes: number): void {
    this.gre.mtuBytes = mtuBytes
  }

  setSealer(sealer: FrameSealer): void {
    this.gre.setSealer(sealer)
  }

  sendFrame(frame: Uint8Array): void {
    // Packets that were committed before this frame also leave before it: one queue holds both.
    if (!this.gre.sendFrame(frame)) this.#owner.countDroppedControl()
  }

  /** PPTP has nothing to bind to a proof. */
  authenticated(): void {}

  close(cause: DisconnectCause): void {
    if (this.#isOver) return
    this.#isOver = true
    this.gre.close()
    this.#owner.endCall(this.#callId, cause)
  }
}

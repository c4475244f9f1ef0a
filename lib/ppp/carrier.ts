/**
 * The seam between PPP and the tunnels that carry it. A tunnel implements `Carrier` and is given a
 * `Link`; neither knows more of the other. Any tunnel that keeps this contract gets the whole of PPP,
 * users, addresses, accounting and the dataplane.
 */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import type { PacketSink } from '../core/packet-sink.ts'

/**
 * Makes PPP frames of IP packets, by numbers: plain, encrypted or compressed. PPP says which; the
 * tunnel's sink calls it for each packet.
 */
export interface FrameSealer {
  /** How far in front of an IP packet its frame begins, bytes. */
  readonly headerBytes: number
  /**
   * Makes a frame of the IP packet at `at`, in place; it begins at `at - headerBytes`. Returns its
   * length, or 0: nothing may be sent, and the drop is counted.
   */
  seal(at: number, lengthBytes: number): number
}

/** What PPP knows of a tunnel. */
export interface Carrier {
  /** Name of the protocol for people and counters. PPP does not compare it. */
  readonly protocol: string
  /** Address of the peer as the tunnel sees it, without port: limits, logs, Calling-Station-Id. */
  readonly peerAddress: string
  /** Address and port for people. */
  readonly peerLabel: string
  /** Largest PPP information field that fits into one tunnel packet, bytes. */
  readonly mruBytes: number
  /** Where IP packets to the peer go. The tunnel writes its own and the PPP header. */
  readonly sink: PacketSink

  /** The largest IP packet that the peer takes, bytes: what `sink.mtuBytes` says from now on. */
  setMtu(mtuBytes: number): void

  /** The tunnel protects what it carries by itself: CCP is refused on it. */
  readonly isProtected?: true

  /**
   * From now on IP packets are made frames by `sealer`: protected by PPP, or cut for a bundle. A
   * tunnel without it writes plain PPP headers; CCP and multilink are refused on it.
   */
  setSealer?(sealer: FrameSealer): void

  /** Sends one PPP frame, from the address field on (FF 03 C0 21 …). Control frames only; never dropped. */
  sendFrame(frame: Uint8Array): void

  /**
   * The peer has proved who it is, or we have proved ourselves to it. `higherLayerKey` is the 32-byte
   * higher-layer authentication key ([MS-SSTP] §3.2.5.2.2), zeros when the method makes no keys.
   */
  authenticated(higherLayerKey: Uint8Array): void

  /** PPP is over: close the tunnel in its own orderly way. `Link.carrierLost` is not called after this. */
  close(cause: DisconnectCause): void
}

/** What a tunnel knows of PPP. */
export interface Link {
  /**
   * A PPP frame from the peer, with or without address and control field, in pinned memory. Called per
   * packet: IP goes straight to the dataplane, everything else to the PPP engine.
   */
  receive(at: number, lengthBytes: number): void

  /**
   * IP may flow from now on, if the network protocols are up. Until this call IP is dropped both ways
   * and counted, whatever PPP has negotiated (SSTP waits for its crypto binding).
   */
  permitTraffic(): void

  /** The tunnel broke or was closed by the peer. Nothing can be sent any more. */
  carrierLost(cause: DisconnectCause): void
}

/** Makes links: the server answers calls with one, a dialler dials with another. */
export interface LinkFactory {
  /** Undefined refuses the call before any PPP: too many sessions, draining, source locked out. */
  open(carrier: Carrier): Link | undefined
}

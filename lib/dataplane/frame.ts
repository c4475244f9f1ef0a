/**
 * One packet or super-packet on its way from or to a device: where its pieces stand in packet
 * memory, and what the kernel's virtio_net_hdr says of it (linux/virtio_net.h). Frames are made once
 * and filled again and again.
 */

/** A super-packet of 64 KiB and 512-byte segments. */
export const maxPieces = 128

/** VIRTIO_NET_HDR_GSO_…: what kind of super-packet it is. */
export const Gso = { none: 0, tcp4: 1, tcp6: 4, udp: 5 } as const

/** An IP packet, at most. */
export const maxFrameBytes = 65_535

export class Frame {
  readonly pieceAt: Int32Array = new Int32Array(maxPieces)
  readonly pieceBytes: Int32Array = new Int32Array(maxPieces)
  pieceCount = 0
  lengthBytes = 0
  /** One of `Gso`. */
  gsoType = 0
  /** Payload bytes of each packet that the super-packet stands for. */
  segmentBytes = 0
  /** Bytes of all headers in front of the payload; a hint, not to be trusted. */
  headerBytes = 0
  /** The transport checksum field holds the sum of the pseudo header only and must be completed. */
  needsChecksum = false
  /** Where the sum begins, bytes from the start of the packet. */
  checksumStart = 0
  /** Where the field is, bytes from `checksumStart`. */
  checksumOffset = 0

  /** Makes it a whole packet in one piece. */
  setPacket(at: number, lengthBytes: number): void {
    this.pieceAt[0] = at
    this.pieceBytes[0] = lengthBytes
    this.pieceCount = 1
    this.lengthBytes = lengthBytes
    this.gsoType = Gso.none
    this.segmentBytes = 0
    this.headerBytes = 0
    this.needsChecksum = false
    this.checksumStart = 0
    this.checksumOffset = 0
  }

  /** Adds a piece behind the others; the caller keeps within `maxPieces`. */
  append(at: number, lengthBytes: number): void {
    this.pieceAt[this.pieceCount] = at
    this.pieceBytes[this.pieceCount] = lengthBytes
    this.pieceCount++
    this.lengthBytes += lengthBytes
  }

  /** Takes over everything but the pieces. */
  setMetadata(from: Frame): void {
    this.gsoType = from.gsoType
    this.segmentBytes = from.segmentBytes
    this.headerBytes = from.headerBytes
    this.needsChecksum = from.needsChecksum
    this.checksumStart = from.checksumStart
    this.checksumOffset = from.checksumOffset
  }
  /** Takes over pieces and metadata. */
  takeFrom(from: Frame): void {
    const count = from.pieceCount
    for (let i = 0; i < count; i++) {
      this.pieceAt[i] = from.pieceAt[i] ?? 0
      this.pieceBytes[i] = from.pieceBytes[i] ?? 0
    }
    this.pieceCount = count
    this.lengthBytes = from.lengthBytes
    this.setMetadata(from)
  }
}

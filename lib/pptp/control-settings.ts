/** What a control connection is told when it is made. */

export interface ControlTiming {
  readonly setupMs: number
  readonly partialMs: number
  readonly idleMs: number
  readonly callReplyMs: number
}

export const defaultTiming: ControlTiming = {
  setupMs: 10_000,
  partialMs: 10_000,
  idleMs: 30_000,
  callReplyMs: 30_000,
}

/** What a client says of itself where clients differ. */
export interface ClientHabits {
  readonly firmwareRevision?: number
  readonly maxChannels?: number
  readonly vendorName?: string
  readonly framing?: number
  readonly bearer?: number
  readonly windowPackets?: number
  readonly minimumBps?: number
  readonly maximumBps?: number
}

export interface ControlSettings {
  readonly role: 'server' | 'client'
  readonly hostName: string
  readonly maxCalls: number
  readonly timing?: Partial<ControlTiming>
  readonly habits?: ClientHabits
  /** A call id that no live call of ours has, 1 to 65,535; 0 when there is none. */
  takeCallId(): number
}

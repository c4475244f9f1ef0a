/** Bytes that must not be seen: passwords, hashes, keys. */
import { inspect } from 'node:util'
import { equalBytes, utf8, utf8Text } from './bytes.ts'

const shown = '[secret]'

/** One for all: ciphers that authenticate have no second key, and there are thousands of them. */
const nothing = new Uint8Array(0)

/**
 * Holds secret bytes so that no log line, JSON document, template string or inspection prints them.
 * `destroy` overwrites them; what is read afterwards is empty.
 */
export class Secret {
  #bytes: Uint8Array

  /** Takes a copy; the caller may wipe its own. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes.length === 0 ? nothing : new Uint8Array(bytes)
  }

  static fromText(text: string): Secret {
    return new Secret(utf8(text))
  }

  /** The bytes themselves, not a copy: do not keep them. */
  expose(): Uint8Array {
    return this.#bytes
  }

  /**
   * Lends a copy for as long as `work` takes. Libraries move the memory that they are given off the
   * heap, where it takes several times the room: what lasts is kept from them.
   */
  lend<Result>(work: (bytes: Uint8Array) => Result): Result {
    const copy = new Uint8Array(this.#bytes)
    try {
      return work(copy)
    } finally {
      copy.fill(0)
    }
  }

  exposeText(): string {
    return utf8Text(this.#bytes)
  }

  get length(): number {
    return this.#bytes.length
  }

  equals(other: Secret): boolean {
    return equalBytes(this.#bytes, other.#bytes)
  }

  destroy(): void {
    this.#bytes.fill(0)
    this.#bytes = nothing
  }

  toString(): string {
    return shown
  }

  toJSON(): string {
    return shown
  }

  [inspect.custom](): string {
    return shown
  }
}

/** Overwrites temporaries that held key material. */
export function wipe(...arrays: Uint8Array[]): void {
  for (const array of arrays) array.fill(0)
}

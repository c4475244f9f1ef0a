/** Cuts a stream of bytes into lines, and refuses a line that does not end. */

const lineFeed = 0x0a

export class LineSplitter {
  readonly #maxLineBytes: number
  #parts: Uint8Array[] = []
  #heldBytes = 0

  constructor(maxLineBytes: number) {
    this.#maxLineBytes = maxLineBytes
  }

  /** The lines that `chunk` completes, without their line feeds; undefined when one is too long. */
  push(chunk: Uint8Array): string[] | undefined {
    const lines: string[] = []
    let from = 0
    for (let end = chunk.indexOf(lineFeed); end >= 0; end = chunk.indexOf(lineFeed, from)) {
      if (!this.#hold(chunk.subarray(from, end))) return undefined
      lines.push(Buffer.concat(this.#parts).toString('utf8'))
      this.#parts = []
      this.#heldBytes = 0
      from = end + 1
    }
    return this.#hold(chunk.subarray(from)) ? lines : undefined
  }

  #hold(part: Uint8Array): boolean {
    this.#heldBytes += part.length
    if (this.#heldBytes > this.#maxLineBytes) return false
    if (part.length > 0) this.#parts.push(part)
    return true
  }
}

/** The version of the product: that of package.json, two folders up from the compiled file or one. */
import { readFileSync } from 'node:fs'

function readVersion(): string {
  for (const place of ['../../package.json', '../../../package.json']) {
    try {
      const parsed: unknown = JSON.parse(readFileSync(new URL(place, import.meta.url), 'utf8'))
      if (parsed !== null && typeof parsed === 'object' && 'version' in parsed) {
        return String(parsed.version)
      }
    } catch {
      // Not there: the other place has it.
    }
  }
  return 'unknown'
}

export const productVersion = readVersion()

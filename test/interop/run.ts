/**
 * The interop suite: stock clients in virtual machines against the built server. `run.js [NAME...]`
 * runs the cases whose names start so. At the end stands again what failed; the last line is `N passed,
 * N failed`, and the exit code is 1 when something failed. Logs of a failed run are kept, and their place
 * is said.
 */
import { aaaCases } from './aaa-cases.ts'
import { dhcpCases } from './dhcp-cases.ts'
import { ikev2Cases } from './ikev2-cases.ts'
import { CaseContext, type InteropCase } from './interop-case.ts'
import { l2tpCases } from './l2tp-cases.ts'
import { TestCa } from './lab/certificates.ts'
import { Lab } from './lab/lab.ts'
import { setUpLab } from './lab/setup.ts'
import { policyCases } from './policy-cases.ts'
import { pptpCases } from './pptp-cases.ts'
import { radiusCases } from './radius-cases.ts'
import { sstpCases } from './sstp-cases.ts'

const allCases = [
  ...sstpCases,
  ...ikev2Cases,
  ...pptpCases,
  ...l2tpCases,
  ...radiusCases,
  ...aaaCases,
  ...policyCases,
  ...dhcpCases,
]

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** Most of a case is waiting, so several run side by side, each lane in a lab of its own. */
const lanes = 2

class Lane {
  readonly #lab = new Lab()
  readonly #ca = new TestCa(this.#lab.folder)
  #closing: Promise<void> | undefined
  passed = 0
  readonly failures: string[] = []

  /** Takes cases from `queue` until it is empty. Never rejects. */
  async run(queue: InteropCase[]): Promise<void> {
    for (let one = queue.shift(); one !== undefined; one = queue.shift()) {
      const context = new CaseContext(one.name, this.#lab, this.#ca, say)
      await context.check('runs to its end', () => one.run(context))
      await context.finish()
      this.passed += context.passed
      this.failures.push(...context.failures)
    }
  }

  /** Leaves the logs where something failed. */
  close(): Promise<void> {
    const isFailure = this.failures.length > 0
    this.#closing ??= this.#lab.close(isFailure)
    if (isFailure) say(`logs are in ${this.#lab.folder}`)
    return this.#closing
  }
}

async function main(names: readonly string[]): Promise<number> {
  const chosen = allCases.filter(
    ({ name }) => names.length === 0 || names.some(wanted => name.startsWith(wanted)),
  )
  if (chosen.length === 0) {
    say(`there is no case ${names.join(', ')}: ${allCases.map(({ name }) => name).join(', ')}`)
    return 2
  }
  await setUpLab(say)
  const running = chosen.slice(0, lanes).map(() => new Lane())
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      say(`interop: ${signal}, cleaning up`)
      void Promise.all(running.map(lane => lane.close())).finally(() => process.exit(130))
    })
  }
  await Promise.all(running.map(lane => lane.run(chosen)))
  await Promise.all(running.map(lane => lane.close()))
  const passed = running.reduce((sum, lane) => sum + lane.passed, 0)
  const failures = running.flatMap(lane => lane.failures)
  for (const failure of failures) say(`failed: ${failure}`)
  say(`${passed} passed, ${failures.length} failed`)
  return failures.length === 0 ? 0 : 1
}

process.exitCode = await main(process.argv.slice(2))

/**
 * The interop suite: stock clients in virtual machines against the built server. `run.js [NAME...]`
 * runs the cases whose names start so. The last line is `N passed, N failed`; the exit code is 1 when
 * something failed. Logs of a failed run are kept, and their place is said.
 */
import { messageOf } from '../../lib/core/errors.ts'
import { ikev2Cases } from './ikev2-cases.ts'
import { CaseContext } from './interop-case.ts'
import { l2tpCases } from './l2tp-cases.ts'
import { TestCa } from './lab/certificates.ts'
import { Lab } from './lab/lab.ts'
import { setUpLab } from './lab/setup.ts'
import { pptpCases } from './pptp-cases.ts'
import { sstpCases } from './sstp-cases.ts'

const allCases = [...sstpCases, ...ikev2Cases, ...pptpCases, ...l2tpCases]

function say(text: string): void {
  process.stdout.write(`${text}\n`)
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
  const lab = new Lab()
  let [passed, failed] = [0, 0]
  let isClosed = false
  const close = async (isKept: boolean) => {
    if (isClosed) return
    isClosed = true
    await lab.close(isKept)
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      say(`interop: ${signal}, cleaning up`)
      void close(false).finally(() => process.exit(130))
    })
  }
  try {
    const ca = new TestCa(lab.folder)
    for (const one of chosen) {
      const context = new CaseContext(one.name, lab, ca, say)
      try {
        await one.run(context)
      } catch (error) {
        await context.check('runs to its end', () => {
          throw error
        })
      }
      await context.finish()
      passed += context.passed
      failed += context.failed
    }
  } catch (error) {
    failed++
    say(`interop: ${messageOf(error)}`)
  } finally {
    await close(failed > 0)
  }
  if (failed > 0) say(`logs are in ${lab.folder}`)
  say(`${passed} passed, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

process.exitCode = await main(process.argv.slice(2))

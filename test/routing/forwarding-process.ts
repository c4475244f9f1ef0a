/** Owns one `Forwarding` in its own process and network namespace; see router.ts. */
import { createInterface } from 'node:readline'
import { messageOf } from '../../lib/core/errors.ts'
import { Forwarding, type ForwardingSettings } from '../../lib/routing/forwarding.ts'

type Question =
  | { command: 'apply'; settings: ForwardingSettings }
  | { command: 'revert' }
  | { command: 'recover' }

const forwarding = new Forwarding(process.argv[2])

async function answer(question: Question): Promise<unknown> {
  switch (question.command) {
    case 'apply':
      return forwarding.apply(question.settings)
    case 'revert':
      return forwarding.revert()
    case 'recover':
      return forwarding.recover()
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  try {
    const value = await answer(JSON.parse(line) as Question)
    process.stdout.write(`${JSON.stringify({ ok: true, value: value ?? null })}\n`)
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ ok: false, value: messageOf(error) })}\n`)
  }
}

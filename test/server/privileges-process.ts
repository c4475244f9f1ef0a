/** Drops privileges and says what every thread of the process holds afterwards. */
import { readdirSync, readFileSync } from 'node:fs'
import { currentPrivileges, dropPrivileges } from '../../lib/server/privileges.ts'

dropPrivileges()
const threads = readdirSync('/proc/self/task').map(thread => {
  const { effective, bounding, noNewPrivileges } = currentPrivileges(
    readFileSync(`/proc/self/task/${thread}/status`, 'utf8'),
  )
  return { effective: `${effective}`, bounding: `${bounding}`, noNewPrivileges }
})
process.stdout.write(JSON.stringify({ threads, args: process.argv.slice(2), pid: process.pid }))

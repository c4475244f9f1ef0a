/** `openras version`. */

import { productVersion } from '../../lib/server/version.ts'
import { type Command, ExitCode } from '../command.ts'

export const version: Command = {
  name: 'version',
  synopsis: 'version',
  summary: 'print the version',
  help: 'Prints the version of OpenRAS and of Node.',
  run: async () => {
    process.stdout.write(`openras ${productVersion} (node ${process.versions.node})\n`)
    return ExitCode.success
  },
}

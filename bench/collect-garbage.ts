/**
 * Loaded into a server by `node --import`: SIGUSR2 collects its garbage. What a call takes can then be
 * told from what set-ups have left lying about, which is megabytes more or less from run to run.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

process.on('SIGUSR2', () => {
  // The second one takes what the finalizers of the first have let go.
  collect()
  collect()
})

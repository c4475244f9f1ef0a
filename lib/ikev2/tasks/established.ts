/** The moment both sides have proved themselves. */

import { keyExchangeTransform, prfTransform } from '../../crypto/transforms.ts'
import type { ConfigurationGrant } from '../configuration.ts'
import type { Authenticated, Connection } from '../connection.ts'
import { describeEncryption } from '../suite.ts'
import { startIkeClocks } from './ike-rekey.ts'

/** The only writer of the state `established`. */
export function establish(
  connection: Connection,
  authenticated: Authenticated,
  configuration: ConfigurationGrant,
  nowMs: number,
): void {
  const suite = connection.associations[0]?.suite
  connection.state = 'established'
  connection.timers.clear('setup')
  startIkeClocks(connection, nowMs)
  const { livenessMs } = connection.options.timing
  if (livenessMs > 0) connection.timers.set('liveness', nowMs + livenessMs)
  connection.emit({
    type: 'established',
    authenticatedBy: authenticated.by,
    identity: authenticated.identity,
    userName: authenticated.userName,
    authorization: authenticated.authorization,
    configuration,
    suite: suite
      ? [
          describeEncryption(suite),
          prfTransform(suite.prf.id)?.name,
          keyExchangeTransform(suite.keyExchangeId)?.name,
        ].join('/')
      : '',
    path: connection.path,
    isPeerBehindNat: connection.nat?.isPeerBehindNat === true,
    usesMobike: connection.peer.mobike,
    isWindows: connection.peer.isWindows,
  })
}

import type { NetworkInterfaceInfo } from 'node:os'
import t from 'tap'
import { dialableAddresses } from '../../lib/server/server-certificates.ts'

const at = (address: string, internal = false) => ({ address, internal }) as NetworkInterfaceInfo

t.test('clients dial what is neither loopback, link-local nor an end of our tunnels', async t => {
  const interfaces = {
    lo: [at('127.0.0.1', true), at('::1', true)],
    eth0: [at('198.51.100.7'), at('fe80::1'), at('2001:db8::7')],
    ras0: [at('10.87.0.1')],
    ras12: [at('10.88.0.1')],
    ras: [at('198.51.100.8')],
    ras1b: [at('198.51.100.9')],
  }
  t.same(dialableAddresses(interfaces, 'ras%d'), [
    ...['198.51.100.7', '198.51.100.8', '198.51.100.9', '2001:db8::7'],
  ])
  t.same(dialableAddresses(interfaces, 'ras1b'), [
    ...['10.87.0.1', '10.88.0.1', '198.51.100.7', '198.51.100.8', '2001:db8::7'],
  ])
})

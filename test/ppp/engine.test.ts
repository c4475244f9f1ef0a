import t from 'tap'
import { Pair } from './ppp-pair.ts'

for (const method of ['mschapv2', 'chap-md5', 'pap'] as const) {
  t.test(`client and server agree with ${method}, on a perfect link within a second`, async t => {
    const pair = new Pair({ server: { authentication: [method] } }).open()
    t.ok(pair.run(1000, () => pair.isUp() && pair.client.of('ipv6-up').length > 0))
  })
}

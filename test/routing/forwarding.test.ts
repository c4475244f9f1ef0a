import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { MissingToolError, SystemError } from '../../lib/core/errors.ts'
import { parseIpv4Network } from '../../lib/core/ip-address.ts'
import { runTool } from '../../lib/routing/command.ts'
import type { ForwardingSettings } from '../../lib/routing/forwarding.ts'
import { deleteTable, formatRuleset, tableName } from '../../lib/routing/ruleset.ts'
import { beyondAddress, isRoot, Router, tunName } from './router.ts'

const network = parseIpv4Network('10.91.0.0/24') ?? { address: 0, prefixLength: 32 }
const settings: ForwardingSettings = {
  tunName,
  access: 'all',
  ipv4Networks: [network],
  hasIpv6: true,
  natInterface: 'wan0',
}
const needsRoot = isRoot ? {} : { skip: 'network namespaces need root' }
const prefix = `rt${process.pid}`

t.test('the ruleset is one transaction on a table of its own', async t => {
  const text = formatRuleset({
    tunName: 'ras0',
    access: 'all',
    natNetworks: [network, { address: 0xc0a80000, prefixLength: 16 }],
    natInterface: 'eth0',
  })
  t.ok(text.startsWith(deleteTable('openras_ras0')), 'what a killed server left goes first')
  t.match(text, 'ip saddr { 10.91.0.0/24, 192.168.0.0/16 } oifname "eth0" counter masquerade')
  t.notMatch(text, 'chain forward', 'nothing is dropped')
})

t.test('serveronly drops what the TUN device would forward, both ways', async t => {
  const text = formatRuleset({
    tunName: 'ras0',
    access: 'serveronly',
    natNetworks: [],
    natInterface: undefined,
  })
  t.match(text, 'iifname "ras0" counter drop')
  t.match(text, 'oifname "ras0" counter drop')
  t.notMatch(text, 'masquerade')
})

t.test('a name that could break out of the ruleset is refused', async t => {
  for (const name of ['', '-x', 'a b', 'a"', 'x;y', 'sixteen-letters-', '../up', 'a\nb']) {
    t.throws(() => tableName(name), SystemError, JSON.stringify(name))
  }
  t.throws(
    () =>
      formatRuleset({
        tunName: 'ras0',
        access: 'all',
        natNetworks: [network],
        natInterface: 'e" drop',
      }),
    SystemError,
  )
})

t.test('a failing tool is quoted, a missing one is named with its package', async t => {
  await t.rejects(runTool('ip', ['no-such-object']), {
    name: 'SystemError',
    message: /^ip no-such-object: Object "no-such-object" is unknown/,
  })
  t.type(new MissingToolError('x'), Error)
})

t.test('NAT translates, IPv6 is forwarded, and revert puts everything back', needsRoot, async t => {
  const router = new Router(`${prefix}a`)
  t.teardown(() => router.close())
  // What an administrator may have set, and the kernel would forget.
  router.setSysctl('net.ipv4.conf.all.accept_redirects', 0)
  router.setSysctl('net.ipv4.conf.wan0.forwarding', 1)
  router.setSysctl('net.ipv6.conf.wan0.forwarding', 0)
  router.setSysctl('net.ipv6.conf.wan0.accept_ra', 1)
  const before = router.exec('sysctl', '-a', '--pattern', 'forward|accept_r')
  t.notOk(router.reaches(beyondAddress), 'nothing is forwarded yet')

  const server = router.start()
  const reply = await server.apply(settings)
  t.match(reply, { ok: true, value: { natInterface: 'wan0', table: 'openras_ras0' } })
  t.ok(router.reaches(beyondAddress), 'a host beyond answers, which has no route back')
  t.ok(router.reaches('fd92::2'), 'IPv6 is forwarded')
  t.match(router.exec('nft', 'list', 'table', 'inet', 'openras_ras0'), /packets [1-9]\d* .*masq/)
  t.equal(router.sysctl('net.ipv6.conf.wan0.accept_ra'), '2', 'the uplink keeps its default route')

  t.match(await server.apply({ ...settings, natInterface: undefined }), { ok: true })
  t.notOk(router.reaches(beyondAddress), 'without NAT no answer finds its way back')
  t.match(await server.apply({ ...settings, access: 'serveronly' }), { ok: true })
  t.notOk(router.reaches('fd92::2'), 'serveronly ends at this machine')
  t.ok(router.reaches('198.51.100.1'), 'which itself answers')
  t.match(await server.apply(settings), { ok: true })
  t.ok(router.reaches(beyondAddress), 'and back again')

  const refused = await server.apply({ ...settings, natInterface: 'no such' })
  t.match(refused, { ok: false, value: /"no such" is not the name of a network interface/ })
  t.ok(router.reaches(beyondAddress), 'a refused change leaves what was in force')

  t.match(await server.revert(), { ok: true })
  t.equal(router.exec('sysctl', '-a', '--pattern', 'forward|accept_r'), before)
  t.equal(router.exec('nft', 'list', 'tables'), '')
  t.match(await server.revert(), { ok: true }, 'a second revert does nothing')
})

t.test('serveronly blocks even where the machine forwards already', needsRoot, async t => {
  const router = new Router(`${prefix}b`)
  t.teardown(() => router.close())
  router.setSysctl('net.ipv6.conf.all.forwarding', 1)
  router.setSysctl('net.ipv4.ip_forward', 1)
  t.ok(router.reaches('fd92::2'))
  const server = router.start()
  t.match(await server.apply({ ...settings, access: 'serveronly' }), { ok: true })
  t.notOk(router.reaches('fd92::2'))
  t.match(await server.revert(), { ok: true })
  t.ok(router.reaches('fd92::2'))
  t.equal(router.sysctl('net.ipv4.ip_forward'), '1', 'what was on before stays on')
})

t.test('auto translates on whichever interface the routes choose', needsRoot, async t => {
  const router = new Router(`${prefix}c`)
  t.teardown(() => router.close())
  const server = router.start()
  t.match(await server.apply({ ...settings, natInterface: 'auto' }), { ok: true })
  t.ok(router.reaches(beyondAddress))
})

t.test('after kill -9 the next start cleans up', needsRoot, async t => {
  const router = new Router(`${prefix}d`)
  t.teardown(() => router.close())
  const before = router.exec('sysctl', '-a', '--pattern', 'forward|accept_r')
  const killed = router.start()
  t.match(await killed.apply(settings), { ok: true })
  await killed.kill()
  t.match(router.exec('nft', 'list', 'tables'), 'openras_ras0', 'the rules are still there')

  const next = router.start()
  t.match(await next.recover(), { ok: true, value: ['openras_ras0'] })
  t.equal(router.exec('nft', 'list', 'tables'), '')
  t.equal(router.exec('sysctl', '-a', '--pattern', 'forward|accept_r'), before)

  t.match(await next.apply(settings), { ok: true })
  await next.kill()
  router.setSysctl('net.ipv4.ip_forward', 0)
  router.setSysctl('net.ipv4.conf.wan0.forwarding', 1)
  const last = router.start()
  t.match(await last.recover(), { ok: true })
  t.equal(router.sysctl('net.ipv4.conf.wan0.forwarding'), '1', 'a later change of others stays')
  t.equal(router.sysctl('net.ipv6.conf.all.forwarding'), '0')
})

t.test('two servers on one machine need the settings until both are gone', needsRoot, async t => {
  const router = new Router(`${prefix}e`)
  t.teardown(() => router.close())
  const [first, second] = [router.start(), router.start()]
  const other = { ...settings, tunName: 'ras9', natInterface: undefined }
  const replies = await Promise.all([first.apply(settings), second.apply(other)])
  t.match(replies, [{ ok: true }, { ok: true }], 'both at the same moment')
  t.match(router.exec('nft', 'list', 'tables'), /openras_ras0(.|\n)*openras_ras9|ras9(.|\n)*ras0/)

  t.match(await second.revert(), { ok: true })
  t.ok(router.reaches(beyondAddress), 'the first goes on undisturbed')
  t.match(await second.apply(other), { ok: true })
  await first.kill()
  t.match(await second.recover(), { ok: true, value: ['openras_ras0'] })
  t.equal(router.sysctl('net.ipv4.ip_forward'), '1', 'the second still needs it')
  t.match(await second.revert(), { ok: true })
  t.equal(router.sysctl('net.ipv4.ip_forward'), '0')
  t.equal(router.exec('nft', 'list', 'tables'), '')
})

t.test('a damaged ledger is an error that says what to do', needsRoot, async t => {
  const router = new Router(`${prefix}f`)
  t.teardown(() => router.close())
  const server = router.start()
  t.match(await server.apply(settings), { ok: true })
  const [file = ''] = router.exec('ls', join(router.folder, 'ledger')).split('\n')
  writeFileSync(join(router.folder, 'ledger', file), '{"holders": 7}')
  t.match(await server.revert(), { ok: false, value: /is damaged: check .* then remove the file/ })
})

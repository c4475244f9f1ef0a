import { hostname } from 'node:os'
import fc from 'fast-check'
import t from 'tap'
import { parse } from 'yaml'
import { configSchema, defaultConfigText, InvalidConfigError, parseConfig } from '../lib/config.ts'
import { ConfigError } from '../lib/core/errors.ts'
import { formatIpv4, formatIpv6, formatIpv6Network, parseIpv4 } from '../lib/core/ip-address.ts'

function problemsOf(text: string): string[] {
  try {
    parseConfig(text, 'openras.yaml')
  } catch (thrown) {
    if (thrown instanceof InvalidConfigError) return thrown.message.split('\n')
    throw thrown
  }
  return []
}

t.test('an empty document is the defaults, complete and in the units of the names', async t => {
  const config = parseConfig('', 'openras.yaml')
  t.match(config, {
    server: { name: hostname(), listen: ['0.0.0.0', '::'] },
    tun: { name: 'ras%d', mtuBytes: 1400, backend: 'auto' },
    sstp: { isEnabled: true, port: 443, certificates: [], hashes: ['sha256', 'sha1'] },
    ikev2: {
      ...{ isEnabled: true, certificates: [], clientAuthorities: [], sites: [] },
      ...{ acceptsLegacyAlgorithms: false, takesPlainEsp: false },
      ...{ networkOutageMs: 1_800_000, saLifetimeMs: 28_800_000 },
      saDataBytes: Number.POSITIVE_INFINITY,
    },
    auth: { methods: ['mschapv2'], lockout: { attemptsPerUser: 10, windowMs: 60_000 } },
    access: 'all',
    nat: { isEnabled: true },
    limits: { sessionsPerUser: Number.POSITIVE_INFINITY, idleTimeoutMs: Number.POSITIVE_INFINITY },
    state: { directory: '/var/lib/openras', controlSocket: '/var/lib/openras/control.sock' },
  })
  t.equal(config.users, undefined, 'the users are those of the database')
  t.equal(config.nat.interface, undefined)
  t.equal(config.addresses.ipv6, undefined)
  t.equal(formatIpv4(config.addresses.server), '10.87.0.1')
  t.same(config, parseConfig('# nothing\nsstp:\n  # port: 443\nlog:\n', 'openras.yaml'))
})

t.test('a site of IKEv2 has its key, its networks and our name', async t => {
  const { ikev2 } = parseConfig(
    `
server: {name: vpn.example.net}
ikev2:
  saDataMegabytes: 100
  idleTimeoutSeconds: 600
  sites:
    - {identity: branch.example.net, presharedKey: a long random text, remoteNetworks: [192.168.20.0/24, 'fd00:20::/64']}`,
    'x',
  )
  t.equal(ikev2.saDataBytes, 100_000_000)
  t.equal(ikev2.idleTimeoutSeconds, 600)
  const [site] = ikev2.sites
  t.equal(site?.localIdentity, 'vpn.example.net')
  t.equal(site?.presharedKey.exposeText(), 'a long random text')
  t.match(site?.remoteNetworks, [
    { family: 4, address: parseIpv4('192.168.20.0'), prefixLength: 24 },
    { family: 6, prefixLength: 64 },
  ])
  t.match(problemsOf('ikev2: {sites: [{identity: a, presharedKey: b}]}'), [/remoteNetworks/])
  t.match(problemsOf('ikev2: {networkOutageSeconds: 60}'), [/expected at least 120/])
})

t.test('PAP and CHAP are off until they are named, and methods come strongest first', async t => {
  t.same(parseConfig('auth: {methods: [pap, chap, mschapv2]}', 'x').auth.methods, [
    'mschapv2',
    'chap',
    'pap',
  ])
  t.match(problemsOf('auth: {methods: []}'), [/auth\.methods: expected at least 1/])
  t.match(problemsOf('auth: {methods: [pap, pap]}'), [/expected each method once/])
})

t.test('OCSP is asked of files when there are some', async t => {
  t.equal(parseConfig('', 'x').eap.ocsp, undefined)
  t.same(parseConfig('eap: {ocspResponses: /ocsp}', 'x').eap.ocsp, {
    folder: '/ocsp',
    isRequired: false,
  })
  t.match(problemsOf('eap: {requireOcsp: true}'), [/eap\.ocspResponses: expected a folder/])
  const pair = '{cert: /a.pem, key: /a.key, ocspResponse: /a.der}'
  const { sstp } = parseConfig(`sstp: {certificates: [${pair}]}`, 'x')
  t.same(sstp.certificates, [{ cert: '/a.pem', key: '/a.key', ocspResponse: '/a.der' }])
  t.match(problemsOf(`sstp: {certificates: [{cert: /b.pem, key: /b.key}, ${pair}]}`), [
    /sstp\.certificates\[1\]\.ocspResponse: expected one certificate alone/,
  ])
})

t.test('a directory has servers and a way to find users, or there is none', async t => {
  t.equal(parseConfig('ldap: {timeoutSeconds: 3}', 'x').ldap, undefined)
  const { ldap } = parseConfig(
    "ldap: {servers: ['ldaps://[2001:db8::1]:3636'], bindAs: '{user}@ad.example', connections: 4}",
    'x',
  )
  t.same(ldap, {
    servers: ['ldaps://[2001:db8::1]:3636'],
    usesStartTls: true,
    bindAs: '{user}@ad.example',
    groupAttribute: 'memberOf',
    timeoutMs: 5000,
    mostConnections: 4,
  })
  const problems = (text: string) => problemsOf(`ldap: {servers: ['ldap://a'], ${text}}`)
  t.match(problems(''), [/expected bindAs or search/])
  // The name of a mechanism of SASL would be one.
  t.match(problems("bindAs: '{user}'"), [/ldap\.bindAs: expected a DN/])
  t.match(problems("search: {base: dc=x, filter: '(uid=x)'}"), [/expected \{user\} in it/])
  t.match(problems("search: {base: dc=x, filter: '(uid={user})', bindName: cn=x}"), [
    /ldap\.search: expected bindName and bindPassword together/,
  ])
  t.match(problemsOf("ldap: {servers: ['http://a']}"), [/expected ldaps:/])
})

t.test('multilink is off as a whole, on with BAP, or on without', async t => {
  const multilinkOf = (text: string) => parseConfig(text, 'x').ppp.multilink
  t.equal(multilinkOf(''), undefined)
  t.equal(multilinkOf('ppp: {multilink: }'), undefined)
  t.same(multilinkOf('ppp: {multilink: {enabled: true, addAfterSeconds: 10}}'), {
    linksPerBundle: 8,
    bandwidth: {
      linkKilobitsPerSecond: 10_000,
      addAbovePercent: 75,
      addAfterMs: 10_000,
      dropBelowPercent: 50,
      dropAfterMs: 120_000,
    },
  })
  t.same(multilinkOf('ppp: {multilink: {enabled: true, bap: false, linksPerBundle: 2}}'), {
    linksPerBundle: 2,
  })
})

t.test('addresses are values', async t => {
  const { addresses, sstp } = parseConfig(
    `
addresses:
  server: 10.1.0.1
  ipv4: [10.1.0.10-10.1.0.20, 10.2.0.0/24, 10.3.0.7]
  exclude: [10.1.0.15]
  ipv6: fd00:1:2::/48
  dns: [192.0.2.53, '2001:db8::53']
  wins: [192.0.2.54]
  domain: corp.example
  routes: [10.0.0.0/8, 'fd00::/8']
  requestable: true
sstp: {proxyProtocolFrom: [192.0.2.0/24, '2001:db8::/32']}`,
    'x',
  )
  t.equal(addresses.server, parseIpv4('10.1.0.1'))
  t.same(
    addresses.ipv4.map(({ first, last }) => `${formatIpv4(first)} ${formatIpv4(last)}`),
    ['10.1.0.10 10.1.0.20', '10.2.0.0 10.2.0.255', '10.3.0.7 10.3.0.7'],
  )
  t.same(addresses.exclude, [{ first: parseIpv4('10.1.0.15'), last: parseIpv4('10.1.0.15') }])
  t.equal(addresses.ipv6 && formatIpv6Network(addresses.ipv6), 'fd00:1:2::/48')
  t.same(addresses.dnsIpv4.map(formatIpv4), ['192.0.2.53'])
  t.same(addresses.dnsIpv6.map(formatIpv6), ['2001:db8::53'])
  t.same(addresses.winsIpv4.map(formatIpv4), ['192.0.2.54'])
  t.equal(addresses.isRequestable, true)
  t.equal(addresses.domain, 'corp.example')
  t.match(addresses.routes, [
    { family: 4, prefixLength: 8 },
    { family: 6, prefixLength: 8 },
  ])
  const dhcp = parseConfig('addresses: {dhcp: {servers: [192.0.2.67], inform: relay}}', 'x')
  t.same(dhcp.addresses.dhcp, { servers: [parseIpv4('192.0.2.67')], relaysInform: true })
  t.equal(problemsOf('addresses: {dhcp: {servers: []}}').length, 1)
  t.match(problemsOf('addresses: {server: 10.0.0.1, ipv4: [], dhcp: {servers: [10.0.0.9]}}'), [
    /addresses\.ipv4: expected the networks/,
  ])
  const six = 'ipv6: fd00::/48, delegated: {prefix: "2001:db8:8000::/40"'
  t.match(parseConfig(`addresses: {${six}}}`, 'x').addresses.delegated, { prefixLength: 56 })
  t.equal(problemsOf(`addresses: {${six}, length: 57}}`).length, 1)
  t.match(problemsOf('addresses: {delegated: {prefix: "2001:db8:8000::/40"}}'), [
    /addresses\.delegated: expected addresses\.ipv6/,
  ])
  t.match(problemsOf('addresses: {domain: a b}'), [/expected a domain name/])
  t.same(
    sstp.proxyProtocolFrom.map(network => [network.family, network.prefixLength]),
    [
      [4, 24],
      [6, 32],
    ],
  )
})

t.test('users of the document keep their passwords secret, and times are ms', async t => {
  const { users, limits } = parseConfig(
    `
users:
  - name: alice
    password: hunter2
    dialIn: deny
    address: 10.87.0.9
    groups: [staff]
    disabled: true
    expires: 2027-01-31
    maxSessions: 0
    idleTimeoutSeconds: 90
  - {name: bob, password: x}
limits: {perProtocol: {sstp: 5, l2tp: 0}, sessionTimeoutSeconds: 7}`,
    'x',
  )
  const [alice, bob] = users ?? []
  t.equal(alice?.password.exposeText(), 'hunter2')
  t.notMatch(JSON.stringify(users), 'hunter2')
  t.match(alice, {
    dialIn: 'deny',
    ipv4Address: parseIpv4('10.87.0.9'),
    isDisabled: true,
    expires: new Date('2027-01-31T00:00:00Z'),
    maxSessions: Number.POSITIVE_INFINITY,
    idleTimeoutMs: 90_000,
  })
  t.equal(bob?.dialIn, 'permit')
  t.equal(bob?.idleTimeoutMs, undefined, 'left to limits')
  t.equal(limits.sessionTimeoutMs, 7000)
  t.same(
    [...limits.sessionsPerProtocol],
    [
      ['sstp', 5],
      ['l2tp', Number.POSITIVE_INFINITY],
    ],
  )
})

t.test('all problems are told at once, with line, path and what was expected', async t => {
  t.same(
    problemsOf(
      `sstp:
  prot: 443
  port: "abc"
tun: {mtu: 100, NAME: a}
users:
  - name: a/b
    password: 5
  - name: bob
addresses:
  ipv4: [10.0.0.5-10.0.0.1, 10.0.0.1/24]
limits:
  perProtocol: {foo: 1, sstp: -1}
access: none
auth: {lockout: 5}
nat: []
`,
    ).map(line => line.replace(/expected a user name.*, not/, 'expected a user name, not')),
    [
      'openras.yaml:2: sstp.prot: unknown key; expected port',
      'openras.yaml:3: sstp.port: expected a number, not "abc"',
      'openras.yaml:4: tun.mtu: expected at least 576, not 100',
      'openras.yaml:4: tun.NAME: unknown key; expected name',
      'openras.yaml:6: users[0].name: expected a user name, not "a/b"',
      'openras.yaml:7: users[0].password: expected text, not what stands there',
      'openras.yaml:8: users[1].password: missing; expected text',
      'openras.yaml:10: addresses.ipv4[0]: expected an IPv4 address, a network, or a range FROM-TO, such as 10.87.0.10-10.87.0.99, not "10.0.0.5-10.0.0.1"',
      'openras.yaml:10: addresses.ipv4[1]: expected an IPv4 address, a network, or a range FROM-TO, such as 10.87.0.10-10.87.0.99, not "10.0.0.1/24"',
      'openras.yaml:12: limits.perProtocol.sstp: expected at least 0, not -1',
      'openras.yaml:12: limits.perProtocol.foo: unknown key; expected one of sstp, l2tp, pptp, ikev2',
      'openras.yaml:13: access: expected one of all, serveronly, not "none"',
      'openras.yaml:14: auth.lockout: expected a section, not 5',
      'openras.yaml:15: nat: expected a section, not a list',
    ],
  )
  t.same(problemsOf('- 1'), ['openras.yaml: expected a section, not a list'])
  t.same(problemsOf('5'), ['openras.yaml: expected a section, not a single value'])
})

t.test('what is not YAML is a problem with its line', async t => {
  t.match(problemsOf('a: 1\nb: [\n'), [/^openras\.yaml:\d: expected YAML: /])
  t.match(problemsOf('tun: {}\ntun: {}'), [
    /^openras\.yaml:2: expected YAML: Map keys must be unique/,
  ])
  const bomb = `a: &a [x,x,x,x,x,x,x,x,x,x]\n${'bcdefg'
    .split('')
    .map((name, i) => `${name}: &${name} [${Array(10).fill(`*${'abcdefg'[i]}`).join(',')}]`)
    .join('\n')}\n`
  t.match(problemsOf(bomb), [/expected YAML: Excessive alias count/])
  t.match(problemsOf(' '.repeat(32 * 1024 * 1024 + 1)), [/at most 32 MiB/])
  t.throws(() => parseConfig('x: 1', 'x'), ConfigError)
})

t.test('contradictions between fields are told too', async t => {
  t.match(problemsOf('tun: {mtu: 1000}\naddresses: {ipv6: "fd00::/48"}'), [
    /openras\.yaml:1: tun\.mtu: expected at least 1280/,
  ])
  t.match(problemsOf('addresses: {ipv4: []}'), [/addresses\.server: expected an IPv4 address/])
  t.match(problemsOf('addresses:\n  ipv4:\n  - 10.0.0.0/24\n  - 10.0.0.9-10.0.1.9'), [
    /yaml:4: addresses\.ipv4\[1\]: expected a range apart from addresses\.ipv4\[0\]/,
  ])
  t.match(problemsOf('addresses: {ipv4: [126.0.0.0-128.0.0.0]}'), [/expected unicast/])
  t.match(
    problemsOf(
      'users:\n- {name: Al, password: x, address: 10.0.0.1}\n- {name: al, password: x, address: 10.0.0.1}',
    ),
    [/:3: users\[1\]\.name: .*users\[0\]/, /:3: users\[1\]\.address: .*users\[0\]/],
  )
  t.match(problemsOf('ppp: {multilink: {addAbovePercent: 40}}'), [
    /ppp\.multilink: expected dropBelowPercent below addAbovePercent/,
  ])
  t.match(problemsOf('ikev2: {requirePostQuantumKey: true}'), [
    /ikev2\.postQuantumKeys: expected a key/,
  ])
  t.match(problemsOf(`state: {directory: /${'d'.repeat(100)}}`), [/socket path/])
})

t.test('values of every kind are refused with what was expected', async t => {
  for (const text of [
    'addresses: {ipv6: "fd00::/65"}',
    'addresses: {ipv6: "fd00::1/48"}',
    'addresses: {dns: [example.net]}',
    'server: {listen: [localhost]}',
    'server: {name: "-x"}',
    'state: {directory: var/lib}',
    'tun: {name: a/b}',
    'tun: {name: sixteen-letters-}',
    'nat: {interface: ".."}',
    'users: [{name: a, password: ""}]',
    'users: [{name: a, password: b, expires: 2027-13-01}]',
    'users: [{name: a, password: b, expires: yesterday}]',
    'sstp: {port: 65536}',
    'sstp: {port: 1.5}',
  ]) {
    const problems = problemsOf(text)
    t.equal(problems.length, 1, text)
    t.match(problems[0], /expected /, text)
  }
})

t.test(
  'the section radius: ports by what they are for, milliseconds, who may ask and where',
  async t => {
    const { radius } = parseConfig(
      `radius:
  nasAddress: 10.0.0.1
  authentication:
    servers:
      - {address: 10.0.0.10, secret: a shared secret, timeoutSeconds: 3}
      - {address: 10.0.0.11, tls: {serverName: r.example.net, authority: /a, cert: /c, key: /k}}
    eap: true
    whenUnavailable: local
  accounting:
    servers: [{address: 'fd00::1', secret: a shared secret, deadSeconds: 5}]
    interimSeconds: 600
  dynamic: {listen: [10.0.0.1], clients: [{address: 10.0.0.10/32, secret: a shared secret}]}`,
      'x',
    )
    t.match(radius.authentication, {
      servers: [
        { port: 1812, timeoutMs: 3000, needsMessageAuthenticator: true },
        { port: 2083, tls: { serverName: 'r.example.net' } },
      ],
      relaysEap: true,
      fallsBackToLocal: true,
    })
    t.match(radius.accounting, {
      servers: [{ port: 1813, deadTimeMs: 5000 }],
      interimIntervalMs: 600_000,
    })
    t.match(radius.dynamic, {
      listen: ['10.0.0.1'],
      port: 3799,
      clients: [{ needsEventTimestamp: true }],
    })
    t.equal(parseConfig('', 'x').radius.dynamic.listen, undefined)
    t.equal(problemsOf('radius: {authentication: {servers: [{address: 10.0.0.10}]}}').length, 1)
    t.equal(problemsOf('radius: {dynamic: {listen: []}}').length, 1)
  },
)

t.test('the document of the first run says the defaults, and every key', async t => {
  t.same(parseConfig(defaultConfigText(), 'x'), parseConfig('', 'x'))
  const { properties } = configSchema() as { properties: Record<string, { properties?: object }> }
  const text = defaultConfigText()
  for (const [name, section] of Object.entries(properties)) {
    t.match(text, new RegExp(`^(# )?${name}:`, 'm'), name)
    for (const key of Object.keys(section.properties ?? {})) {
      t.match(text, new RegExp(`^ +(# )?${key}:`, 'm'), `${name}.${key}`)
    }
  }
})

t.test('the document of the first run takes what that run found out', async t => {
  const text = defaultConfigText({
    serverName: 'vpn.example.net',
    listen: ['192.0.2.1'],
    sstpPort: 4443,
    certificates: [{ cert: '/x/a "b".pem', key: '/x/a.key' }],
    ipv4: ['10.9.0.0/24'],
    ipv6Prefix: 'fd01:2:3::/48',
    dns: ['9.9.9.9'],
    stateDirectory: '/srv/ras',
    controlSocket: '/run/ras.sock',
  })
  t.match(parseConfig(text, 'x'), {
    server: { name: 'vpn.example.net', listen: ['192.0.2.1'] },
    sstp: { port: 4443, certificates: [{ cert: '/x/a "b".pem', key: '/x/a.key' }] },
    addresses: { server: parseIpv4('10.9.0.1'), dnsIpv4: [parseIpv4('9.9.9.9')] },
    state: { directory: '/srv/ras', controlSocket: '/run/ras.sock' },
  })
})

t.test('the JSON Schema names every section and refuses unknown keys', async t => {
  const schema = configSchema()
  t.match(schema, {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    additionalProperties: false,
    properties: {
      tun: { additionalProperties: false, properties: { mtu: { minimum: 576, default: 1400 } } },
      addresses: { properties: { ipv4: { items: { type: 'string' } } } },
      users: { items: { required: ['name', 'password'] } },
    },
  })
  t.same(JSON.parse(JSON.stringify(schema)), schema)
})

t.test('arbitrary documents are read or refused, never anything else', async t => {
  const keys = Object.keys(parse(defaultConfigText()))
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc
          .dictionary(fc.oneof(fc.constantFrom(...keys), fc.string()), fc.jsonValue())
          .map(value => JSON.stringify(value)),
      ),
      text => {
        problemsOf(text)
      },
    ),
    { seed: 20, numRuns: 150 },
  )
  t.pass()
})

/** The configuration document as people write it: its keys, their meaning, their limits. */
import { z } from 'zod'
import { logLevels } from '../core/log.ts'
import { defaults } from './defaults.ts'
import * as field from './fields.ts'
import { ldapSchema } from './ldap-section.ts'
import { multilinkSchema } from './multilink-section.ts'
import { filtersSchema, policySchema } from './policies.ts'
import { radiusSchema } from './radius-section.ts'

const protocols = ['sstp', 'l2tp', 'pptp', 'ikev2'] as const

/** A section whose keys are all optional may be left out as a whole, or hold nothing but comments. */
function section<Shape extends z.ZodRawShape>(description: string, shape: Shape) {
  return z
    .preprocess(value => (value === null ? {} : value), z.strictObject(shape).meta({ description }))
    .prefault({})
}

const count = z.int().min(0).max(1_000_000)
/** 0 to ten years; 0 means none. */
const seconds = z.int().min(0).max(315_360_000)
const tcpPort = z.int().min(1).max(65_535)

const certificate = z
  .strictObject({
    cert: field.absolutePath.describe('PEM file: the certificate, then its issuers'),
    key: field.absolutePath.describe('PEM file with the private key, mode 0600 or 0640'),
  })
  .meta({ description: 'A server certificate and its key' })

const stapledCertificate = certificate
  .extend({
    ocspResponse: field.absolutePath
      .optional()
      .describe(
        'DER file with a response of OCSP for it, shown in the handshake and read as it changes',
      ),
  })
  .meta({ description: 'A server certificate and its key' })

const postQuantumKey = z
  .strictObject({
    identity: z.string().min(1).max(128).describe('Its name, at both ends'),
    key: field.password.describe('The same at both ends, 32 random bytes or more'),
  })
  .meta({ description: 'A preshared key that a quantum computer does not find' })

const site = z
  .strictObject({
    identity: z
      .string()
      .min(1)
      .max(256)
      .describe('What the other gateway calls itself: a name, an address or a mail address'),
    presharedKey: field.password.describe('The same at both ends, 20 characters or more'),
    localIdentity: z
      .string()
      .min(1)
      .max(256)
      .optional()
      .describe("What we call ourselves to it; absent: the server's name"),
    localNetworks: z
      .array(field.ipNetwork)
      .max(128)
      .default([])
      .describe('Networks here that it may reach; none: all'),
    remoteNetworks: z
      .array(field.ipNetwork)
      .min(1)
      .max(128)
      .describe('Networks behind it, which are routed to it'),
  })
  .meta({ description: 'Another gateway that dials us with a preshared key' })

const preSharedKey = z
  .strictObject({
    peer: field.ipNetwork.optional().describe('Whose key it is; absent: of everybody else'),
    key: field.password.describe('20 characters or more: it can be guessed without limit'),
  })
  .meta({ description: 'A preshared key of IKEv1' })

const user = z
  .strictObject({
    name: field.userName.describe('Name without domain; case does not matter'),
    password: field.password.describe('The password in clear'),
    totp: field.totpKey
      .optional()
      .describe('Key of one-time passwords (RFC 6238); then only PAP: password, then six digits'),
    dialIn: z
      .enum(['permit', 'deny', 'policy'])
      .default(defaults.user.dialIn)
      .describe(
        'permit, deny, or policy: the access policies decide, and refuse when none applies',
      ),
    address: field.ipv4Address.optional().describe('The IPv4 address that this user always gets'),
    groups: z
      .array(z.string().min(1).max(256))
      .max(256)
      .default([...defaults.user.groups]),
    disabled: z.boolean().default(defaults.user.disabled),
    expires: field.instant.optional().describe('From then on the account is refused'),
    maxSessions: count.optional().describe('Sessions at a time, 0 for no limit'),
    idleTimeoutSeconds: seconds.optional(),
    sessionTimeoutSeconds: seconds.optional(),
  })
  .meta({ description: 'A user who may dial in' })

const poolName = z.string().min(1).max(64)

const addressPool = z
  .strictObject({
    ipv4: z.array(field.ipv4Range).min(1).max(256),
    next: poolName.optional().describe('The pool that goes on when this one is used up'),
  })
  .meta({ description: 'A pool of addresses' })

const dhcpSchema = z.strictObject({
  servers: z.array(field.ipv4Address).min(1).max(8).describe('All are asked'),
  relay: field.ipv4Address
    .optional()
    .describe('Ours, that they answer to; absent: the one that leads to the first of them'),
  inform: z
    .enum(['answer', 'relay'])
    .default('answer')
    .describe('DHCPINFORM of clients: answered here, or passed on to the servers'),
})

const delegationSchema = z
  .strictObject({
    prefix: field.ipv6Network,
    length: z.int().min(16).max(64).default(defaults.delegatedBits).describe('Of each, bits'),
  })
  .refine(
    ({ prefix, length }) => length >= prefix.prefixLength && length - prefix.prefixLength <= 16,
    { error: 'expected a length of up to 16 bits more than that of the prefix' },
  )

export const documentSchema = z
  .strictObject({
    server: section('The server as a whole', {
      name: z
        .string()
        .regex(/^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/, {
          error: 'expected a host name, such as vpn.example.net',
        })
        .optional()
        .describe("The name that clients dial; this machine's host name when absent"),
      listen: z
        .array(field.listenAddress)
        .min(1)
        .max(64)
        .prefault([...defaults.server.listen]),
    }),
    tun: section('The network interface that sessions appear behind', {
      name: field.tunName.prefault(defaults.tun.name),
      mtu: z
        .int()
        .min(576)
        .max(9216)
        .default(defaults.tun.mtu)
        .describe('Largest IP packet, bytes; at least 1280 with IPv6 (RFC 8200 §5)'),
      backend: z
        .enum(['auto', 'offload', 'plain', 'memory'])
        .default(defaults.tun.backend)
        .describe('auto takes the fastest that the kernel offers'),
    }),
    sstp: section('SSTP: PPP over TLS', {
      enabled: z.boolean().default(defaults.sstp.enabled),
      port: tcpPort.default(defaults.sstp.port),
      certificates: z
        .array(stapledCertificate)
        .max(16)
        .default([...defaults.sstp.certificates])
        .describe(
          'One for RSA and one for ECDSA may stand side by side; none: the one made at first run',
        ),
      hashes: z
        .array(z.enum(['sha256', 'sha1']))
        .min(1)
        .refine(isWithoutRepeats, { error: 'expected each hash once' })
        .default([...defaults.sstp.hashes])
        .describe('Hash protocols for the crypto binding'),
      proxyProtocolFrom: z
        .array(field.ipNetwork)
        .max(256)
        .default([])
        .describe('Load balancers that speak the PROXY protocol to us'),
    }),
    ikev2: section('IKEv2: IP over IPsec, UDP 500 and 4500', {
      enabled: z.boolean().default(defaults.ikev2.enabled),
      certificates: z
        .array(certificate)
        .max(16)
        .default([...defaults.ikev2.certificates])
        .describe('None: those of sstp'),
      clientAuthorities: z
        .array(field.absolutePath)
        .max(16)
        .default([...defaults.ikev2.clientAuthorities])
        .describe(
          'PEM files with authorities: who has a certificate of theirs comes in without a password',
        ),
      revocationLists: z
        .array(field.absolutePath)
        .max(64)
        .default([...defaults.ikev2.revocationLists])
        .describe(
          'PEM or DER files of these authorities (CRL); when one is outdated, nobody of its issuer comes in',
        ),
      legacyAlgorithms: z
        .boolean()
        .default(defaults.ikev2.legacyAlgorithms)
        .describe('Accept MODP1024, SHA-1 and 3DES: Windows that was not told better'),
      plainEsp: z
        .boolean()
        .default(defaults.ikev2.plainEsp)
        .describe('ESP as IP protocol 50 where no NAT is between, which is slower, instead of UDP'),
      tcpPort: z
        .int()
        .min(0)
        .max(65_535)
        .default(defaults.ikev2.tcpPort)
        .describe('For networks that let no UDP through (RFC 9329, which has 4500); 0: not at all'),
      additionalKeyExchanges: z
        .array(z.enum(['ml-kem-512', 'ml-kem-768', 'ml-kem-1024']))
        .max(3)
        .refine(isWithoutRepeats, { error: 'expected each key exchange once' })
        .default([...defaults.ikev2.additionalKeyExchanges])
        .describe('After the usual one, with peers that propose it (RFC 9370), best first'),
      postQuantumKeys: z
        .array(postQuantumKey)
        .max(256)
        .default([...defaults.ikev2.postQuantumKeys])
        .describe('Keys that peers mix in beside certificate or preshared key (RFC 8784)'),
      requirePostQuantumKey: z
        .boolean()
        .default(defaults.ikev2.requirePostQuantumKey)
        .describe('Refuse whoever uses none of postQuantumKeys, and so all users of EAP'),
      eapOnly: z
        .boolean()
        .default(defaults.ikev2.eapOnly)
        .describe('Peers may ask us not to sign, where EAP proves both sides (RFC 5998)'),
      resumptionSeconds: z
        .int()
        .min(0)
        .max(86_400)
        .default(defaults.ikev2.resumptionSeconds)
        .describe('How long a peer may come back without a new proof (RFC 5723); 0: never'),
      redirectTo: z
        .string()
        .regex(/^[0-9A-Za-z.:-]{1,253}$/, { error: 'expected a name or an IP address' })
        .optional()
        .describe('The gateway that peers are sent to who would go (RFC 5685)'),
      sites: z
        .array(site)
        .max(1000)
        .default([...defaults.ikev2.sites]),
      idleTimeoutSeconds: seconds
        .default(defaults.ikev2.idleTimeoutSeconds)
        .describe('0: that of limits'),
      networkOutageSeconds: z
        .int()
        .min(120)
        .max(172_740)
        .default(defaults.ikev2.networkOutageSeconds)
        .describe('How long a peer may be out of reach'),
      saLifetimeSeconds: z
        .int()
        .min(300)
        .max(172_740)
        .default(defaults.ikev2.saLifetimeSeconds)
        .describe('Age at which keys are exchanged'),
      saDataMegabytes: z
        .int()
        .min(0)
        .max(1_000_000_000)
        .default(defaults.ikev2.saDataMegabytes)
        .describe('Data after which keys are exchanged; 0: no limit'),
    }),
    l2tp: section('L2TP/IPsec: PPP over L2TP in IPsec, keys by IKEv1', {
      enabled: z
        .boolean()
        .optional()
        .describe('Absent: when there are preSharedKeys or clientAuthorities'),
      preSharedKeys: z
        .array(preSharedKey)
        .max(256)
        .default([...defaults.l2tp.preSharedKeys])
        .describe('The most specific that fits the address of a client is its own'),
      clientAuthorities: z
        .array(field.absolutePath)
        .max(64)
        .default([...defaults.l2tp.clientAuthorities])
        .describe('PEM files: machines with a certificate of theirs need no preshared key'),
      legacyAlgorithms: z
        .boolean()
        .default(defaults.l2tp.legacyAlgorithms)
        .describe('MODP1024 and 3DES, for old clients'),
      secret: field.password
        .optional()
        .describe('The tunnel secret of L2TP itself, which hardly any client has'),
      helloSeconds: z.int().min(5).max(3600).default(defaults.l2tp.helloSeconds),
      withoutIpsec: z
        .boolean()
        .default(defaults.l2tp.withoutIpsec)
        .describe('Also take L2TP that nobody encrypts, on UDP 1701'),
    }),
    pptp: section('PPTP: PPP over GRE, TCP 1723; not safe, for old clients only', {
      enabled: z.boolean().default(defaults.pptp.enabled),
      encryption: z
        .enum(['none', 'optional', 'required'])
        .default(defaults.pptp.encryption)
        .describe('required: a client that does not encrypt (MPPE) is turned away'),
      keyBits: z
        .array(z.union([z.literal(40), z.literal(56), z.literal(128)]))
        .min(1)
        .refine(isWithoutRepeats, { error: 'expected each length once' })
        .default([...defaults.pptp.keyBits])
        .describe('Key lengths of MPPE that are accepted'),
      stateless: z
        .boolean()
        .default(defaults.pptp.stateless)
        .describe('A key for each packet; otherwise one for 256, and loss costs a round trip'),
      compression: z
        .boolean()
        .default(defaults.pptp.compression)
        .describe('Whether clients may compress (MPPC)'),
      sendWindow: z
        .enum(['advisory', 'obeyed'])
        .default(defaults.pptp.sendWindow)
        .describe('obeyed: packets wait for acknowledgments while the window of a client is full'),
    }),
    ppp: section('What all tunnels with PPP inside have in common', {
      multilink: z.preprocess(value => (value === null ? {} : value), multilinkSchema).prefault({}),
    }),
    auth: section('How users prove who they are', {
      methods: z
        .array(z.enum(['mschapv2', 'chap', 'pap']))
        .min(1)
        .refine(isWithoutRepeats, { error: 'expected each method once' })
        .default([...defaults.auth.methods])
        .describe(
          'Offered from strongest to weakest. chap needs reversibly stored passwords, pap sends them in clear',
        ),
      lockout: section('Refusal after repeated failures', {
        attempts: z.int().min(1).max(1000).default(defaults.auth.lockout.attempts),
        attemptsPerAddress: z
          .int()
          .min(1)
          .max(100_000)
          .default(defaults.auth.lockout.attemptsPerAddress),
        windowSeconds: z.int().min(1).max(86_400).default(defaults.auth.lockout.windowSeconds),
        durationSeconds: z.int().min(1).max(604_800).default(defaults.auth.lockout.durationSeconds),
      }),
    }),
    eap: section('EAP: over PPP when methods are named, and over IKEv2 before those of auth', {
      methods: z
        .array(z.enum(['tls', 'peap', 'ttls', 'mschapv2', 'md5']))
        .refine(isWithoutRepeats, { error: 'expected each method once' })
        .default([...defaults.eap.methods])
        .describe('In order of preference; md5 makes no keys and suits neither SSTP nor MPPE'),
      certificate: stapledCertificate.optional().describe('Absent: the first of sstp'),
      clientAuthorities: z
        .array(field.absolutePath)
        .max(16)
        .default([...defaults.eap.clientAuthorities])
        .describe('PEM files: authorities of client certificates for tls; users must exist'),
      revocationLists: z
        .array(field.absolutePath)
        .max(64)
        .default([...defaults.eap.revocationLists])
        .describe('PEM or DER files of these authorities (CRL)'),
      ocspResponses: field.absolutePath
        .optional()
        .describe('Folder with responses of OCSP for client certificates, a DER file each'),
      requireOcsp: z
        .boolean()
        .default(defaults.eap.requireOcsp)
        .describe('Refuse a client certificate of which no response speaks'),
      inner: z
        .array(z.enum(['mschapv2', 'chap', 'pap']))
        .min(1)
        .refine(isWithoutRepeats, { error: 'expected each method once' })
        .default([...defaults.eap.inner])
        .describe('What ttls takes inside its tunnel, besides EAP-MSCHAPv2'),
      conversations: z
        .int()
        .min(1)
        .max(100_000)
        .default(defaults.eap.conversations)
        .describe('How many may run TLS at a time'),
    }),
    radius: radiusSchema,
    ldap: ldapSchema,
    users: z
      .array(user)
      .max(100_000)
      .optional()
      .describe('The users, when they are kept here; absent: those of the database'),
    policies: z
      .array(policySchema)
      .max(1000)
      .default([...defaults.policies])
      .describe('Who may come in and with what; the first whose conditions hold decides'),
    filters: filtersSchema.default({}),
    addresses: section('What clients are given', {
      server: field.ipv4Address
        .optional()
        .describe("The server's own address in the tunnels; absent: the first of the first range"),
      ipv4: z
        .array(field.ipv4Range)
        .max(256)
        .prefault([...defaults.addresses.ipv4]),
      pools: z
        .record(poolName, addressPool)
        .default({})
        .describe('Pools with a name, for policies and RADIUS (Framed-Pool)'),
      exclude: z
        .array(field.ipv4Range)
        .max(4096)
        .prefault([...defaults.addresses.exclude])
        .describe('Addresses inside the ranges that are never given out'),
      ipv6: field.ipv6Prefix
        .optional()
        .describe('Each session gets a /64 out of this prefix; absent: no IPv6'),
      delegated: delegationSchema
        .optional()
        .describe('Prefixes for clients that are routers and ask for one by DHCPv6'),
      dns: z.array(field.ipAddress).max(8).default([]).describe('DNS servers, best first'),
      wins: z.array(field.ipv4Address).max(2).default([]).describe('WINS servers, best first'),
      domain: field.domainName.optional().describe('Suffix of names for clients'),
      routes: z
        .array(field.ipNetwork)
        .max(64)
        .default([...defaults.addresses.routes])
        .describe(
          'Networks that clients reach through the tunnel, when they split; none of a family: all',
        ),
      dhcp: dhcpSchema
        .optional()
        .describe('Addresses come from DHCP servers, which give them out of addresses.ipv4'),
      requestable: z
        .boolean()
        .default(defaults.addresses.requestable)
        .describe('Whether clients may ask for an address of their own choice'),
      conflictProbe: z
        .boolean()
        .default(defaults.addresses.conflictProbe)
        .describe('Ask the hosts of a network of ours by ARP before one of its addresses is given'),
    }),
    access: z
      .enum(['all', 'serveronly'])
      .default(defaults.access)
      .describe('How far clients reach: all networks, or this server only'),
    nat: section('Network address translation of what clients send (IPv4)', {
      enabled: z.boolean().default(defaults.nat.enabled),
      interface: field.interfaceName.prefault(defaults.nat.interface),
    }),
    limits: section('Limits; 0 means none', {
      sessions: count.default(defaults.limits.sessions).describe('Sessions in all'),
      perUser: count.default(defaults.limits.perUser),
      perSource: count
        .default(defaults.limits.perSource)
        .describe('Sessions of one source address'),
      perProtocol: z
        .partialRecord(z.enum(protocols), count)
        .default({ ...defaults.limits.perProtocol }),
      idleTimeoutSeconds: seconds.default(defaults.limits.idleTimeoutSeconds),
      sessionTimeoutSeconds: seconds.default(defaults.limits.sessionTimeoutSeconds),
    }),
    log: section('The log', {
      level: z.enum(logLevels).default(defaults.log.level),
      file: field.absolutePath.optional().describe('Absent: standard error'),
    }),
    state: section('What outlives a restart', {
      directory: field.absolutePath
        .prefault(defaults.state.directory)
        .describe('Users, keys, certificates, leases; mode 0700'),
      controlSocket: field.socketPath
        .optional()
        .describe(
          'Where the commands reach the server; absent: control.sock in the state directory',
        ),
    }),
  })
  .meta({ title: 'OpenRAS configuration' })

export type ConfigDocument = z.output<typeof documentSchema>

function isWithoutRepeats(list: readonly unknown[]): boolean {
  return new Set(list).size === list.length
}

/** The configuration document that the first run writes: every key, with its default and its meaning. */
import { defaults } from './defaults.ts'

export interface DefaultTextOptions {
  /** Absent: the line stays a comment and the machine's host name is taken. */
  readonly serverName?: string
  readonly listen?: readonly string[]
  readonly sstpPort?: number
  readonly certificates?: readonly { readonly cert: string; readonly key: string }[]
  readonly ipv4?: readonly string[]
  /** Absent: no IPv6. */
  readonly ipv6Prefix?: string
  readonly dns?: readonly string[]
  readonly stateDirectory?: string
  readonly controlSocket?: string
}

/** Text that `parseConfig` reads as the defaults, but for what `options` say. */
export function defaultConfigText(options: DefaultTextOptions = {}): string {
  const { lockout } = defaults.auth
  const { multilink } = defaults.ppp
  return `# Configuration of OpenRAS. What is left out has the default that stands here.
# "openras check" tells what is wrong with it, "openras schema" prints its JSON Schema.

server:
  # The name that clients dial: it stands in the server certificate.
  ${optional('name', options.serverName, 'vpn.example.net')}
  # Addresses to listen on.
  listen: ${list(options.listen ?? defaults.server.listen)}

# The network interface that all sessions appear behind.
tun:
  # %d is a free number.
  name: ${defaults.tun.name}
  # Largest IP packet in a tunnel, bytes.
  mtu: ${defaults.tun.mtu}
  # auto, offload, plain, or memory (for tests: no interface at all).
  backend: ${defaults.tun.backend}

# SSTP: PPP over TLS, dialled by Windows and many others.
sstp:
  enabled: ${defaults.sstp.enabled}
  port: ${options.sstpPort ?? defaults.sstp.port}
  # PEM files. None: the certificate that the first run made. An RSA and an ECDSA pair may stand
  # side by side. Key files must have mode 0600 or 0640. With one certificate alone, ocspResponse names
  # a DER file that somebody keeps fresh: it is shown to clients in the handshake (OCSP stapling).
  certificates:${certificates(options.certificates ?? [])}
  # Hashes for the crypto binding.
  hashes: ${list(defaults.sstp.hashes)}
  # Load balancers that speak the PROXY protocol to us: addresses or networks.
  proxyProtocolFrom: ${list(defaults.sstp.proxyProtocolFrom)}

# IKEv2: IP over IPsec, dialled by Windows, Apple and Android. UDP 500 and 4500.
ikev2:
  enabled: ${defaults.ikev2.enabled}
  # None: those of sstp.
  certificates: []
  # PEM files of authorities: who has a certificate of theirs comes in without a password.
  clientAuthorities: []
  # Certificates that they have taken back (CRL), PEM or DER, read at start and at reload. When a list
  # is past its next update, nobody of its issuer comes in until there is a new one.
  revocationLists: []
  # MODP1024, SHA-1 and 3DES, for Windows clients that were not told better.
  legacyAlgorithms: ${defaults.ikev2.legacyAlgorithms}
  # ESP as IP protocol 50 where no NAT is between, which is slower, instead of UDP.
  plainEsp: ${defaults.ikev2.plainEsp}
  # A TCP port for clients in networks that let no UDP through (RFC 9329, which has 4500). 0: not at all.
  tcpPort: ${defaults.ikev2.tcpPort}
  # After the usual key exchange, with peers that propose one of these (RFC 9370), best first.
  additionalKeyExchanges: ${list(defaults.ikev2.additionalKeyExchanges)}
  # Keys that peers mix in beside certificate or preshared key (RFC 8784); with requirePostQuantumKey
  # nobody else comes in, users of EAP neither.
  # postQuantumKeys:
  #   - {identity: branch-2026, key: a long random text}
  requirePostQuantumKey: ${defaults.ikev2.requirePostQuantumKey}
  # Peers may ask us not to sign, where the method of EAP proves both sides (RFC 5998).
  eapOnly: ${defaults.ikev2.eapOnly}
  # How long a peer may come back with a ticket instead of a new proof (RFC 5723). 0: never.
  resumptionSeconds: ${defaults.ikev2.resumptionSeconds}
  # The gateway that peers are sent to who would go (RFC 5685): a name or an IP address.
  # redirectTo: gateway-2.example.net
  # Other gateways that dial us with a preshared key.
  # sites:
  #   - identity: branch.example.net
  #     presharedKey: a long random text
  #     remoteNetworks: [192.168.20.0/24]
  # 0: that of limits.
  idleTimeoutSeconds: ${defaults.ikev2.idleTimeoutSeconds}
  # How long a peer that has lost its network is waited for.
  networkOutageSeconds: ${defaults.ikev2.networkOutageSeconds}
  # Keys are exchanged at this age, and after this many megabytes (0: no limit).
  saLifetimeSeconds: ${defaults.ikev2.saLifetimeSeconds}
  saDataMegabytes: ${defaults.ikev2.saDataMegabytes}

# L2TP/IPsec: dialled by what has neither IKEv2 nor SSTP. UDP 500 and 4500.
l2tp:
  # On when there is a preshared key or an authority, unless this says otherwise.
  # enabled: true
  # The most specific that fits a client's address is its own; without peer: everybody's.
  # preSharedKeys:
  #   - key: a long random text
  #   - peer: 192.0.2.0/24
  #     key: another long random text
  preSharedKeys: []
  # PEM files of authorities: machines with a certificate of theirs need no preshared key.
  clientAuthorities: []
  # MODP1024 and 3DES, for old clients.
  legacyAlgorithms: ${defaults.l2tp.legacyAlgorithms}
  # The tunnel secret of L2TP itself, which hardly any client has.
  # secret: a long random text
  # Silence after which a peer is asked whether it lives.
  helloSeconds: ${defaults.l2tp.helloSeconds}
  # Also take L2TP that nobody encrypts, on UDP 1701.
  withoutIpsec: ${defaults.l2tp.withoutIpsec}

# PPTP: PPP over GRE, for old clients. Whoever listens can break its encryption.
pptp:
  enabled: ${defaults.pptp.enabled}
  # required: a client that does not encrypt (MPPE) is turned away; or optional, or none.
  encryption: ${defaults.pptp.encryption}
  # Key lengths of MPPE that are accepted, of 40, 56 and 128.
  keyBits: [${defaults.pptp.keyBits.join(', ')}]
  # A key for each packet; otherwise one for 256.
  stateless: ${defaults.pptp.stateless}
  # Whether clients may compress (MPPC).
  compression: ${defaults.pptp.compression}
  # obeyed: packets wait for acknowledgments while the window of a client is full (RFC 2637 §4.2), as
  # far as the client acknowledges at all. advisory: they never wait, as other servers have it.
  sendWindow: ${defaults.pptp.sendWindow}

ppp:
  # Several calls of one user as one (RFC 1990), over SSTP, L2TP and PPTP in any mixture.
  multilink:
    enabled: ${multilink.enabled}
    linksPerBundle: ${multilink.linksPerBundle}
    # With clients that speak BAP (RFC 2125) calls come and go by load: one more is asked for above a
    # share of what all of them carry together, one less below another, each after so long a time.
    bap: ${multilink.bap}
    linkKilobitsPerSecond: ${multilink.linkKilobitsPerSecond}
    addAbovePercent: ${multilink.addAbovePercent}
    addAfterSeconds: ${multilink.addAfterSeconds}
    dropBelowPercent: ${multilink.dropBelowPercent}
    dropAfterSeconds: ${multilink.dropAfterSeconds}

auth:
  # mschapv2, chap, pap: offered from strongest to weakest. chap works only for users whose password
  # is stored reversibly; pap shows the password to this server.
  methods: ${list(defaults.auth.methods)}
  # A user name or a source address is refused for a while after too many failures.
  lockout:
    attempts: ${lockout.attempts}
    attemptsPerAddress: ${lockout.attemptsPerAddress}
    windowSeconds: ${lockout.windowSeconds}
    durationSeconds: ${lockout.durationSeconds}

# EAP. Over PPP it is offered when methods are named, before those of auth; over IKEv2 these come first.
eap:
  # tls, peap, ttls, mschapv2, md5, in order of preference.
  methods: []
  # certificate: {cert: /etc/openras/eap.pem, key: /etc/openras/eap.key, ocspResponse: /var/lib/ocsp/eap.der}
  # For tls: PEM files of those who issue client certificates, and what they have taken back (CRL).
  # A certificate stands for the user that it names.
  clientAuthorities: []
  revocationLists: []
  # A folder with what OCSP responders say of client certificates: DER files, looked at again while
  # clients come. A client is refused when it is taken back or unknown there, or when its response is past
  # its next update; with requireOcsp also when there is none.
  # ocspResponses: /var/lib/ocsp/clients
  requireOcsp: ${defaults.eap.requireOcsp}
  # What ttls takes inside its tunnel: mschapv2, chap, pap.
  inner: ${list(defaults.eap.inner)}
  # How many may run TLS at a time.
  conversations: ${defaults.eap.conversations}

# Without this section the users are those of the database: "openras user add NAME".
# users:
#   - name: alice
#     password: correct horse battery staple
#     totp: JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP  # then only by PAP: the password and six digits behind it
#     dialIn: permit        # or deny, or policy
#     address: 10.87.0.50   # always this address
#     groups: [staff]

# Who may come in under which conditions, and with what. The first policy whose conditions hold decides;
# users whose dialIn is policy need one that permits. Empty: every user may come in.
# policies:
#   - name: guests in office hours
#     when: {groups: [guests], protocols: [sstp, ikev2], times: [Mon-Fri 08:00-18:00]}
#     give: {filter: web, sendBitsPerSecond: 20000000, sessionTimeoutSeconds: 28800}
#   - name: guests otherwise
#     when: {groups: [guests]}
#     access: deny
#     reason: restricted-hours
policies: []

# RADIUS. "openras schema" has all that can be said of a server, RADIUS over TLS among it.
radius:
  # How we name ourselves beside our name.
  # nasAddress: 10.0.0.1
  # Servers that judge users instead of us.
  authentication:
    #   - {address: 10.0.0.10, secret: sixteen characters or more, score: 30}
    #   - {address: 10.0.0.11, secret: sixteen characters or more, score: 20}
    servers: []
    # From a question to its answer, over all servers.
    totalSeconds: 9
    # Whether EAP packets of users go to these servers whole.
    eap: false
    # refuse, or local: the local users may come in while no server answers.
    whenUnavailable: refuse
  # Servers that are told of sessions.
  accounting:
    servers: []
    totalSeconds: 9
    # Between records of a session, 0 for none; the server of a user may say otherwise.
    interimSeconds: 0
  # Who may end and change sessions (RFC 5176).
  dynamic:
    # Where requests arrive; without it where server.listen says.
    # listen: [10.0.0.1]
    port: 3799
    #   - {address: 10.0.0.10/32, secret: sixteen characters or more}
    clients: []

# LDAP or Active Directory: who is not among the users above may prove itself there by PAP (auth.methods, or
# eap.inner with ttls). Users are bound by name, or found first and then bound; their groups are for policies.
ldap:
  # The one that answered last is asked first.
  #   - ldaps://dc1.corp.example.net
  servers: []
  # ldap:// goes through TLS all the same. Off: passwords in clear.
  startTls: ${defaults.ldap.startTls}
  # PEM file of the authority of these servers; without it the usual ones.
  # authority: /etc/openras/ldap-ca.pem
  # bindAs: uid={user},ou=people,dc=example,dc=net    # or {user}@corp.example.net
  # search:
  #   base: dc=corp,dc=example,dc=net
  #   filter: (&(objectClass=user)(sAMAccountName={user}))
  #   bindName: cn=vpn,cn=users,dc=corp,dc=example,dc=net
  #   bindPassword: a long random text
  # Of a user: its groups, by name or DN; and where groups name their users.
  groupAttribute: ${defaults.ldap.groupAttribute}
  # groupSearch: {base: 'ou=groups,dc=example,dc=net', filter: '(member={dn})'}
  # For one user, over all servers.
  timeoutSeconds: ${defaults.ldap.timeoutSeconds}
  # Users who are judged at a time.
  connections: ${defaults.ldap.connections}

# Filters of packets by name, for policies and RADIUS: rules of RFC 4849. in is from the client. What no
# rule matches has the opposite fate of the last.
# filters:
#   web:
#     - permit in udp from assigned to any 53
#     - permit in tcp from assigned to any 80,443
#     - permit out tcp from any 80,443 to assigned established
#     - permit out udp from any 53 to assigned
filters: {}

# What clients are given.
addresses:
  # The server's own address in the tunnels; without it the first of the first range.
  # server: 10.87.0.1
  # Networks, ranges FROM-TO, or single addresses.
  ipv4: ${list(options.ipv4 ?? defaults.addresses.ipv4)}
  # Pools with a name, which policies (give: {pool: staff}) and RADIUS (Framed-Pool) choose from; next goes on
  # when one is used up.
  # pools:
  #   staff: {ipv4: [10.88.0.0/24], next: overflow}
  #   overflow: {ipv4: [10.88.1.0/24]}
  pools: {}
  # Addresses inside the ranges that are never given out.
  exclude: ${list(defaults.addresses.exclude)}
  # Each session gets a /64 of this prefix (48 to 64 bits). Without it there is no IPv6.
  ${optional('ipv6', options.ipv6Prefix, 'fd87:1234:5678::/48')}
  # Prefixes for clients that are routers and ask for one by DHCPv6 (SSTP, L2TP, PPTP); RADIUS may give
  # others (Delegated-IPv6-Prefix). length: of each, up to 16 bits more than that of prefix.
  # delegated: {prefix: '2001:db8:8000::/40', length: ${defaults.delegatedBits}}
  dns: ${list(options.dns ?? defaults.addresses.dns)}
  wins: ${list(defaults.addresses.wins)}
  # Suffix of names for clients.
  # domain: corp.example.net
  # Networks that a split tunnel leads to: Windows asks for them by DHCP inside the tunnel, other
  # IKEv2 clients see them in the traffic selectors. None of a family: everywhere.
  routes: ${list(defaults.addresses.routes)}
  # Addresses come from DHCP servers instead, which have a scope in the networks of ipv4; we are the relay
  # agent of our clients and tell by server (RFC 3527) which scope it is. relay: our address that they
  # answer to, UDP 67; without it the one that leads to the first of them. inform: relay passes on what
  # Windows asks inside the tunnel, answer answers it here. Users with an address of their own and named
  # pools are served here as ever.
  # dhcp: {servers: [192.0.2.67], relay: 192.0.2.1, inform: answer}
  # Whether clients may ask for an address of their own choice out of the ranges.
  requestable: ${defaults.addresses.requestable}
  # Addresses in a network of one of our own interfaces are asked for there by ARP, for 0.3 s, before a
  # client gets them; one that somebody has is set aside for ten minutes. Where Linux answers for clients
  # (net.ipv4.conf.INTERFACE.proxy_arp), the network is told that the address is here now.
  conflictProbe: ${defaults.addresses.conflictProbe}

# How far clients reach: all, or serveronly.
access: ${defaults.access}

# Translation of the clients' IPv4 addresses on their way out.
nat:
  enabled: ${defaults.nat.enabled}
  # auto: the interface that the kernel's routes choose.
  interface: ${defaults.nat.interface}

# 0 is no limit.
limits:
  sessions: ${defaults.limits.sessions}
  perUser: ${defaults.limits.perUser}
  # Sessions from one source address.
  perSource: ${defaults.limits.perSource}
  # For example {sstp: 500}.
  perProtocol: {}
  idleTimeoutSeconds: ${defaults.limits.idleTimeoutSeconds}
  sessionTimeoutSeconds: ${defaults.limits.sessionTimeoutSeconds}

log:
  # fatal, error, warn, info, debug, trace, silent.
  level: ${defaults.log.level}
  # Without it: standard error.
  # file: /var/log/openras.log

# Users, keys, certificates and leases.
state:
  directory: ${scalar(options.stateDirectory ?? defaults.state.directory)}
  # Where the commands reach the server; without it: control.sock in the state directory.
  ${optional('controlSocket', options.controlSocket, '/run/openras/control.sock')}
`
}

/** JSON is YAML, so a quoted scalar needs no rules of its own. */
function scalar(value: string): string {
  return JSON.stringify(value)
}

function list(values: readonly string[]): string {
  return `[${values.map(scalar).join(', ')}]`
}

function optional(key: string, value: string | undefined, example: string): string {
  return value === undefined ? `# ${key}: ${example}` : `${key}: ${scalar(value)}`
}

function certificates(pairs: readonly { readonly cert: string; readonly key: string }[]): string {
  if (pairs.length === 0) return ' []'
  return pairs
    .map(({ cert, key }) => `\n    - cert: ${scalar(cert)}\n      key: ${scalar(key)}`)
    .join('')
}

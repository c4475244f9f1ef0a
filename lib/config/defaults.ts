/** Every default of the configuration, in the units of the document. */

/** In force when the document says nothing. */
export const defaults = {
  server: {
    /** Addresses to listen on: every IPv4 and every IPv6 address of the machine. */
    listen: ['0.0.0.0', '::'],
  },
  tun: {
    /** `%d` lets the kernel take the first free number, so that two servers do not meet. */
    name: 'ras%d',
    /** Bytes. What Windows' SSTP and L2TP clients negotiate as MRU; larger would only be fragmented. */
    mtu: 1400,
    backend: 'auto',
  },
  sstp: {
    enabled: true,
    /** TCP port, [MS-SSTP] §2.1. */
    port: 443,
    /** Empty: the certificate that the first run made, in the state directory. */
    certificates: [],
    /** Hash protocols offered for the crypto binding, [MS-SSTP] §2.2.6. */
    hashes: ['sha256', 'sha1'],
    proxyProtocolFrom: [],
  },
  ikev2: {
    enabled: true,
    /** Empty: those of SSTP. */
    certificates: [],
    clientAuthorities: [],
    revocationLists: [],
    legacyAlgorithms: false,
    plainEsp: false,
    /** 0: not at all; RFC 9329 has 4500. */
    tcpPort: 0,
    /** Key exchanges that a quantum computer does not break, beside the usual one. */
    additionalKeyExchanges: ['ml-kem-768', 'ml-kem-1024'],
    postQuantumKeys: [],
    requirePostQuantumKey: false,
    eapOnly: false,
    /** 0: nobody may. */
    resumptionSeconds: 0,
    sites: [],
    /** 0: those of `limits`. */
    idleTimeoutSeconds: 0,
    /** How long a peer that has lost its network is waited for, as in Windows Server. */
    networkOutageSeconds: 1800,
    /** Age at which keys are exchanged. */
    saLifetimeSeconds: 28_800,
    /** Megabytes under one set of keys, 0 for no limit. */
    saDataMegabytes: 0,
  },
  l2tp: {
    preSharedKeys: [],
    clientAuthorities: [],
    legacyAlgorithms: false,
    /** Silence after which a peer is asked whether it lives, RFC 2661 §5.5. */
    helloSeconds: 60,
    withoutIpsec: false,
  },
  pptp: {
    /** Its encryption is broken: it is off until it is named. */
    enabled: false,
    encryption: 'required',
    keyBits: [128],
    stateless: true,
    compression: false,
    /** Many NATs swallow what an obeyed window waits for. */
    sendWindow: 'advisory',
  },
  ppp: {
    multilink: {
      enabled: false,
      linksPerBundle: 8,
      bap: true,
      /** Of one call, each way: what the shares below are shares of. */
      linkKilobitsPerSecond: 10_000,
      addAbovePercent: 75,
      addAfterSeconds: 120,
      dropBelowPercent: 50,
      dropAfterSeconds: 120,
    },
  },
  auth: {
    /** Only what does not show the password to the server's operator or to a listener on the wire. */
    methods: ['mschapv2'],
    lockout: {
      /** Failures of one user name within the window. */
      attempts: 10,
      /** Failures from one source address within the window. */
      attemptsPerAddress: 30,
      windowSeconds: 60,
      durationSeconds: 60,
    },
  },
  eap: {
    /** None: EAP is offered over IKEv2 alone, with what `auth` has. */
    methods: [],
    /** Absent: the first of SSTP. */
    clientAuthorities: [],
    revocationLists: [],
    requireOcsp: false,
    /** Without EAP inside EAP-TTLS. */
    inner: ['mschapv2'],
    /** TLS conversations at a time. */
    conversations: 1000,
  },
  ldap: {
    servers: [],
    /** What is not ldaps:// all the way. */
    startTls: true,
    /** Active Directory has it, and OpenLDAP with its overlay. */
    groupAttribute: 'memberOf',
    timeoutSeconds: 5,
    /** Users who are judged at a time. */
    connections: 32,
  },
  user: {
    dialIn: 'permit',
    groups: [],
    disabled: false,
  },
  policies: [],
  addresses: {
    ipv4: ['10.87.0.0/16'],
    exclude: [],
    dns: [],
    wins: [],
    /** Empty: everything. */
    routes: [],
    /** Whether a client may ask for an address of its own choice out of the ranges. */
    requestable: false,
    /** Where hosts can have them too, they are asked first. */
    conflictProbe: true,
  },
  /** Length of the prefixes that are delegated to clients: what a site needs (RFC 6177 §2). */
  delegatedBits: 56,
  access: 'all',
  nat: {
    enabled: true,
    /** `auto`: whatever interface the kernel's routes choose. */
    interface: 'auto',
  },
  limits: {
    /** Sessions in all. For every number in this section 0 means no limit. */
    sessions: 10_000,
    perUser: 0,
    perSource: 0,
    perProtocol: {},
    idleTimeoutSeconds: 0,
    sessionTimeoutSeconds: 0,
  },
  log: {
    level: 'info',
  },
  state: {
    directory: '/var/lib/openras',
  },
} as const

/** The control socket's name in the state directory, when the document names no other place. */
export const defaultControlSocketName = 'control.sock'

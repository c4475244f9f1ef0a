/** What a server that has started tells the person who started it. */
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { ownCertificateFiles } from '../lib/certificates/own-certificate.ts'
import type { Config } from '../lib/config.ts'
import { formatIpv4, formatIpv6Network } from '../lib/core/ip-address.ts'
import type { ServerStatus } from '../lib/server/server.ts'
import { programName } from './command.ts'

export function welcome(config: Config, status: ServerStatus): string {
  const { dataplane, forwarding, sstp, ikev2, l2tp, pptp } = status
  const offloads = dataplane.offloads.length === 0 ? 'no offloads' : dataplane.offloads.join(' ')
  const lines = [`OpenRAS ${status.version} is running as "${status.name}".`, '']
  const row = (title: string, text: string) => lines.push(`  ${title.padEnd(10)}${text}`)
  if (sstp !== undefined) row('SSTP', portsOf(sstp.addresses))
  if (ikev2 !== undefined) row('IKEv2', portsOf(ikev2.addresses))
  if (l2tp !== undefined) row('L2TP', l2tpOf(config))
  if (pptp !== undefined) row('PPTP', portsOf(pptp.addresses))
  if ([sstp, ikev2, l2tp, pptp].every(protocol => protocol === undefined)) {
    row('Warning', 'sstp, ikev2, l2tp and pptp are all off: nobody can dial in')
  }
  row('Tunnels', [...rangesOf(config), ...ipv6Of(config)].join(', '))
  row('Interface', `${dataplane.tunName}, backend ${dataplane.backend} (${offloads})`)
  row('NAT', natOf(forwarding?.natInterface))
  row('Access', config.access === 'all' ? 'all networks' : 'this server only')
  if (showsOwnCertificate(config, status)) row('Dial as', ownNames(config).join(', '))
  for (const warning of status.warnings) row('Warning', warning)
  lines.push('', ...fromWindows(config, status), ...fromDebian(config, status))
  lines.push(`Who is connected: ${programName()} status. Stop with Ctrl-C.`)
  return `${lines.join('\n')}\n`
}

function portsOf(addresses: readonly { readonly host: string; readonly port: number }[]): string {
  return addresses.map(({ host, port }) => `${host} port ${port}`).join(', ')
}

function l2tpOf({ l2tp }: Config): string {
  const inside = 'inside IPsec, UDP ports 500 and 4500'
  return l2tp.isAllowedWithoutIpsec ? `${inside}; without IPsec on UDP port 1701` : inside
}

/** Whether clients are shown the certificate that this server made for itself. */
function showsOwnCertificate(config: Config, { sstp, ikev2 }: ServerStatus): boolean {
  if (config.sstp.certificates.length > 0) return false
  return sstp !== undefined || (ikev2 !== undefined && config.ikev2.certificates.length === 0)
}

/** What a client may call this server: names and addresses of our own certificate, which has all as names. */
function ownNames({ state }: Config): string[] {
  const { cert } = ownCertificateFiles(state.directory)
  const names = new X509Certificate(readFileSync(cert)).subjectAltName ?? ''
  return [...names.matchAll(/DNS:([^,]+)/g)].map(([, name = '']) => name)
}

/** The lines that dial this server from Windows, over each protocol that is on; none when none is. */
function fromWindows(config: Config, status: ServerStatus): string[] {
  const { name } = config.server
  const dials: string[][] = []
  const add = (suffix: string, server: string, options: string, ...more: string[]) => {
    const quoted = `'${`${name}${suffix}`.replaceAll("'", "''")}'`
    dials.push([
      `  Add-VpnConnection -Name ${quoted} -ServerAddress '${server}' ${options} -Force`,
      ...more.map(line => line.replace('NAME', quoted)),
      `  rasdial ${quoted} USER *`,
    ])
  }
  if (status.sstp !== undefined) {
    const options = '-TunnelType Sstp -AuthenticationMethod MSChapv2 -EncryptionLevel Maximum'
    add('', sstpServer(config), options)
  }
  if (status.ikev2 !== undefined) {
    const options = '-TunnelType Ikev2 -AuthenticationMethod Eap -EncryptionLevel Maximum'
    const algorithms =
      '-AuthenticationTransformConstants GCMAES256 -CipherTransformConstants GCMAES256 -EncryptionMethod AES256 -IntegrityCheckMethod SHA256 -DHGroup ECP256 -PfsGroup ECP256'
    add(
      ...([' IKEv2', name, options] as const),
      '  # Windows must be told to use present-day algorithms',
      `  Set-VpnConnectionIPsecConfiguration -ConnectionName NAME ${algorithms} -Force`,
    )
  }
  if (status.l2tp !== undefined && config.l2tp.preSharedKeys.length > 0) {
    const options =
      "-TunnelType L2tp -L2tpPsk 'KEY' -AuthenticationMethod MSChapv2 -EncryptionLevel Required"
    add(' L2TP', name, options, '  # KEY is the preshared key')
  }
  if (status.pptp !== undefined) {
    const options = '-TunnelType Pptp -AuthenticationMethod MSChapv2 -EncryptionLevel Required'
    add(' PPTP', name, options)
  }
  if (dials.length === 0) return []
  const authority = showsOwnCertificate(config, status)
    ? [
        `  # copy ${ownCertificateFiles(config.state.directory).authority} there first`,
        `  Import-Certificate -FilePath ca.pem -CertStoreLocation Cert:\\LocalMachine\\Root`,
      ]
    : []
  return [
    'Dial it from Windows, in PowerShell as administrator:',
    ...authority,
    ...dials.flatMap((lines, i) => (i === 0 ? lines : ['', 'Or:', ...lines])),
    '',
  ]
}

function fromDebian(config: Config, status: ServerStatus): string[] {
  if (status.sstp === undefined) return []
  const isOwn = showsOwnCertificate(config, status)
  const { authority } = ownCertificateFiles(config.state.directory)
  return [
    'From Debian (apt-get install sstp-client):',
    ...(isOwn ? [`  # copy ${authority} there first`] : []),
    `  sudo sstpc ${isOwn ? '--ca-cert ca.pem ' : ''}--user USER --password PASSWORD ${sstpServer(config)} usepeerdns require-mschap-v2 noauth noipdefault defaultroute`,
    '',
  ]
}

function sstpServer({ server, sstp }: Config): string {
  return sstp.port === 443 ? server.name : `${server.name}:${sstp.port}`
}

function rangesOf(config: Config): string[] {
  return config.addresses.ipv4.map(({ first, last }) => `${formatIpv4(first)}-${formatIpv4(last)}`)
}

function ipv6Of(config: Config): string[] {
  const prefix = config.addresses.ipv6
  return prefix === undefined ? [] : [formatIpv6Network(prefix)]
}

function natOf(natInterface: string | undefined): string {
  if (natInterface === undefined) return 'off'
  return natInterface === 'auto' ? 'on, wherever the routes lead' : `on, out of ${natInterface}`
}

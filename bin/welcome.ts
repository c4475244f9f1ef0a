/** What a server that has started tells the person who started it. */
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { ownCertificateFiles } from '../lib/certificates/own-certificate.ts'
import type { Config } from '../lib/config.ts'
import { formatIpv4, formatIpv6Network } from '../lib/core/ip-address.ts'
import type { ServerStatus } from '../lib/server/server.ts'
import { programName } from './command.ts'

export function welcome(config: Config, status: ServerStatus): string {
  const { dataplane, forwarding, sstp, ikev2, l2tp } = status
  const offloads = dataplane.offloads.length === 0 ? 'no offloads' : dataplane.offloads.join(' ')
  const lines = [`OpenRAS ${status.version} is running as "${status.name}".`, '']
  const row = (title: string, text: string) => lines.push(`  ${title.padEnd(10)}${text}`)
  if (sstp !== undefined) {
    row('SSTP', sstp.addresses.map(({ host, port }) => `${host} port ${port}`).join(', '))
  }
  if (ikev2 !== undefined) {
    row('IKEv2', ikev2.addresses.map(({ host, port }) => `${host} port ${port}`).join(', '))
  }
  if (l2tp !== undefined) row('L2TP', l2tpOf(config))
  row('Tunnels', [...rangesOf(config), ...ipv6Of(config)].join(', '))
  row('Interface', `${dataplane.tunName}, backend ${dataplane.backend} (${offloads})`)
  row('NAT', natOf(forwarding?.natInterface))
  row('Access', config.access === 'all' ? 'all networks' : 'this server only')
  if (config.sstp.certificates.length === 0) row('Dial as', ownNames(config).join(', '))
  for (const warning of status.warnings) row('Warning', warning)
  return `${[...lines, '', ...dialling(config)].join('\n')}\n`
}

function l2tpOf({ l2tp }: Config): string {
  const inside = 'inside IPsec, UDP ports 500 and 4500'
  return l2tp.isAllowedWithoutIpsec ? `${inside}; without IPsec on UDP port 1701` : inside
}

/** What a client may call this server: names and addresses of our own certificate, which has all as names. */
function ownNames({ state }: Config): string[] {
  const { cert } = ownCertificateFiles(state.directory)
  const names = new X509Certificate(readFileSync(cert)).subjectAltName ?? ''
  return [...names.matchAll(/DNS:([^,]+)/g)].map(([, name = '']) => name)
}

/** The lines that dial this server from Windows and from Linux. */
function dialling(config: Config): string[] {
  const name = config.server.name
  const ca = ownCertificateFiles(config.state.directory).authority
  const server = config.sstp.port === 443 ? name : `${name}:${config.sstp.port}`
  const own = config.sstp.certificates.length === 0
  const quoted = `'${name.replaceAll("'", "''")}'`
  const ikev2Name = `'${name.replaceAll("'", "''")} IKEv2'`
  const l2tpName = `'${name.replaceAll("'", "''")} L2TP'`
  return [
    'Dial it from Windows, in PowerShell as administrator:',
    ...(own
      ? [
          `  # copy ${ca} there first`,
          `  Import-Certificate -FilePath ca.pem -CertStoreLocation Cert:\\LocalMachine\\Root`,
        ]
      : []),
    `  Add-VpnConnection -Name ${quoted} -ServerAddress '${server}' -TunnelType Sstp -AuthenticationMethod MSChapv2 -EncryptionLevel Maximum -Force`,
    `  rasdial ${quoted} USER *`,
    ...(config.ikev2.isEnabled
      ? [
          '',
          'Or with IKEv2; Windows must be told to use present-day algorithms:',
          `  Add-VpnConnection -Name ${ikev2Name} -ServerAddress '${name}' -TunnelType Ikev2 -AuthenticationMethod Eap -EncryptionLevel Maximum -Force`,
          `  Set-VpnConnectionIPsecConfiguration -ConnectionName ${ikev2Name} -AuthenticationTransformConstants GCMAES256 -CipherTransformConstants GCMAES256 -EncryptionMethod AES256 -IntegrityCheckMethod SHA256 -DHGroup ECP256 -PfsGroup ECP256 -Force`,
          `  rasdial ${ikev2Name} USER *`,
        ]
      : []),
    ...(config.l2tp.isEnabled && config.l2tp.preSharedKeys.length > 0
      ? [
          '',
          'Or with L2TP/IPsec, KEY being the preshared key:',
          `  Add-VpnConnection -Name ${l2tpName} -ServerAddress '${name}' -TunnelType L2tp -L2tpPsk 'KEY' -AuthenticationMethod MSChapv2 -EncryptionLevel Required -Force`,
          `  rasdial ${l2tpName} USER *`,
        ]
      : []),
    '',
    'From Debian (apt-get install sstp-client):',
    ...(own ? [`  # copy ${ca} there first`] : []),
    `  sudo sstpc ${own ? '--ca-cert ca.pem ' : ''}--user USER --password PASSWORD ${server} usepeerdns require-mschap-v2 noauth noipdefault defaultroute`,
    '',
    `Who is connected: ${programName()} status. Stop with Ctrl-C.`,
  ]
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

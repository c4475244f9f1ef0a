/** `openras status`: what the running server does. */
import { type Column, chooseFormat, formatTable } from '../../lib/control/table.ts'
import { type Command, callServer, ExitCode, readArguments } from '../command.ts'
import { type ServerStatusView, type SessionView, statusSchema } from '../status-view.ts'

export const status: Command = {
  name: 'status',
  synopsis: 'status [--json] [--config FILE]',
  summary: 'show the sessions and the state of the server',
  help: `
Shows listeners, sessions and the dataplane. --json prints everything, with every counter.
Exit code 3 when no server is running.`,
  run: async args => {
    const { values } = readArguments(args, {
      config: { type: 'string' },
      json: { type: 'boolean' },
    })
    const answer = await callServer(values.config, 'status', {})
    if (values.json === true) {
      process.stdout.write(`${JSON.stringify(answer, undefined, 2)}\n`)
      return ExitCode.success
    }
    const view = statusSchema.parse(answer)
    if (process.stdout.isTTY) process.stdout.write(`${headline(view)}\n\n`)
    process.stdout.write(
      formatTable(view.sessions, columns, chooseFormat(false, process.stdout.isTTY)),
    )
    return ExitCode.success
  },
}

function headline({
  name,
  version,
  uptimeSeconds,
  sstp,
  ikev2,
  l2tp,
  dataplane,
  warnings,
}: ServerStatusView): string {
  const lines = [`${name}, openras ${version}, up ${duration(uptimeSeconds)}`]
  if (sstp !== undefined) {
    const where = sstp.addresses.map(({ host, port }) => `${host} port ${port}`).join(', ')
    lines.push(`sstp on ${where}: ${sstp.established} calls`)
  }
  if (ikev2 !== undefined) {
    const { addresses, established, halfOpen } = ikev2
    const where = addresses
      .map(({ host, port, isTcp }) => `${host} ${isTcp ? 'tcp port' : 'port'} ${port}`)
      .join(', ')
    lines.push(`ikev2 on ${where}: ${established} peers, ${halfOpen} half-open`)
  }
  if (l2tp !== undefined) {
    const { tunnels, sessions, ikev1 } = l2tp
    const peers = `${ikev1.established} peers, ${ikev1.halfOpen} half-open`
    lines.push(`l2tp: ${sessions} sessions in ${tunnels} tunnels; ikev1: ${peers}`)
  }
  const offloads = dataplane.offloads.length === 0 ? 'none' : dataplane.offloads.join(' ')
  lines.push(`${dataplane.tunName}: backend ${dataplane.backend}, offloads ${offloads}`)
  for (const warning of warnings) lines.push(`warning: ${warning}`)
  return lines.join('\n')
}

function duration(seconds: number): string {
  const days = Math.floor(seconds / 86_400)
  const clock = new Date((seconds % 86_400) * 1000).toISOString().slice(11, 19)
  return days > 0 ? `${days}d ${clock}` : clock
}

/** `pptp+sstp` for a bundle of two calls. */
function protocols({ protocol, bundle }: SessionView): string {
  const links = bundle?.links ?? []
  return links.length < 2 ? protocol : links.map(link => link.protocol).join('+')
}

const columns: readonly Column<SessionView>[] = [
  { title: 'id', value: row => row.number },
  { title: 'user', value: row => row.userName },
  { title: 'protocol', value: protocols },
  { title: 'state', value: row => row.state },
  { title: 'peer', value: row => row.peer },
  { title: 'ipv4', value: row => row.ipv4 },
  { title: 'ipv6', value: row => row.ipv6 },
  { title: 'up', value: row => duration(row.durationSeconds) },
  { title: 'idle s', value: row => row.idleSeconds },
  { title: 'received', value: row => row.receivedBytes },
  { title: 'sent', value: row => row.sentBytes },
]

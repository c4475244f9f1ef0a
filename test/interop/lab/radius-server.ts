/** FreeRADIUS in the namespace beyond the server, and radclient beside it. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { FreeRadius } from '../../support/freeradius.ts'
import type { TestCa } from './certificates.ts'
import { address, type Lab } from './lab.ts'

const secret = 'a shared secret of the lab'
/** What the server is to the RADIUS server. */
const nasAddress = '198.51.100.1'

/** Who may come in, and what they are given. */
export const radiusUser = {
  name: 'ann',
  password: 'ann-pass',
  address: '10.77.0.77',
  class: '0x6f70656e726173',
} as const

/** Of everybody else, by whatever name. */
export const radiusPassword = 'the password that RADIUS knows'
/** Whom the client certificate names, who comes in with nothing else. */
export const certificateName = 'client@lab'

export class RadiusServer extends FreeRadius {
  readonly #lab: Lab

  constructor(lab: Lab, ca: TestCa) {
    super({
      folder: join(lab.folder, 'freeradius'),
      enter: ['ip', 'netns', 'exec', lab.beyond],
      client: nasAddress,
      secret,
      users: [
        `${radiusUser.name} Cleartext-Password := "${radiusUser.password}"`,
        `        Framed-IP-Address := ${radiusUser.address},`,
        '        Session-Timeout := 3600,',
        '        Acct-Interim-Interval := 60,',
        `        Class := ${radiusUser.class}`,
        `${certificateName} EAP-Type := TLS`,
        `DEFAULT Cleartext-Password := "${radiusPassword}"`,
      ],
      eap: { ...ca.issue('radius', 2000), authority: ca.certificate },
    })
    this.#lab = lab
  }

  /** The output of radclient, which asks the server's port of dynamic authorization. */
  ask(what: 'coa' | 'disconnect', attributes: readonly string[]): Promise<string> {
    const now = Math.floor(Date.now() / 1000)
    const enter = ['netns', 'exec', this.#lab.beyond, 'radclient', '-x', '-r', '2', '-t', '5']
    const args = [...enter, `${nasAddress}:3799`, what, secret]
    return new Promise(resolve => {
      // A NAK is exit code 1, and its text is what matters.
      const child = execFile('ip', args, (_error, output, complaint) => resolve(output + complaint))
      child.stdin?.end(
        [...attributes, `Event-Timestamp=${now}`, 'Message-Authenticator=0x00'].join('\n'),
      )
    })
  }
}

/** A short time for dead, so that a case need not wait long for a server that is back. */
const server = { address: address.beyond, secret, deadSeconds: 2 }

/** The section `radius` of our own configuration. */
export const radiusSection = {
  nasAddress,
  authentication: { servers: [server], eap: true },
  accounting: { servers: [server] },
  dynamic: { listen: [nasAddress], clients: [{ address: address.beyond, secret }] },
}

/** The SA payloads of both phases as an L2TP persona writes them. */
import { spiBytes } from '../../lib/ikev1/quick-mode-exchange.ts'
import type { Proposal, Transform } from '../../lib/ikev1/wire/sa.ts'
import { type L2tpPersona, phase1Numbers, phase2Numbers } from './l2tp-personas.ts'

/** `method`: 1 for a preshared key, 3 for RSA signatures. */
export function phase1ProposalsOf(persona: L2tpPersona, method: 1 | 3): Proposal[] {
  const transforms = persona.phase1.map(([cipher, hash, group], i): Transform => {
    const [id, keyBits] = phase1Numbers.ciphers[cipher]
    return {
      number: i + 1,
      id: 1,
      attributes: [
        { type: 1, value: id },
        ...(keyBits === 0 ? [] : [{ type: 14, value: keyBits }]),
        { type: 2, value: phase1Numbers.hashes[hash] },
        { type: 4, value: phase1Numbers.groups[group] },
        { type: 3, value: method },
        { type: 11, value: 1 },
        // As four bytes, whatever its value: Windows and others send it so.
        { type: 12, value: spiBytes(persona.phase1Seconds) },
      ],
    }
  })
  return [{ number: 1, protocolId: 1, spi: new Uint8Array(0), transforms }]
}

export function phase2ProposalsOf(persona: L2tpPersona, inboundSpi: number): Proposal[] {
  const { phase2Seconds, phase2Kilobytes } = persona
  const transforms = persona.modes.flatMap(mode =>
    persona.phase2.map(([cipher, integrity]): Omit<Transform, 'number'> => {
      const [id, keyBits] = phase2Numbers.ciphers[cipher]
      return {
        id,
        attributes: [
          { type: 1, value: 1 },
          { type: 2, value: spiBytes(phase2Seconds) },
          ...(phase2Kilobytes === 0
            ? []
            : [
                { type: 1, value: 2 },
                { type: 2, value: spiBytes(phase2Kilobytes) },
              ]),
          { type: 4, value: mode },
          { type: 5, value: phase2Numbers.integrity[integrity] },
          ...(keyBits === 0 ? [] : [{ type: 6, value: keyBits }]),
          ...(persona.pfs ? [{ type: 3, value: phase1Numbers.groups.modp1024 }] : []),
        ],
      }
    }),
  )
  // Windows makes a proposal of each, with the same SPI.
  return transforms.map((transform, i) => ({
    number: i + 1,
    protocolId: 3,
    spi: spiBytes(inboundSpi),
    transforms: [{ ...transform, number: 1 }],
  }))
}

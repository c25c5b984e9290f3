// The updates that test/ranks/optimizers.test.ts compares: on one process whole, on ranks in parts. Run as a program
// it is a rank: argv has the file for its results, the name of a case, and the elements of each rank's part.

import { writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { joinWorld, leaveWorld } from '../../lib/engine/initialize.js'
import { makeOptimizer } from '../../lib/optim/optimizer.js'
import type { ProcessGroup } from '../../lib/parallel/group.js'
import { countOf, tensor } from '../../lib/tensor/tensor.js'
import { alive } from './compare.js'
import { type Named, Part } from './optimizer.js'

export interface Case {
  type: string
  params: Record<string, unknown>
}

export const cases: Record<string, Case> = {
  lamb: { type: 'Lamb', params: { betas: [0.8, 0.95], min_coeff: 0.2, max_coeff: 5 } },
  muon: { type: 'Muon', params: { lr: 0.02 } },
  adamw: { type: 'AdamW', params: {} },
}

export const parameters: Named[] = [
  { name: 'h.0.up', shape: [17, 13] },
  { name: 'h.0.bias', shape: [17] },
  { name: 'h.0.down', shape: [130, 170] },
  { name: 'experts', shape: [3, 5, 7] },
  { name: 'embed', shape: [11, 8] },
  { name: 'norm', shape: [50] },
]
export const PADDING = 11
export const SIZE = parameters.reduce((sum, { shape }) => sum + countOf(shape), PADDING)

/** Four updates, of which the third is left out; everything that they may change, as bytes in base64. */
export async function run(
  name: string,
  counts?: readonly number[],
  group?: ProcessGroup,
): Promise<Record<string, string>> {
  const before = alive()
  const optimizer = makeOptimizer(cases[name] as Case)
  const part = new Part(optimizer, parameters, (i) => Math.sin(i * 1.7) / 3, {
    out: 'bf16',
    padding: PADDING,
    ...(group && counts && { counts, group }),
  })
  const norms = [3, 0.5, Number.NaN, 9].map((norm) => tensor(Float32Array.of(norm)))
  norms.forEach((norm, index) => {
    part.setGradient((i) => Math.cos(i * (index + 0.3)) * (i % 7 === 0 ? 5 : 0.01))
    const call = { lr: 0.03, update: Math.min(index + 1, 3), norm, maxNorm: 1, gradScale: 0.5, zeroGrad: true }
    optimizer.update(part, call, 0.1)
  })
  const bits = await part.bits()
  part.dispose()
  for (const norm of norms) norm.dispose()
  if (alive() !== before) throw new Error(`${name} leaves ${alive()}, there was ${before}`)
  return bits
}

if (import.meta.url === pathToFileURL(process.argv[1] as string).href) {
  const [, , file, plan] = process.argv as unknown as [string, string, string, string]
  const world = await joinWorld()
  const results: Record<string, Record<string, string>> = {}
  for (const counts of JSON.parse(plan) as number[][])
    for (const name of Object.keys(cases)) results[`${name} ${counts}`] = await run(name, counts, world.group)
  writeFileSync(`${file}.${world.group.rank}`, JSON.stringify(results))
  await leaveWorld(world)
}

// DeepSpeed's dump_state: what a configuration was resolved to, and how the model lies on this rank.

import type { Config } from '../config/index.js'
import { meshWords } from '../parallel/mesh.js'
import type { Unit } from '../parallel/zero/unit.js'
import { memory } from '../tensor/memory.js'
import type { EngineParts } from './parts.js'

/** Text of several lines. */
export function describeState(config: Config, { zero, mesh, stage }: EngineParts): string {
  const { dtype, gradientDtype = 'f32', communicationDtype = gradientDtype, optimizer } = zero.options
  const elements = zero.units.reduce((sum, { layout }) => sum + layout.size, 0)
  const bytes = Object.entries(memory.stats().live).map(([category, count]) => `${category} ${count}`)
  const sizes = Object.entries(meshWords(mesh.sizes)).map(([axis, size]) => `${axis} ${size}`)
  return [
    'resolved configuration:',
    JSON.stringify(config, null, 2),
    `state of rank ${mesh.world.rank} of ${mesh.world.size}:`,
    `  mesh: ${sizes.join(', ')}`,
    `  ZeRO stage ${stage}, ${optimizer.type}, parameters ${dtype}, gradients ${gradientDtype}, sent as ${communicationDtype}`,
    `  units: ${zero.units.length} of ${elements} elements, padding included`,
    ...zero.units.map((unit) => `    ${unitLine(unit)}`),
    `  bytes: ${bytes.join(', ')}`,
  ].join('\n')
}

function unitLine({ layout, keeps, options, start, end }: Unit): string {
  const { name, slots, size, trainable } = layout
  const { optimizer, parameters } = options.places
  const places = [optimizer !== 'device' && `optimizer on ${optimizer}`, parameters !== 'device' && `on ${parameters}`]
  return [
    `${name}: ${slots.length} parameters, ${size} elements, [${start}, ${end}) here`,
    ...(trainable ? [] : ['frozen']),
    ...Object.entries(keeps).flatMap(([what, kept]) => (kept === 'shard' ? [`${what} sharded`] : [])),
    ...places.filter((place) => place !== false),
  ].join(', ')
}

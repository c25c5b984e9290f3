// Our mesh and DeepSpeed's keys for the same sizes, agreed; what is left of the world is data parallelism.
// Every rank of the data and expert axes has samples of its own.

import type { Read } from './index.js'
import { fail, note, type Reading } from './read.js'

export type Mesh = Read['mesh'] & { data: number }

/** Ranks (or groups of ranks that share a model) with samples of their own. */
export const replicasOf = (mesh: Mesh): number => mesh.data * mesh.expert
type Axis = keyof Read['mesh']

/** The same sizes by DeepSpeed's names; null where not given. */
function otherNames(reading: Reading, read: Read): [Axis, string, number | null][] {
  const unlessOne = (size: number): number | null => (size === 1 ? null : size)
  const { enabled, autoep_size } = read.expert_parallel
  if (!enabled && autoep_size > 1)
    note(reading, 'it counts only where expert_parallel.enabled is true', 'expert_parallel.autoep_size')
  return [
    ['pipeline', 'pipeline.stages', read.pipeline.stages],
    ['tensor', 'tensor_parallel.autotp_size', read.tensor_parallel.autotp_size || null],
    ['tensor', 'tensor_parallel.tp.tp_size', unlessOne(read.tensor_parallel.tp.tp_size)],
    ['context', 'sequence_parallel_size', read.sequence_parallel_size],
    ['expert', 'expert_parallel.autoep_size', enabled ? unlessOne(autoep_size) : null],
  ]
}

/** @throws CONFIG where two names disagree, or the world does not divide into the mesh. */
export function resolveMesh(reading: Reading, read: Read, worldSize: number): Mesh {
  const mesh = { ...read.mesh }
  for (const [axis, path, value] of otherNames(reading, read)) {
    if (value === null) continue
    if (mesh[axis] !== 1 && mesh[axis] !== value)
      fail(reading, `mesh.${axis} ${mesh[axis]} and ${path} ${value} disagree; keep one`)
    mesh[axis] = value
  }
  const product = mesh.pipeline * mesh.tensor * mesh.context
  const text = (['pipeline', 'tensor', 'context'] as const)
    .filter((axis) => mesh[axis] > 1)
    .map((axis) => `${axis} ${mesh[axis]}`)
    .join(' x ')
  const ranks = worldSize === 1 ? 'is 1 rank' : `are ${worldSize} ranks`
  if (worldSize % product !== 0)
    fail(reading, `mesh ${text} needs a multiple of ${product} ranks; there ${ranks} (--nproc)`)
  const replicas = worldSize / product
  if (replicas % mesh.expert !== 0)
    fail(
      reading,
      `mesh.expert ${mesh.expert} must divide the ${replicas} data-parallel ranks that ${worldSize} ranks leave`,
    )
  const { data_parallel_size: given } = read
  if (given !== null && given !== replicas)
    fail(reading, `data_parallel_size is ${given}, but ${worldSize} ranks and the mesh leave ${replicas}; leave it out`)
  return { ...mesh, data: replicas / mesh.expert }
}

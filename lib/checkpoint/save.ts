// Saving: every rank writes its own slices of weights and optimizer state, one buffer at a time; rank 0
// makes the manifest of all and commits.

import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ProcessGroup } from '../parallel/group.js'
import type { Flat } from '../parallel/zero/flat.js'
import { piecesIn } from '../parallel/zero/layout.js'
import type { Zero } from '../parallel/zero/zero.js'
import { unscoped } from '../tensor/scope.js'
import { bytesPerElement, COMMUNICATION } from '../tensor/tensor.js'
import { beginSave, commitSave } from './folder.js'
import { type FileEntry, type Kind, type Manifest, manifestText, type SliceEntry } from './manifest.js'
import { type TensorPlan, writeSafetensors } from './safetensors.js'

export interface SaveRequest {
  /** The folder of checkpoints. */
  folder: string
  zero: Zero
  group: ProcessGroup
  head: Omit<Manifest, 'format' | 'version' | 'files' | 'slices' | 'parameters'>
  /** Newest checkpoints to keep; 0: all. */
  retain: number
}

interface PlannedSlice extends TensorPlan {
  source: Flat
  offset: number
  count: number
  slice: Omit<SliceEntry, 'file'>
}

/** This rank's slices: its shard of every unit, at every stage; what model-parallel ranks share, one of them has. */
function planSlices(zero: Zero): PlannedSlice[] {
  const { rank } = zero.options.group
  return zero.units.flatMap((unit) => {
    const { shardSize, replicas } = unit.layout
    if (replicas && replicas.rank > 0) return []
    return piecesIn(unit.layout, rank * shardSize, (rank + 1) * shardSize).flatMap(({ slot, start, count, offset }) => {
      const sources: [Kind, Flat][] = [['weight', unit.master], ...Object.entries(unit.states)]
      return sources.map(([kind, source]) => {
        const { name, shape, slice: part } = slot.parameter
        const key = kind === 'weight' ? name : `${name}.${kind}`
        const cut = part && { dim: part.dim, ranges: part.ranges.map(([from, to]): [number, number] => [from, to]) }
        return {
          key,
          dtype: source.dtype,
          shape: count === slot.count ? shape : [count],
          source,
          offset: offset - unit.start,
          count,
          slice: { parameter: name, kind, key, start, count, ...(cut && { cut }) },
        }
      })
    })
  })
}

/** Collective: all ranks call it. Resolves, on every rank, when the checkpoint is durable. */
export async function saveCheckpoint(request: SaveRequest): Promise<string> {
  const { folder, zero, group, head } = request
  const { step } = head.state
  const temporary = join(folder, `tmp-step-${String(step).padStart(8, '0')}`)
  if (group.rank === 0) await beginSave(folder, step)
  await group.barrier()
  const plans = planSlices(zero)
  const name = `rank-${String(group.rank).padStart(5, '0')}-of-${String(group.size).padStart(5, '0')}.safetensors`
  const written = await writeSafetensors(join(temporary, name), plans, (_, index) =>
    bytesOf(plans[index] as PlannedSlice),
  )
  const part: Part = {
    file: { name, ...written },
    slices: plans.map(({ slice }) => ({ ...slice, file: name })),
    parameters: parametersOf(zero),
  }
  await writeFile(join(temporary, `part-${group.rank}.json`), JSON.stringify(part))
  await group.barrier()
  if (group.rank === 0) {
    const manifest = await assemble(temporary, request)
    await writeFile(join(temporary, 'manifest.json'), manifestText(manifest), { flush: true } as object)
    await commitSave(folder, temporary, step, request.retain)
  }
  await group.barrier()
  return join(folder, `step-${String(step).padStart(8, '0')}`)
}

async function bytesOf({ source, offset, count }: PlannedSlice): Promise<Uint8Array> {
  const part = unscoped(() => source.read(offset, count))
  try {
    const values = await part.data(COMMUNICATION)
    return new Uint8Array(values.buffer, values.byteOffset, count * bytesPerElement[source.dtype])
  } finally {
    part.dispose()
  }
}

/** What each rank tells of its part. */
interface Part {
  file: FileEntry
  slices: SliceEntry[]
  parameters: Manifest['parameters']
}

const parametersOf = (zero: Zero): Manifest['parameters'] =>
  Object.fromEntries(
    zero.units.flatMap((unit) =>
      unit.layout.slots.map(({ parameter }) => [
        parameter.name,
        { shape: [...parameter.wholeShape], dtype: unit.options.dtype },
      ]),
    ),
  )

async function assemble(temporary: string, { group, head }: SaveRequest): Promise<Manifest> {
  const files: FileEntry[] = []
  const slices: SliceEntry[] = []
  const parameters: Manifest['parameters'] = {}
  for (let rank = 0; rank < group.size; rank++) {
    const path = join(temporary, `part-${rank}.json`)
    const part = JSON.parse(await readFile(path, 'utf8')) as Part
    files.push(part.file)
    for (const slice of part.slices) slices.push(slice)
    Object.assign(parameters, part.parameters)
    await rm(path)
  }
  return { format: 'zeroshard-checkpoint', version: 1, ...head, parameters, files, slices }
}

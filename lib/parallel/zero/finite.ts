// Which gradient is not finite: asked only where the norm has told that one is.

import type { Module } from '../../nn/module.js'
import { tidy, unscoped } from '../../tensor/scope.js'
import { empty, runOp, type Tensor, tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { piecesIn } from './layout.js'
import type { Unit } from './unit.js'

/**
 * Name of the first parameter, in the model's order, of which a rank's shard of the gradient is not finite. Collective
 * over `world`, also for ranks without `suspects` (units whose largest gradient was not finite).
 */
export async function firstNotFinite(
  model: Module,
  suspects: readonly Unit[],
  world: ProcessGroup,
): Promise<string | undefined> {
  const parameters = model.parameters()
  const pieces = suspects.flatMap((unit) => {
    const { shardSize } = unit.layout
    const start = unit.options.group.rank * shardSize
    return piecesIn(unit.layout, start, start + shardSize).map(({ slot, offset, count }) => ({
      index: parameters.indexOf(slot.parameter),
      gradient: (): Tensor => (unit.shardGradients as Tensor).view([count], offset - start),
    }))
  })
  const largest = await read(() => {
    const each = empty([pieces.length], { category: 'buffers', zero: true })
    for (const [at, { gradient }] of pieces.entries()) runOp('absmax', [each.view([1], at)], [gradient()])
    return each
  })
  const found = pieces.filter((_, at) => !Number.isFinite(largest[at])).map(({ index }) => index)
  const own = Math.min(parameters.length, ...found)
  const all = await read(() => {
    const indices = empty([world.size], { category: 'buffers', dtype: 'i32', shared: true })
    return world.allGather(indices, tensor(Int32Array.of(own), [1], { category: 'buffers', shared: true }))
  })
  return parameters[Math.min(...all)]?.name
}

async function read(make: () => Tensor): Promise<Float32Array | Int32Array> {
  const values = unscoped(() => tidy(make))
  const data = await values.data()
  values.dispose()
  return data as Float32Array | Int32Array
}

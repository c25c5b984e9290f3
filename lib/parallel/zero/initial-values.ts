// A unit's initial values, a pure function of seed, name and index: each rank makes what it keeps, no rank the whole model.

import { tidy } from '../../tensor/scope.js'
import { empty, runOp, type Tensor } from '../../tensor/tensor.js'
import { chunksOf } from './flat.js'
import { piecesIn } from './layout.js'
import type { Unit } from './unit.js'

export function initialise(unit: Unit): void {
  const { resident } = unit.master
  if (resident) inMemory(unit, resident)
  else onDisk(unit)
}

/** Each rank makes its shard, then all are gathered where the whole exists. */
function inMemory(unit: Unit, master: Tensor): void {
  const { layout, start, keeps } = unit
  const { group, seed } = unit.options
  const first = group.rank * layout.shardSize
  for (const piece of piecesIn(layout, first, first + layout.shardSize)) {
    const target = master.view([piece.count], piece.offset - start)
    const { parameter } = piece.slot
    if (target.dtype === 'f32') parameter.fill(target, seed, piece.start)
    else {
      const wide = empty([piece.count], { category: 'buffers' })
      parameter.fill(wide, seed, piece.start)
      runOp('cast', [target], [wide])
      wide.dispose()
    }
    target.dispose()
  }
  if (keeps.optimizer === 'full' && group.size > 1) {
    const shard = master.view([layout.shardSize], first)
    group.allGather(master, shard)
    shard.dispose()
  }
  unit.refresh()
}

/** Chunk by chunk. States need nothing: what was never written of a file is zero. */
function onDisk(unit: Unit): void {
  const { layout, start, end, master, ownParameters } = unit
  for (const [at, count] of chunksOf(end - start)) {
    tidy(() => {
      const values = empty([count], { category: 'host', zero: true })
      const begin = start + at
      for (const piece of piecesIn(layout, begin, begin + count)) {
        const target = values.view([piece.count], piece.offset - begin)
        piece.slot.parameter.fill(target, unit.options.seed, piece.start)
      }
      for (const flat of new Set([master, ownParameters])) flat.write(at, values)
    })
  }
  unit.share()
}

// What the optimizer is given of a unit: ranges with one set of hyperparameters, as views of the rank's buffers.

import { slicedOf } from '../../nn/parts.js'
import { cutRange } from '../../optim/cut.js'
import type { OptimizerPart } from '../../optim/optimizer.js'
import type { Tensor } from '../../tensor/tensor.js'
import { piecesIn } from './layout.js'
import type { Unit } from './unit.js'

/** A range of the optimizer's part of the unit with one hyperparameter group. */
export interface Span {
  part: OptimizerPart
  group: number
}

/** Elements [from, to) of a unit, each buffer just those. */
export interface Holding {
  param: Tensor
  states: Record<string, Tensor>
  /** The 16-bit copy. */
  out?: Tensor
}

/** The spans of elements [from, to) of a unit; the views are the caller's. */
export function spansIn(unit: Unit, from: number, to: number, holding: Holding): Span[] {
  const { needsWholeParameters } = unit.options.optimizer
  const clip = (at: number): number => Math.min(Math.max(at, from), to)
  const spans: Span[] = []
  let begin = 0
  for (const { group, end } of unit.layout.groups) {
    const [first, last] = [clip(begin), clip(end)]
    if (first < last || needsWholeParameters) {
      const part = partOf(unit, [begin, end], [first, last], (of) => of.view([last - first], first - from), holding)
      spans.push({ group, part })
    }
    begin = end
  }
  return spans
}

/** The optimizer's view of elements [first, last), which are this rank's of the range [begin, end). */
function partOf(
  unit: Unit,
  [begin, end]: readonly [number, number],
  [first, last]: readonly [number, number],
  cut: (of: Tensor) => Tensor,
  { param, states, out }: Holding,
): OptimizerPart {
  const { layout, options, ownGradients } = unit
  const { group, optimizer } = options
  const sharded = unit.keeps.optimizer === 'shard'
  return {
    param: cut(param),
    states: Object.fromEntries(Object.entries(states).map(([name, state]) => [name, cut(state)])),
    ...(out && { out: cut(out) }),
    grad: (ownGradients as Tensor).view([last - first], first - unit.start),
    pieces: piecesIn(layout, first, last).map(({ slot, start, count, offset }) => ({
      name: slot.parameter.name,
      shape: slot.parameter.shape,
      start,
      count,
      offset: offset - first,
      sliced: slicedOf(slot.parameter),
    })),
    group: sharded ? group : group.alone,
    ...(sharded &&
      optimizer.needsWholeParameters && {
        cut: cutRange(
          piecesIn(layout, begin, end).map(({ slot: { parameter, offset } }) => ({
            name: parameter.name,
            shape: parameter.shape,
            offset,
            sliced: slicedOf(parameter),
          })),
          [begin, end],
          layout.shardSize,
          group.size,
        ),
      }),
  }
}

// How a flat range of parameters lies among ranks. Pure. Every rank computes the same from the same cut, so that
// collectives over whole parameters need no talk about sizes.

import { ZeroshardError } from '../binding/errors.js'
import type { Sliced } from '../nn/parts.js'
import { countOf, type Shape } from '../tensor/tensor.js'
import type { OptimizerPart, RangeCut } from './optimizer.js'

/** A parameter's elements on one rank. */
export interface Holding {
  rank: number
  /** First element, within the parameter. */
  start: number
  count: number
  /** Within the rank's part. */
  offset: number
}

/** A parameter that lies on more than one rank, of the part's group or of its own. */
export interface Crossing {
  name: string
  shape: Shape
  holdings: readonly Holding[]
  sliced?: Sliced | undefined
}

/**
 * The cut of elements [begin, end) of a unit that is cut into equal shards.
 *
 * @param parameters those in [begin, end), with their first element's place in the unit
 */
export function cutRange(
  parameters: readonly { name: string; shape: Shape; offset: number; sliced?: Sliced | undefined }[],
  [begin, end]: readonly [number, number],
  shardSize: number,
  numShards: number,
): RangeCut {
  const clip = (x: number): number => Math.min(Math.max(x, begin), end)
  return {
    counts: Array.from({ length: numShards }, (_, rank) => clip((rank + 1) * shardSize) - clip(rank * shardSize)),
    parameters: parameters.map(({ offset, ...parameter }) => ({ ...parameter, begin: offset - begin })),
  }
}

/** Where each rank has elements [begin, end) of the range. */
export function holdingsOf({ counts }: RangeCut, begin: number, end: number): Holding[] {
  const holdings: Holding[] = []
  let first = 0
  for (const [rank, size] of counts.entries()) {
    const from = Math.max(begin, first)
    const to = Math.min(end, first + size)
    if (from < to) holdings.push({ rank, start: from - begin, count: to - from, offset: from - first })
    first += size
  }
  return holdings
}

/** The parameters on more than one rank, in order: the same list on every rank. */
export function crossingsOf(cut: RangeCut): Crossing[] {
  return cut.parameters.flatMap(({ name, shape, begin, sliced }) => {
    const holdings = holdingsOf(cut, begin, begin + countOf(shape))
    return holdings.length > 1 || sliced ? [{ name, shape, holdings, sliced }] : []
  })
}

/** The cut of a part's range; a part that is the whole range needs none. */
export function cutOf(optimizer: string, { cut, group, param, pieces }: OptimizerPart): RangeCut {
  if (group.size === 1) {
    return {
      counts: [param.count],
      parameters: pieces.map(({ name, shape, offset, start, sliced }) => ({
        name,
        shape,
        begin: offset - start,
        sliced,
      })),
    }
  }
  if (!cut || cut.counts.length !== group.size || cut.counts[group.rank] !== param.count) {
    const given = cut ? `[${cut.counts.join(', ')}]` : 'no cut'
    throw new ZeroshardError(
      'INTERNAL',
      `[${optimizer}] a part of ${param.count} elements on rank ${group.rank} of ${group.size} with ${given}; give cutRange() of its range`,
    )
  }
  return cut
}

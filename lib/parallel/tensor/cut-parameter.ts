// A parameter whose parts several ranks have: cut once, put together again where someone asks for the whole.

import { ZeroshardError } from '../../binding/errors.js'
import type { Parameter } from '../../nn/parameter.js'
import { type Slice, sliceShape } from '../../nn/slice.js'
import { countOf, empty, runOp, type Tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { type Range, vocabularyRange } from './cut.js'

/**
 * Leaves this rank its ranges of `dim`. The same cut again (of a tied parameter) is fine.
 *
 * @throws CONFIG where the two differ
 */
export function cutParameter(
  parameter: Parameter,
  dim: number,
  rangesOf: (rank: number) => readonly Range[],
  group: ProcessGroup,
): void {
  const { slice } = parameter
  const ranges = rangesOf(group.rank)
  if (slice && (slice.dim !== dim || slice.ranges.join() !== ranges.join())) {
    throw new ZeroshardError(
      'CONFIG',
      `parameter '${parameter.name}' is cut along dim ${slice.dim} and ${dim}; plan its places alike`,
    )
  }
  if (slice) return
  parameter.cut(dim, ranges)
  const allGather = (output: Tensor, input: Tensor): Tensor => group.allGather(output, input)
  parameter.cutOver = { size: group.size, rangesOf, allGather }
}

/** Leaves this rank its rows of a vocabulary; which those are. @throws CONFIG where there are fewer rows than ranks. */
export function cutVocabulary(parameter: Parameter, group: ProcessGroup): Range {
  const rangeOf = (rank: number): Range => vocabularyRange(parameter, { size: group.size, rank })
  cutParameter(parameter, 0, (rank) => [rangeOf(rank)], group)
  return rangeOf(group.rank)
}

/** All of a parameter, flat, from the ranks' parts; `own` where it is whole. Collective over those ranks. */
export function joinParts(own: Tensor, { slice, cutOver }: Parameter): Tensor {
  if (!slice || !cutOver || cutOver.size === 1) return own
  const slices = Array.from({ length: cutOver.size }, (_, rank) => ({ ...slice, ranges: cutOver.rangesOf(rank) }))
  const most = Math.max(...slices.map((part) => countOf(sliceShape(part))))
  const padded = empty([most], { dtype: own.dtype, category: 'buffers', zero: true, shared: true })
  runOp('cast', [padded.view([own.count])], [own])
  const all = empty([cutOver.size * most], { dtype: own.dtype, category: 'buffers' })
  cutOver.allGather(all, padded)
  const whole = empty([countOf(slice.wholeShape)], { dtype: own.dtype, category: 'buffers' })
  for (const [rank, part] of slices.entries()) placePart(whole, all, rank * most, part)
  return whole
}

/** Copies one rank's part, which begins at `from` in `all`, to its places in the whole. */
function placePart(whole: Tensor, all: Tensor, from: number, slice: Slice): void {
  const { dim, ranges, wholeShape } = slice
  const inner = countOf(wholeShape.slice(dim + 1))
  const outer = countOf(wholeShape.slice(0, dim))
  const [wholeRow, row] = [(wholeShape[dim] as number) * inner, (sliceShape(slice)[dim] as number) * inner]
  let at = from
  for (const [start, end] of ranges) {
    const width = (end - start) * inner
    runOp('copy_2d', [whole], [all], [outer, width, start * inner, wholeRow, at, row])
    at += width
  }
}

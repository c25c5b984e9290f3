// Values of a cut parameter: all of them from the ranks' parts, and a part from all.

import { countOf, empty, runOp, type Tensor } from '../tensor/tensor.js'
import type { CutOver, Parameter } from './parameter.js'
import { type Slice, sliceShape } from './slice.js'

/** How a parameter is cut, for those who need all of it. */
export interface Sliced {
  slice: Slice
  over: CutOver
  /** False where a rank before has the same part: it counts once. */
  counts: boolean
}

/** Undefined where the parameter is whole. */
export function slicedOf({ slice, cutOver: over }: Parameter): Sliced | undefined {
  if (!slice || !over || over.group.size === 1) return undefined
  const before = Array.from({ length: over.group.rank }, (_, rank) => over.rangesOf(rank).join())
  return { slice, over, counts: !before.includes(slice.ranges.join()) }
}

/** All values, flat, from the ranks' parts. Collective over those ranks. */
export function joinParts(own: Tensor, { slice, over }: Sliced): Tensor {
  const slices = Array.from({ length: over.group.size }, (_, rank) => ({ ...slice, ranges: over.rangesOf(rank) }))
  const most = Math.max(...slices.map((part) => countOf(sliceShape(part))))
  const padded = empty([most], { dtype: own.dtype, category: 'buffers', zero: true, shared: true })
  runOp('cast', [padded.view([own.count])], [own])
  const all = empty([slices.length * most], { dtype: own.dtype, category: 'buffers' })
  over.group.allGather(all, padded)
  const whole = empty([countOf(slice.wholeShape)], { dtype: own.dtype, category: 'buffers' })
  for (const [rank, part] of slices.entries())
    eachRange(part, (place, here) => runOp('copy_2d', [whole], [all], scalarsOf(place, here, rank * most)))
  return whole
}

/** This rank's part, flat, of all values. */
export function ownPart(whole: Tensor, { slice }: Sliced): Tensor {
  const own = empty([countOf(sliceShape(slice))], { dtype: whole.dtype, category: 'buffers' })
  eachRange(slice, (place, here) => runOp('copy_2d', [own], [whole], scalarsOf(here, place)))
  return own
}

/** Rows of one range, in the whole or in the part: how many and how wide, the first one's place, from one to the next. */
interface Rows {
  rows: number
  width: number
  at: number
  stride: number
}

function eachRange(slice: Slice, visit: (place: Rows, here: Rows) => void): void {
  const { dim, ranges, wholeShape } = slice
  const inner = countOf(wholeShape.slice(dim + 1))
  const rows = countOf(wholeShape.slice(0, dim))
  const [wide, narrow] = [(wholeShape[dim] as number) * inner, (sliceShape(slice)[dim] as number) * inner]
  let at = 0
  for (const [start, end] of ranges) {
    const width = (end - start) * inner
    visit({ rows, width, at: start * inner, stride: wide }, { rows, width, at, stride: narrow })
    at += width
  }
}

/** Of copy_2d; the source begins at `offset`. */
const scalarsOf = (to: Rows, from: Rows, offset = 0): number[] => [
  to.rows,
  to.width,
  to.at,
  to.stride,
  offset + from.at,
  from.stride,
]

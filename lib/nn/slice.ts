// Which part of a whole parameter a process holds, and where its elements lie in the whole. Pure.

import type { Shape } from '../tensor/tensor.js'

/** Along `dim` of the whole, these ranges, one after another. */
export interface Slice {
  dim: number
  ranges: readonly (readonly [start: number, end: number])[]
  wholeShape: Shape
}

/** `count` elements that lie together in the part (from `local`) and in the whole (from `whole`). */
export interface Run {
  local: number
  whole: number
  count: number
}

/** The shape of the part. */
export function sliceShape({ dim, ranges, wholeShape }: Slice): number[] {
  const size = ranges.reduce((sum, [start, end]) => sum + end - start, 0)
  return wholeShape.map((whole, index) => (index === dim ? size : whole))
}

/** Where elements [start, start + count) of the part lie, in order. Without a slice the part is the whole. */
export function* runsOf(slice: Slice | undefined, start: number, count: number): Generator<Run> {
  if (!slice) {
    if (count > 0) yield { local: start, whole: start, count }
    return
  }
  const inner = slice.wholeShape.slice(slice.dim + 1).reduce((product, size) => product * size, 1)
  const wholeRow = (slice.wholeShape[slice.dim] as number) * inner
  const lengths = slice.ranges.map(([from, to]) => (to - from) * inner)
  const row = lengths.reduce((sum, length) => sum + length, 0)
  const end = start + count
  let local = row > 0 ? Math.floor(start / row) * row : end
  for (let outer = row > 0 ? Math.floor(start / row) : 0; local < end; outer++) {
    for (const [index, [from]] of slice.ranges.entries()) {
      const length = lengths[index] as number
      const first = Math.max(start, local)
      const last = Math.min(end, local + length)
      if (first < last)
        yield { local: first, whole: outer * wholeRow + from * inner + first - local, count: last - first }
      local += length
    }
  }
}

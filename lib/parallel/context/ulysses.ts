// Ulysses (Jacobs et al. 2023): between two all-to-alls a rank attends over whole sequences with its part of the heads.
//
//   (B, T/n, heads) → all-to-all → (B, T, heads/n) → attention → (B, T, heads/n) → all-to-all → (B, T/n, heads)

import { ZeroshardError } from '../../binding/errors.js'
import type { AttentionOptions } from '../../ops/attention.js'
import * as ops from '../../ops/index.js'
import { tidy } from '../../tensor/scope.js'
import type { Tensor } from '../../tensor/tensor.js'
import { allToAll } from '../collectives.js'
import type { ProcessGroup } from '../group.js'

/** packed (B, T/n, x, heads·D) with the columns of rank r r-th in its last dim. */
function attendPacked(packed: Tensor, options: AttentionOptions, group: ProcessGroup): Tensor {
  const mine = allToAll(packed, 3, 1, group)
  const [b, t] = mine.shape as [number, number]
  return allToAll(ops.packedAttention(ops.reshape(mine, [b, t, -1]), options), 1, 2, group)
}

/**
 * As ops.packedAttention, of a rank's tokens: qkv (B, T/n, 3·H·D) → (B, T/n, H·D). Rank r of n has the r-th part of
 * every sequence.
 *
 * @example
 * ulyssesPackedAttention(tensor([0, 0, 7], [1, 1, 3]), { numHeads: 1 }, ProcessGroup.single()) // [7]
 */
export function ulyssesPackedAttention(qkv: Tensor, options: AttentionOptions, group: ProcessGroup): Tensor {
  const [b, t, width] = qkv.shape as [number, number, number]
  const numHeads = options.numHeads / group.size
  const own = ownHeads(options, numHeads, numHeads, group)
  return tidy(() => attendPacked(ops.reshape(qkv, [b, t, 3, width / 3]), own, group))
}

/**
 * As ops.attention, of a rank's tokens: q (B, T/n, Hq·D), k and v (B, T/n, Hkv·D) → (B, T/n, Hq·D). A head of k and v
 * that several ranks read goes to each of them.
 *
 * @throws SHAPE where the heads do not divide over the ranks
 * @example
 * const x = tensor([1, 0, 0, 1], [1, 2, 2])
 * ulyssesAttention(x, x, x, { numHeads: 1 }, ProcessGroup.single()) // [1, 0, 0.3302, 0.6698]
 */
export function ulyssesAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions,
  group: ProcessGroup,
): Tensor {
  const { size } = group
  const { numHeads: hq, numKeyValueHeads: hkv = hq } = options
  const times = size % hkv === 0 ? size / hkv : 1
  const own = ownHeads(options, hq / size, (hkv * times) / size, group)
  const [b, t] = q.shape as [number, number]
  const byRank = (x: Tensor): Tensor => ops.reshape(x, [b, t, size, -1])
  return tidy(() => {
    const parts = [q, repeatHeads(k, hkv, times), repeatHeads(v, hkv, times)].map(byRank)
    const packed = ops.reshape(ops.concat(parts, 3), [b, t, 1, -1])
    return attendPacked(packed, own, group)
  })
}

/** Options for this rank's heads; dropout draws for their place among all. */
function ownHeads(
  { dropout, ...options }: AttentionOptions,
  numHeads: number,
  numKeyValueHeads: number,
  { rank, size }: ProcessGroup,
): AttentionOptions {
  if (!Number.isInteger(numHeads) || !Number.isInteger(numKeyValueHeads)) {
    throw new ZeroshardError(
      'SHAPE',
      `[ulyssesAttention] ${options.numHeads} heads and ${numKeyValueHeads * size} of keys and values do not divide over ${size} ranks; use ringAttention`,
    )
  }
  const own = { ...options, numHeads, numKeyValueHeads }
  if (!dropout) return own
  const { firstHead = 0, totalHeads = options.numHeads } = dropout
  return { ...own, dropout: { ...dropout, firstHead: firstHead + rank * numHeads, totalHeads } }
}

/** Each head of x (B, T, heads·D) `times` times, side by side. */
function repeatHeads(x: Tensor, heads: number, times: number): Tensor {
  if (times === 1) return x
  const [b, t, width] = x.shape as [number, number, number]
  const each = ops.reshape(x, [b * t * heads, width / heads])
  return ops.reshape(ops.concat(new Array<Tensor>(times).fill(each), 1), [b, t, width * times])
}

// Attention in parts: one call over some queries and some keys of a longer attention, joined to what is known of other
// keys. Not on the tape; whoever cuts an attention records the whole.

import { runOp, type Tensor } from '../tensor/tensor.js'
import { type Geometry, type Part, type Place, scalarsOf } from './attention.js'

/** q, k, v say where the queries and keys of this call lie. */
export interface AttentionBlock extends Geometry, Place {
  q: Part
  k: Part
  v: Part
}

/** Into o (B, tokens, Hq·D), f32 where more is joined later, and lse (B, Hq, tokens). */
export function attendBlock(block: AttentionBlock, o: Tensor, lse: Tensor): void {
  const { q, k, v } = block
  runOp('attention_forward', [o, lse], [q.tensor, k.tensor, v.tensor], scalarsOf(block, q, k, v, block))
}

/** What backward has of the whole: gradient and values of o, and lse over all keys. */
export interface AttentionResult {
  dy: Tensor
  o: Tensor
  lse: Tensor
}

/** Into dq, dk, dv, f32 in the layouts of q, k, v (which of their elements: as in the block). */
export function attendBlockBackward(
  block: AttentionBlock,
  gradients: { dq: Tensor; dk: Tensor; dv: Tensor },
  { dy, o, lse }: AttentionResult,
): void {
  const { q, k, v } = block
  runOp(
    'attention_backward',
    [gradients.dq, gradients.dk, gradients.dv],
    [dy, q.tensor, k.tensor, v.tensor, o, lse],
    scalarsOf(block, q, k, v, block),
  )
}

/** The scalars of dropout for a block that begins at this query and key of the whole. */
export function drawsAt(draws: Geometry['draws'], query: number, key: number): Geometry['draws'] {
  if (!draws) return undefined
  return () => {
    const of = draws()
    return [...of.slice(0, 6), query, key, ...of.slice(8)]
  }
}

/** The same place, `tokens` tokens further on. */
export const shifted = (part: Part, tokens: number): Part => ({ ...part, offset: part.offset + tokens * part.row })

// What a model knows of its sequence dim: which tokens are here, which positions they have, how they attend to all
// others. Modules that depend on it have a field `sequence`; where sequences are cut over ranks they get another one.

import { attention, packedAttention } from '../ops/attention.js'
import type { SequencePart } from '../ops/random.js'
import type { Tensor } from '../tensor/tensor.js'

/** What a module asks about the sequence dim of its tensors (B, T, …). */
export interface Sequence {
  /** The tokens of a model's input (B, T, …) that are here. */
  take(input: Tensor): Tensor
  /** Where the `tokens` tokens here lie; undefined: they are the whole. */
  part(tokens: number): SequencePart | undefined
  /** As ops.attention and ops.packedAttention, of the tokens here over all. */
  attention: typeof attention
  packedAttention: typeof packedAttention
}

/**
 * Every token is here. A module that starts with it can be cut (parallelizeContext).
 *
 * @example
 * class Attention extends nn.Module {
 *   numHeads = 2
 *   sequence = nn.wholeSequence
 *   readonly qkv = new nn.Linear(4, 12)
 *   forward(x: Tensor): Tensor {
 *     return this.sequence.packedAttention(this.qkv.forward(x), { numHeads: this.numHeads })
 *   }
 * }
 * new Attention().materialize().forward(tensor(new Float32Array(12), [1, 3, 4])).shape // [1, 3, 4]
 */
export const wholeSequence: Sequence = { take: (input) => input, part: () => undefined, attention, packedAttention }

/** Positions of the tokens of a part. */
export function positionsOf(part: SequencePart | undefined, tokens: number): Int32Array {
  const { first = 0, split = tokens, second = 0 } = part ?? {}
  return Int32Array.from({ length: tokens }, (_, t) => (t < split ? first + t : second + t - split))
}

/** Where `count` of the `tokens` tokens of a part lie, from the `from`-th on. */
export function partWithin(part: SequencePart | undefined, tokens: number, from: number, count: number): SequencePart {
  const { first = 0, length = tokens, split = tokens, second = 0 } = part ?? {}
  if (from >= split) return { first: second + from - split, length }
  const own = { first: first + from, length }
  return from + count <= split ? own : { ...own, split: split - from, second }
}

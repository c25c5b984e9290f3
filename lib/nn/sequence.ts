// What a model knows of its sequence dim: which tokens are here, which positions they have, how they attend to all
// others. Modules that depend on it have a field `sequence`; where sequences are cut over ranks they get another one.

import { attention, packedAttention } from '../ops/attention.js'
import type { SequencePart } from '../ops/random.js'
import type { Tensor } from '../tensor/tensor.js'

export interface Sequence {
  /** The tokens of a model's input (B, T, …) that are here. */
  take(input: Tensor): Tensor
  /** Where the `tokens` tokens here lie; undefined: they are the whole. */
  part(tokens: number): SequencePart | undefined
  attention: typeof attention
  packedAttention: typeof packedAttention
}

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

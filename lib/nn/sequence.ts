// What a model knows of its sequence dim: which positions the tokens here have, and how they attend to all others.
// Modules that depend on it have a field `sequence`; where a sequence is cut over ranks they are given another one.

import { attention, packedAttention } from '../ops/attention.js'
import type { SequencePart } from '../ops/random.js'

export interface Sequence {
  /** Where the `tokens` tokens here lie; undefined: they are the whole. */
  part(tokens: number): SequencePart | undefined
  attention: typeof attention
  packedAttention: typeof packedAttention
}

export const wholeSequence: Sequence = { part: () => undefined, attention, packedAttention }

/** Positions of the tokens of a part. */
export function positionsOf(part: SequencePart | undefined, tokens: number): Int32Array {
  const { first = 0, split = tokens, second = 0 } = part ?? {}
  return Int32Array.from({ length: tokens }, (_, t) => (t < split ? first + t : second + t - split))
}

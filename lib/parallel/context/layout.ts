// Which tokens of a sequence each context-parallel rank has. Pure.
//
//   ulysses   rank r of n has one piece:                    0 | 1 | 2 | 3
//   ring      chunks r and 2n-1-r, so that all ranks have
//             as many pairs of a query and a key before it: 0 | 1 | 2 | 3 | 3 | 2 | 1 | 0

import { ZeroshardError } from '../../binding/errors.js'
import * as ops from '../../ops/index.js'
import type { Tensor } from '../../tensor/tensor.js'

export const contextKinds = ['ulysses', 'ring'] as const
/** How attention sees a whole sequence that is cut over ranks. */
export type ContextKind = (typeof contextKinds)[number]

/** The place of one rank among those that share sequences. */
export interface ContextPlace {
  kind: ContextKind
  rank: number
  size: number
}

/** The ring's chunks of rank `rank`, counted along the sequence. */
export const chunksOf = (rank: number, size: number): [number, number] => [rank, 2 * size - 1 - rank]

/** Where the `tokens` tokens of a rank lie. */
export function partOf({ kind, rank, size }: ContextPlace, tokens: number): ops.SequencePart {
  const length = size * tokens
  if (kind === 'ulysses') return { first: rank * tokens, length }
  const split = tokens / 2
  const [first, second] = chunksOf(rank, size).map((chunk) => chunk * split) as [number, number]
  return { first, length, split, second }
}

/** Tokens of each rank. @throws CONFIG where a sequence of `length` tokens does not divide. */
export function tokensPerRank({ kind, size }: Omit<ContextPlace, 'rank'>, length: number): number {
  const pieces = kind === 'ring' ? 2 * size : size
  if (length % pieces !== 0) {
    const [below, above] = [Math.floor(length / pieces) * pieces, Math.ceil(length / pieces) * pieces]
    const cure = below > 0 ? `${below} or ${above}` : String(above)
    throw new ZeroshardError(
      'CONFIG',
      `[context] a sequence of ${length} tokens does not divide into ${pieces} pieces (context ${size}, ${kind}); use ${cure} (data.sequence_length)`,
    )
  }
  return length / size
}

/** This rank's tokens of x (B, T, …), which must not want gradients. */
export function takeTokens(x: Tensor, place: ContextPlace): Tensor {
  const tokens = tokensPerRank(place, x.shape[1] as number)
  const { first, split = tokens, second = 0 } = partOf(place, tokens)
  const part = ops.slice(x, 1, first, first + split)
  return split === tokens ? part : ops.concat([part, ops.slice(x, 1, second, second + tokens - split)], 1)
}

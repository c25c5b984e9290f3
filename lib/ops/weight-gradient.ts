// Where a weight's gradient goes: straight into the parameter's gradient buffer wherever that can be.

import type { BackwardContext } from '../autograd/tape.js'
import { empty, type Tensor } from '../tensor/tensor.js'

/**
 * Lets `compute` add into the leaf's gradient buffer (f32, or of `like`'s dtype), or write a fresh tensor where there
 * is none. Where `uses` says which tensors it needs, it may be called later.
 */
export function weightGradient(
  context: BackwardContext,
  index: number,
  like: Tensor,
  compute: (into: Tensor, accumulate: boolean) => void,
  uses?: readonly Tensor[],
): Tensor | undefined {
  const sink = context.sink(index, like.dtype)
  if (sink) {
    if (!uses || !context.postpone(index, uses, () => compute(sink, true))) compute(sink, true)
    return undefined
  }
  // A leaf whose buffer is of another type adds it in f32.
  const fresh = empty(like.shape, { dtype: like.producer ? like.dtype : 'f32' })
  compute(fresh, false)
  return fresh
}

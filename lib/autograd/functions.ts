// What users build on the tape: gradients of a loss, custom functions, recomputation, a gradient check.

import { ZeroshardError } from '../binding/errors.js'
import { tidy } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'
import {
  type BackwardRule,
  backward,
  collectLeaves,
  isRecording,
  type PostponedWork,
  record,
  willRecord,
  withGrad,
} from './tape.js'

/**
 * Backward from a scalar loss; gradients are added to the leaves' `grad`, times `scale`.
 * @throws AUTOGRAD where the loss is no scalar, or depends on nothing that wants a gradient.
 */
export function backwardFrom(loss: Tensor, scale = 1, postponed?: PostponedWork): void {
  loss.check('backward')
  if (loss.count !== 1) {
    throw new ZeroshardError(
      'AUTOGRAD',
      `[backward] needs a scalar loss, got ${loss.describe()}; reduce it first (ops.mean)`,
    )
  }
  if (!loss.producer) {
    throw new ZeroshardError('AUTOGRAD', '[backward] the loss depends on no parameter, or was computed under noGrad()')
  }
  const seed = empty(loss.shape, { dtype: loss.dtype })
  runOp('fill', [seed], [], [scale])
  backward([loss], [seed], postponed)
  seed.dispose()
}

/** An operation with its own gradient rule: forward computes without recording, backward maps output gradients to input gradients. */
export function customFunction(
  name: string,
  inputs: readonly Tensor[],
  forward: () => Tensor,
  rule: BackwardRule,
  saved: readonly Tensor[] = [],
): Tensor {
  const { result } = collectLeaves(forward)
  record(name, [result], inputs, saved, rule)
  return result
}

/** State that a recomputed part must see as it was (the random counter); set by lib/ops/random. */
export const recomputeState: { save(): unknown; restore(state: unknown): void } = {
  save: () => undefined,
  restore: () => {},
}

/**
 * Activation checkpointing: runs `fn` without keeping its activations and runs it again in backward, with
 * the same random numbers. `fn` must be a pure function of its inputs and of parameters.
 */
export function checkpoint(fn: (...inputs: Tensor[]) => Tensor, ...inputs: Tensor[]): Tensor {
  if (!isRecording()) return fn(...inputs)
  const before = recomputeState.save()
  const { result, leaves } = collectLeaves(() => tidy(() => fn(...inputs)))
  if (!willRecord(inputs) && leaves.size === 0) return result
  record(
    'checkpoint',
    [result],
    inputs,
    inputs,
    ([gradient], context) => {
      if (!gradient) return []
      const after = recomputeState.save()
      recomputeState.restore(before)
      const again = inputs.map((input, index) => {
        const copy = input.view(input.shape)
        copy.requiresGrad = context.needs(index)
        return copy
      })
      withGrad(() => backward([fn(...again)], [gradient]))
      recomputeState.restore(after)
      return again.map((copy) => {
        const grad = copy.grad
        if (!grad || copy.dtype === 'f32') return grad
        const narrow = empty(grad.shape, { dtype: copy.dtype })
        runOp('cast', [narrow], [grad])
        grad.dispose()
        return narrow
      })
    },
    leaves,
  )
  return result
}

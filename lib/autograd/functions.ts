// What users build on the tape: gradients of a loss, custom functions, recomputation, a gradient check.

import { ZeroshardError } from '../binding/errors.js'
import { tidy } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'
import {
  type BackwardContext,
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
 * Backward from a scalar loss; gradients are added to the leaves' `grad`, times `scale` (a function: a graph's own).
 * @throws AUTOGRAD where the loss is no scalar, or depends on nothing that wants a gradient.
 * @example
 * const x = tensor([1, 2])
 * x.requiresGrad = true
 * backwardFrom(ops.sum(ops.square(x)))
 * x.grad as Tensor // [2, 4]
 */
export function backwardFrom(loss: Tensor, scale: number | (() => number) = 1, postponed?: PostponedWork): void {
  checkLoss(loss)
  const seed = empty(loss.shape, { dtype: loss.dtype })
  runOp('fill', [seed], [], typeof scale === 'number' ? [scale] : () => [scale()])
  try {
    backward([loss], [seed], { postponed })
  } finally {
    seed.dispose()
  }
}

/** @throws where a backward cannot begin at it: it is no scalar, or depends on nothing that wants a gradient. */
export function checkLoss(loss: Tensor): void {
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
}

/** What a custom forward gives: its result, or that and the tensors made on the way that its rule needs. */
export type CustomResult = Tensor | { result: Tensor; saved: readonly Tensor[] }

/**
 * An operation with its own gradient rule. `forward` computes from `inputs` without recording; `rule` maps the
 * output's gradient to those of the inputs (undefined where there is none). The tensors that the rule needs are
 * named in `saved`, or by `forward` where it makes them: they live until backward.
 *
 * @example
 * import { customFunction, gradCheck, ops, type Tensor, tensor } from 'zeroshard'
 *
 * // x³, whose rule needs x.
 * const cube = (x: Tensor): Tensor =>
 *   customFunction(
 *     'cube',
 *     [x],
 *     () => ops.mul(x, ops.square(x)),
 *     ([dy]) => [dy && ops.mul(dy, ops.scale(ops.square(x), 3))],
 *     [x],
 *   )
 * await gradCheck(cube, [tensor([1, 2, 3])])
 */
export function customFunction(
  name: string,
  inputs: readonly Tensor[],
  forward: () => CustomResult,
  rule: BackwardRule,
  saved: readonly Tensor[] = [],
): Tensor {
  return tidy(() => {
    const { result: given } = collectLeaves(forward)
    const made = 'saved' in given ? given : { result: given, saved: [] }
    const result = inputs.includes(made.result) ? made.result.view(made.result.shape) : made.result
    record(name, [result], inputs, [...saved, ...made.saved], rule)
    return result
  })
}

/** State that a recomputed part must see as it was (the random counter); set by lib/ops/random. */
export const recomputeState: { save(): unknown; restore(state: unknown): void } = {
  save: () => undefined,
  restore: () => {},
}

/**
 * Activation checkpointing: runs `fn` without keeping its activations and runs it again in backward, with
 * the same random numbers. `fn` must be a pure function of its inputs and of parameters.
 *
 * @example
 * import { checkpoint, nn, ops, tidy, tensor, type Tensor } from 'zeroshard'
 *
 * const up = new nn.Linear(8, 32).materialize()
 * const x = tensor(new Float32Array(16).fill(0.5), [2, 8])
 * const block = (x: Tensor): Tensor => tidy(() => ops.gelu(up.forward(x)))
 * const loss = tidy(() => ops.mean(checkpoint(block, x))) // only x is kept for backward
 * console.log(await loss.item())
 */
export function checkpoint(fn: (...inputs: Tensor[]) => Tensor, ...inputs: Tensor[]): Tensor {
  if (!isRecording()) return fn(...inputs)
  const before = recomputeState.save()
  const { result, leaves } = collectLeaves(() => tidy(() => fn(...inputs)))
  if (inputs.includes(result) || (!willRecord(inputs) && leaves.size === 0)) return result
  record(
    'checkpoint',
    [result],
    inputs,
    inputs,
    ([gradient], context) => (gradient ? recompute(fn, inputs, gradient, before, context) : []),
    leaves,
  )
  return result
}

function recompute(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  gradient: Tensor,
  state: unknown,
  context: BackwardContext,
): (Tensor | undefined)[] {
  const after = recomputeState.save()
  recomputeState.restore(state)
  const again = inputs.map((input, index) => {
    const copy = input.view(input.shape)
    copy.requiresGrad = context.needs(index)
    return copy
  })
  try {
    withGrad(() => backward([fn(...again)], [gradient], { recomputed: true }))
  } catch (error) {
    for (const copy of again) copy.grad?.dispose()
    throw error
  } finally {
    recomputeState.restore(after)
  }
  return again.map((copy) => {
    const grad = copy.grad
    if (!grad || copy.dtype === 'f32') return grad
    const narrow = empty(grad.shape, { dtype: copy.dtype })
    runOp('cast', [narrow], [grad])
    grad.dispose()
    return narrow
  })
}

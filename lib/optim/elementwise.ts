// Optimizers with one state or none whose update looks at one element at a time: SGD, Adagrad, Lion.

import { ZeroshardError } from '../binding/errors.js'
import { runOp } from '../tensor/tensor.js'
import type { Optimizer, OptimizerPart, UpdateCall } from './optimizer.js'
import { betasOf, flagOf, numberOf, type Params } from './params.js'

/** Runs a kernel with param, state, out and gradient; `scalars` are the op's own, before those of the gradient. */
function run(
  op: string,
  part: OptimizerPart,
  state: string | undefined,
  call: UpdateCall,
  scalars: () => number[],
): void {
  if (part.param.count === 0) return
  runOp(
    op,
    [part.param, state === undefined ? undefined : part.states[state], part.out, part.grad],
    [call.norm],
    () => [...scalars(), call.gradScale, call.maxNorm, call.zeroGrad ? 1 : 0],
  )
}

/** PyTorch's SGD. Without momentum it has no state. */
export function sgd(params: Params): Optimizer {
  const momentum = numberOf(params, 'momentum', 0)
  const dampening = numberOf(params, 'dampening', 0)
  const nesterov = flagOf(params, 'nesterov', false) ? 1 : 0
  if (nesterov && (momentum === 0 || dampening !== 0)) {
    throw new ZeroshardError(
      'CONFIG',
      `optimizer.params.nesterov needs momentum above 0 and no dampening, got momentum ${momentum} and dampening ${dampening}`,
    )
  }
  const state = momentum === 0 ? undefined : 'momentum_buffer'
  return {
    type: 'SGD',
    states: state === undefined ? [] : [state],
    needsWholeParameters: false,
    update(part, call, weightDecay) {
      // The first gradient enters the buffer undamped.
      const damped = (): number => (call.update === 1 ? 0 : dampening)
      run('sgd', part, state, call, () => [call.lr, momentum, damped(), weightDecay, nesterov])
    },
  }
}

/** Adagrad (Duchi and others, 2011) with L2, as PyTorch's. */
export function adagrad(params: Params): Optimizer {
  const eps = numberOf(params, 'eps', 1e-10)
  const lrDecay = numberOf(params, 'lr_decay', 0)
  return {
    type: 'Adagrad',
    states: ['sum'],
    needsWholeParameters: false,
    update: (part, call, weightDecay) =>
      run('adagrad', part, 'sum', call, () => [call.lr / (1 + (call.update - 1) * lrDecay), eps, weightDecay]),
  }
}

/** Lion (Chen and others, 2023). */
export function lion(params: Params): Optimizer {
  const [beta1, beta2] = betasOf(params, [0.9, 0.99])
  return {
    type: 'Lion',
    states: ['exp_avg'],
    needsWholeParameters: false,
    update: (part, call, weightDecay) =>
      run('lion', part, 'exp_avg', call, () => [call.lr, call.momentum ?? beta1, beta2, weightDecay]),
  }
}

// AdamW (and Adam with L2) over flat buffers, one pass of one kernel.

import { runOp, type Scalars, type Tensor } from '../tensor/tensor.js'
import type { Optimizer, OptimizerPart, UpdateCall } from './optimizer.js'
import { betasOf, biasOf, flagOf, numberOf, type Params } from './params.js'

export interface AdamWOptions {
  lr: number
  betas: readonly [number, number]
  eps: number
  weightDecay: number
  /** False: Adam with L2 regularisation. */
  decoupled: boolean
  biasCorrection: boolean
}

/** Equal-sized flat ranges. `param` is f32; `out` gets it in the model's 16-bit dtype. */
export interface AdamWBuffers {
  param: Tensor
  m: Tensor
  v: Tensor
  out?: Tensor | undefined
  grad: Tensor
}

export interface AdamWCall {
  /** Index of this update, from 1. */
  update: number
  /** Global norm of the gradients as stored (f32 scalar); where it is not finite the update does nothing. */
  norm?: Tensor | undefined
  /** 0: no clipping. */
  maxNorm: number
  gradScale: number
  /** Default: true. */
  zeroGrad?: boolean
}

/** One update; zeroes the gradient in the same pass. */
export function adamw(buffers: AdamWBuffers, options: AdamWOptions, call: AdamWCall): void {
  run(buffers, call.norm, () => scalarsOf(options, call))
}

const run = ({ param, m, v, out, grad }: AdamWBuffers, norm: Tensor | undefined, scalars: Scalars): void =>
  runOp('adamw', [param, m, v, out, grad], [norm], scalars)

function scalarsOf(options: AdamWOptions, call: AdamWCall): number[] {
  const [beta1, beta2] = options.betas
  return [
    options.lr,
    beta1,
    beta2,
    options.eps,
    options.weightDecay,
    biasOf(beta1, call.update, options.biasCorrection),
    biasOf(beta2, call.update, options.biasCorrection),
    call.gradScale,
    call.maxNorm,
    options.decoupled ? 1 : 0,
    (call.zeroGrad ?? true) ? 1 : 0,
  ]
}

/** Adam(W)'s hyperparameters without those that come with a call. */
export type AdamWFixed = Omit<AdamWOptions, 'lr' | 'weightDecay'>

export function updateAdamW(part: OptimizerPart, fixed: AdamWFixed, call: UpdateCall, weightDecay: number): void {
  if (part.param.count === 0) return
  const { param, out, grad, states } = part
  const buffers = { param, out, grad, m: states.exp_avg as Tensor, v: states.exp_avg_sq as Tensor }
  run(buffers, call.norm, () => {
    const betas = [call.momentum ?? fixed.betas[0], fixed.betas[1]] as const
    return scalarsOf({ ...fixed, betas, lr: call.lr, weightDecay }, call)
  })
}

function make(type: string, params: Params, decoupled: boolean): Optimizer {
  const fixed: AdamWFixed = {
    betas: betasOf(params, [0.9, 0.999]),
    eps: numberOf(params, 'eps', 1e-8),
    decoupled,
    biasCorrection: flagOf(params, 'bias_correction', true),
  }
  return {
    type,
    states: ['exp_avg', 'exp_avg_sq'],
    needsWholeParameters: false,
    update: (part, call, weightDecay) => updateAdamW(part, fixed, call, weightDecay),
  }
}

export const adamW = (params: Params): Optimizer => make('AdamW', params, true)
/** DeepSpeed's Adam: AdamW, unless adam_w_mode is false. */
export const adam = (params: Params): Optimizer => make('Adam', params, flagOf(params, 'adam_w_mode', true))

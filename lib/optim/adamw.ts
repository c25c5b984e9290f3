// AdamW (and Adam with L2) over flat buffers, one pass of one kernel.

import { runOp, type Tensor } from '../tensor/tensor.js'

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
  norm?: Tensor
  /** 0: no clipping. */
  maxNorm: number
  gradScale: number
}

/** One update; zeroes the gradient in the same pass. */
export function adamw(buffers: AdamWBuffers, options: AdamWOptions, call: AdamWCall): void {
  const [beta1, beta2] = options.betas
  const bias = (beta: number): number => (options.biasCorrection ? 1 - beta ** call.update : 1)
  runOp(
    'adamw',
    [buffers.param, buffers.m, buffers.v, buffers.out, buffers.grad],
    [call.norm],
    [
      options.lr,
      beta1,
      beta2,
      options.eps,
      options.weightDecay,
      bias(beta1),
      bias(beta2),
      call.gradScale,
      call.maxNorm,
      options.decoupled ? 1 : 0,
      1,
    ],
  )
}

// What ZeRO asks of an optimizer.

import type { ProcessGroup } from '../parallel/group.js'
import type { Shape, Tensor } from '../tensor/tensor.js'
import { adamw } from './adamw.js'

export interface UpdateCall {
  lr: number
  update: number
  norm?: Tensor
  maxNorm: number
  gradScale: number
  zeroGrad: boolean
}
export interface ParameterPiece {
  name: string
  shape: Shape
  start: number
  count: number
  offset: number
}
export interface OptimizerPart {
  param: Tensor
  out?: Tensor
  grad: Tensor
  states: Record<string, Tensor>
  pieces: readonly ParameterPiece[]
  group: ProcessGroup
}
export interface Optimizer {
  readonly type: string
  readonly states: readonly string[]
  readonly needsWholeParameters: boolean
  update(part: OptimizerPart, call: UpdateCall, weightDecay: number): void
}
export function makeOptimizer({ type, params }: { type: string; params: Record<string, unknown> }): Optimizer {
  return {
    type,
    states: ['exp_avg', 'exp_avg_sq'],
    needsWholeParameters: false,
    update: (part, call, weightDecay) =>
      adamw(
        {
          param: part.param,
          m: part.states.exp_avg as Tensor,
          v: part.states.exp_avg_sq as Tensor,
          out: part.out,
          grad: part.grad,
        },
        {
          lr: call.lr,
          betas: params.betas as [number, number],
          eps: params.eps as number,
          weightDecay,
          decoupled: type === 'AdamW' || Boolean(params.adam_w_mode),
          biasCorrection: Boolean(params.bias_correction ?? true),
        },
        {
          update: call.update,
          maxNorm: call.maxNorm,
          gradScale: call.gradScale,
          ...(call.norm && { norm: call.norm }),
        },
      ),
  }
}

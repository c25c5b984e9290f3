// What an optimizer is to the rest: a name, its states, and an update of one flat range. Makes the one a configuration
// names. An update reads and writes only its part; those that need whole parameters also talk over the part's group.

import { nearest, ZeroshardError } from '../binding/errors.js'
import type { Sliced } from '../nn/parts.js'
import type { Shape, Tensor } from '../tensor/tensor.js'
import { adam, adamW } from './adamw.js'
import { adagrad, lion, sgd } from './elementwise.js'
import { lamb } from './lamb.js'
import { muon } from './muon.js'

/** May change after update(): a graph of it asks again, through the functions that are its scalars. */
export interface UpdateCall {
  /** Of this group already. */
  lr: number
  /** Index of this update, from 1; updates that were left out don't count. */
  update: number
  /** Global norm of the gradients as stored, f32 scalar. Not finite: the update does nothing, the gradient stays. */
  norm?: Tensor
  /** 0: no clipping. */
  maxNorm: number
  /** Gradients are multiplied by it: 1 / loss scale. */
  gradScale: number
  zeroGrad: boolean
  /** Where a schedule cycles it: instead of the first beta. */
  momentum?: number | undefined
}

export interface ParameterPiece {
  name: string
  /** Of the whole parameter (on this tensor rank). */
  shape: Shape
  /** First element, within the parameter. */
  start: number
  count: number
  /** Within the part. */
  offset: number
  /** Where tensor ranks have parts of it: `shape` is this rank's. */
  sliced?: Sliced | undefined
}

/** How a range of a unit is cut among the ranks of a group: part after part, in rank order. See `cutRange`. */
export interface RangeCut {
  /** Elements of each rank's part; 0 for some, where the range ends before their shard or begins after it. */
  counts: readonly number[]
  /** All parameters of the range in order, with their first element's place in it. */
  parameters: readonly { name: string; shape: Shape; begin: number; sliced?: Sliced | undefined }[]
}

/** What optimizers need of a process group. */
export interface PartGroup {
  readonly rank: number
  readonly size: number
  allReduce(tensor: Tensor): Tensor
  allGather(output: Tensor, input: Tensor): Tensor
}

/** One rank's flat range of a unit with one set of hyperparameters. All tensors have as many elements. */
export interface OptimizerPart {
  /** f32 master values. */
  param: Tensor
  /** Gets the new values in bf16 or f16. */
  out?: Tensor | undefined
  grad: Tensor
  /** f32, by name. */
  states: Record<string, Tensor>
  pieces: readonly ParameterPiece[]
  /** Over which the range is sharded; of size 1: the part is the whole range. */
  group: PartGroup
  /** Where the group has more than one rank and the optimizer needs whole parameters. */
  cut?: RangeCut | undefined
}

export interface Optimizer {
  readonly type: string
  /** Names of its states, each as large as the parameters: `exp_avg`, … */
  readonly states: readonly string[]
  /**
   * True where an update looks at all of a parameter (norms, matrices): then it may call collectives over the part's
   * group and over those of sliced parameters, so that all ranks call it for the same ranges in the same order, also
   * with an empty part.
   */
  readonly needsWholeParameters: boolean
  update(part: OptimizerPart, call: UpdateCall, weightDecay: number): void
}

export interface OptimizerConfig {
  type: string
  params: Record<string, unknown>
}

const optimizers: Record<string, (params: Record<string, unknown>) => Optimizer> = {
  AdamW: adamW,
  Adam: adam,
  Lamb: lamb,
  Lion: lion,
  Adagrad: adagrad,
  SGD: sgd,
  Muon: muon,
}

/**
 * The optimizer of an `optimizer` section. Parameters that are left out have DeepSpeed's defaults.
 *
 * @example makeOptimizer({ type: 'Lion', params: { betas: [0.9, 0.99] } })
 */
export function makeOptimizer({ type, params }: OptimizerConfig): Optimizer {
  const make = Object.hasOwn(optimizers, type) ? optimizers[type] : undefined
  if (make) return make(params)
  const names = Object.keys(optimizers)
  const near = nearest(type, names)
  throw new ZeroshardError(
    'CONFIG',
    `optimizer.type '${type}' is not one of ${names.join(', ')}${near ? `; did you mean ${near}?` : ''}`,
  )
}

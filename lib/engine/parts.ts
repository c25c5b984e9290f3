// What an engine is made of, and what its steps and saves take and give.

import { ZeroshardError } from '../binding/errors.js'
import type { Ranks } from '../checkpoint/agreement.js'
import type { Module } from '../nn/module.js'
import type { LossScaler } from '../optim/loss-scale.js'
import type { Schedule } from '../optim/schedules.js'
import type { Fp8 } from '../parallel/fp8/layers.js'
import type { Mesh } from '../parallel/mesh.js'
import type { Zero } from '../parallel/zero/zero.js'
import type { MemoryByCategory } from '../tensor/memory.js'
import type { Tensor } from '../tensor/tensor.js'

/** A model whose forward gives what backward takes: a scalar loss. */
export type Trainable<Args extends Tensor[]> = Module & { forward(...args: Args): Tensor }

export interface EngineParts {
  zero: Zero
  mesh: Mesh
  /** Where ranks agree without a collective. */
  meeting: Ranks
  /** Undefined: the loss is not scaled (f32, bf16). */
  scaler?: LossScaler
  /** Where linears multiply in 8 bits. */
  fp8?: Fp8
  schedule: Schedule
  seed: number
  microBatchSize: number
  accumulationSteps: number
  /** 0: no clipping. */
  maxNorm: number
  /** What every loss is divided by for backward, besides accumulation. */
  lossShare: number
  /** For the user: what was given and changes nothing, how a model without a plan was cut. */
  hints: readonly string[]
  stage: number
  /** Saves are in the background unless said otherwise. */
  asyncSave?: boolean
  /** Steps of trainBatch() are captured and launched as graphs, where they can be. */
  graphs?: boolean
  /** Told what a user may want to know of how steps are run, each thing once. */
  onNote?: (text: string) => void
  /** Told, on every rank, the first parameter whose gradient was infinite or NaN in a step that was therefore skipped. */
  onNotFinite?: (step: number, parameter: string) => void
  /** After each step that updated the model; the samples of that step, over all ranks. */
  onStep?: (result: StepResult, samples: number) => void
  /** Called by close(), last. */
  onClose?: () => Promise<void>
}

/** What a step that updated the model resolves with. */
export interface StepResult {
  step: number
  /** Mean over the global batch. */
  loss: number
  lr: number
  /** Global, before clipping. */
  gradNorm: number
  lossScale: number
  /** True where the gradients were not finite and the update was left out. */
  skipped: boolean
  /** Of a skipped step: the first parameter, in the model's order, whose gradient was infinite or NaN. */
  notFinite?: string
  memory: MemoryByCategory
  memoryPeak: MemoryByCategory
}

/** What goes into a checkpoint beside the parameters, and how many checkpoints stay. */
export interface SaveOptions {
  client?: Record<string, unknown>
  model?: Record<string, unknown>
  tokenizer?: string
  /** Newest checkpoints to keep; 0: all. */
  retain?: number
  /** True: in the background, from a copy in host memory (not of what lies on disk). Default: `checkpoint.async_save`. */
  async?: boolean
}

/** A checkpoint that was loaded: its folder, and what the user had put into it. */
export interface LoadedCheckpoint {
  path: string
  client: Record<string, unknown>
}

/** Of a step that is done: where to look when its loss is no number. */
export function lossNotFinite(
  done: { globalSteps: number; samples: number },
  loss: number,
  samples: number,
  parameter: string | undefined,
): ZeroshardError {
  const first = parameter ? ` (the first gradient that is not finite is that of ${parameter})` : ''
  return new ZeroshardError(
    'NOT_FINITE',
    `the loss of step ${done.globalSteps} is ${loss}${first}; lower the learning rate, or look at the data of samples ${done.samples - samples} to ${done.samples - 1}`,
  )
}

/** Micro-batches of a rank in a global batch of `size`. @throws ARGUMENT where they are not whole. */
export function accumulationOf(size: number, { microBatchSize, mesh: { sizes } }: EngineParts): number {
  const each = microBatchSize * sizes.dp
  if (Number.isInteger(size) && size > 0 && size % each === 0) return size / each
  const near = Math.max(1, Math.round(size / each) || 1) * each
  throw new ZeroshardError(
    'ARGUMENT',
    `[setTrainBatchSize] ${size} is not a multiple of micro-batch ${microBatchSize} x ${sizes.dp} data-parallel ranks; use ${near}`,
  )
}

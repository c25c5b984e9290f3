// Bytes of model states per rank, by the formulas of the ZeRO paper (Rajbhandari et al. 2020, section 5), before
// anything is allocated. What is then measured differs by padding alone.

import { ZeroshardError } from '../../binding/errors.js'
import type { Module } from '../../nn/module.js'
import type { Stage } from './unit.js'

export interface EstimateRequest {
  /** A model without memory yet (frozen parameters have no gradients and states), or its number of parameters. */
  model: Module | number
  stage: Stage
  /** Data-parallel ranks. */
  numRanks: number
  precision?: 'fp32' | 'bf16' | 'fp16'
  /** f32 values per parameter that the optimizer keeps: 2 for Adam. */
  numStates?: number
  offloadOptimizer?: boolean
  offloadParameters?: boolean
}

/** Bytes of model states on one rank. */
export interface Estimate {
  /** Device bytes. */
  parameters: number
  gradients: number
  optimizer: number
  /** Host bytes (offloaded). */
  host: number
  total: number
}

/**
 * What the states of a model take on each rank. @throws ARGUMENT where parameters or ranks are no positive number.
 *
 * @example
 * estimateModelStates({ model: 1000, stage: 3, numRanks: 4 }).total // 4500
 */
export function estimateModelStates(request: EstimateRequest): Estimate {
  const { model, stage, numRanks, precision = 'bf16', numStates = 2 } = request
  const parts = typeof model === 'number' ? [{ count: model, trainable: true }] : model.parameters()
  const [count, trained] = [parts, parts.filter(({ trainable }) => trainable)].map((some) =>
    some.reduce((sum, { count: n }) => sum + n, 0),
  ) as [number, number]
  if (!(count > 0) || !(Number.isInteger(numRanks) && numRanks > 0))
    throw new ZeroshardError('ARGUMENT', `[estimate] ${count} parameters on ${numRanks} ranks; both must be positive`)
  const element = precision === 'fp32' ? 4 : 2
  const perState = 4 * (numStates + (precision === 'fp32' ? 0 : 1))
  const share = (of: number, from: Stage): number => of / (stage >= from ? numRanks : 1)
  const parameters = element * share(count, 3)
  const [gradients, optimizer] = [4 * share(trained, 2), perState * share(trained, 1)]
  const host = (request.offloadOptimizer ? optimizer : 0) + (request.offloadParameters ? parameters : 0)
  return {
    parameters: request.offloadParameters ? 0 : parameters,
    gradients,
    optimizer: request.offloadOptimizer ? 0 : optimizer,
    host,
    total: parameters + gradients + optimizer,
  }
}

/**
 * The same for stage 2 (DeepSpeed: estimate_zero2_model_states_mem_needs).
 *
 * @example
 * estimateZero2({ model: 1000, numRanks: 4 }).parameters // 2000
 */
export const estimateZero2 = (request: Omit<EstimateRequest, 'stage'>): Estimate =>
  estimateModelStates({ ...request, stage: 2 })

/**
 * The same for stage 3 (DeepSpeed: estimate_zero3_model_states_mem_needs).
 *
 * @example
 * estimateZero3({ model: 1000, numRanks: 4 }).parameters // 500
 */
export const estimateZero3 = (request: Omit<EstimateRequest, 'stage'>): Estimate =>
  estimateModelStates({ ...request, stage: 3 })

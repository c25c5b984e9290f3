// ZeRO over units: when gradients are reduced, what the optimizer updates, when parameters are gathered.
// Collectives are queued in one fixed order on every rank: blocks from the last to the first, the root last,
// each as soon as it and all before it are complete.

import type { Module } from '../../nn/module.js'
import { type AdamWOptions, adamw } from '../../optim/adamw.js'
import { tidy } from '../../tensor/scope.js'
import { type DType, empty, runOp, type Tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { layoutUnits } from './layout.js'
import { lifetimes, makeUnit, type Stage, type Unit } from './unit.js'

export interface ZeroOptions {
  stage: Stage
  dtype: DType
  seed: number
  group: ProcessGroup
  optimizer: Omit<AdamWOptions, 'lr'>
  decayMatricesOnly: boolean
  /** False: reduce after backward instead of under it. */
  overlap: boolean
}

export class Zero {
  readonly units: readonly Unit[]
  readonly #order: readonly Unit[]
  readonly #left = new Map<Unit, number>()
  #next = 0
  #boundary = false

  constructor(
    model: Module,
    readonly options: ZeroOptions,
  ) {
    const { group, stage, dtype, seed, decayMatricesOnly } = options
    this.units = layoutUnits(model, group.size).map((layout) =>
      makeUnit(layout, { stage, dtype, seed, decayMatricesOnly, rank: group.rank }),
    )
    const trainable = this.units.filter((unit) => unit.gradients)
    const roots = trainable.filter((unit) => unit.layout.name === 'root')
    this.#order = [...trainable.filter((unit) => !roots.includes(unit)).reverse(), ...roots]
    for (const unit of trainable) this.#watch(unit)
  }

  #watch(unit: Unit): void {
    for (const { parameter } of unit.layout.slots) {
      parameter.tensor.onGradient = () => {
        if (!this.#boundary || !this.options.overlap) return
        this.#left.set(unit, (this.#left.get(unit) ?? 0) - 1)
        this.#advance()
      }
    }
  }

  /** Before a backward; at the boundary of accumulation its gradients are reduced as they become complete. */
  beginBackward(boundary: boolean): void {
    this.#boundary = boundary
    this.#next = 0
    for (const unit of this.#order) this.#left.set(unit, unit.layout.slots.length)
  }

  #advance(): void {
    while (this.#next < this.#order.length && (this.#left.get(this.#order[this.#next] as Unit) ?? 1) <= 0) {
      this.#reduce(this.#order[this.#next++] as Unit)
    }
  }

  /** Reduces what backward left: units with parameters that it did not use. */
  finishReduction(): void {
    while (this.#next < this.#order.length) this.#reduce(this.#order[this.#next++] as Unit)
  }

  #reduce(unit: Unit): void {
    const { group, stage } = this.options
    if (group.size === 1) return
    const gradients = unit.gradients as Tensor
    if (lifetimes[stage].optimizer === 'full') group.allReduce(gradients, true)
    else group.reduceScatter(unit.ownGradients as Tensor, gradients, true)
  }

  /** Global L2 norm of the reduced gradients (f32 scalar): the same bits on every layout. */
  gradientNorm(): Tensor {
    const { group, stage } = this.options
    const sharded = lifetimes[stage].optimizer === 'shard' && group.size > 1
    return tidy(() => {
      let largest = empty([1], { zero: true, shared: true })
      for (const unit of this.#order) runOp('absmax', [largest], [unit.ownGradients])
      if (sharded) {
        const all = empty([group.size], { shared: true })
        group.allGather(all, largest)
        largest = empty([1], { zero: true })
        runOp('absmax', [largest], [all])
      }
      const sum = empty([2], { dtype: 'i64', zero: true, shared: true })
      for (const unit of this.#order) runOp('sum_squares', [sum], [unit.ownGradients, largest])
      if (sharded) group.allReduce(sum)
      const norm = empty([])
      runOp('norm_finish', [norm], [sum, largest])
      return norm
    })
  }

  /** One AdamW update of this rank's part, then the parameters of all. Zeroes the gradients. */
  update(call: { lr: number; update: number; norm: Tensor; maxNorm: number }): void {
    const { optimizer, stage } = this.options
    for (const unit of this.units) {
      if (!unit.gradients) continue
      for (const span of unit.spans) {
        adamw(
          span.buffers,
          { ...optimizer, lr: call.lr, weightDecay: span.decayed ? optimizer.weightDecay : 0 },
          { update: call.update, norm: call.norm, maxNorm: call.maxNorm, gradScale: 1 },
        )
      }
      unit.zeroStrays()
      if (lifetimes[stage].optimizer === 'shard') this.#gather(unit)
    }
  }

  #gather(unit: Unit): void {
    if (this.options.group.size > 1) this.options.group.allGather(unit.parameters, unit.ownParameters)
  }

  /** After masters were loaded: the model's copy, on every rank. */
  refresh(): void {
    for (const unit of this.units) {
      unit.refresh()
      if (lifetimes[this.options.stage].optimizer === 'shard') this.#gather(unit)
    }
  }

  dispose(): void {
    for (const unit of this.units) unit.dispose()
  }
}

// ZeRO over units: when gradients are reduced, what the optimizer updates, when parameters are gathered.
// Reductions are queued in one fixed order on every rank, the reverse of the units': each as soon as it and all
// before it are complete. The global norm does not depend on how anything is cut.

import { ZeroshardError } from '../../binding/errors.js'
import type { Module } from '../../nn/module.js'
import type { Parameter } from '../../nn/parameter.js'
import type { Optimizer, UpdateCall } from '../../optim/optimizer.js'
import { keep, tidy, unscoped } from '../../tensor/scope.js'
import { bytesPerElement, COMMUNICATION, COMPUTE, type DType, empty, runOp, type Tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { Fetcher } from './fetcher.js'
import { firstNotFinite } from './finite.js'
import { layoutUnits } from './layout.js'
import { checkOffload, filesOf, type OffloadOptions, planOffload, type SwapFiles } from './offload.js'
import type { Span } from './spans.js'
import { PAGE } from './swap-file.js'
import { Swapper } from './swapper.js'
import { lifetimes, makeUnit, type Offloadable, offloadables, type Stage, type Unit } from './unit.js'

/** Hyperparameters of a part of the parameters. */
export interface HyperGroup {
  weightDecay: number
  /** Times the schedule's rate. */
  lrScale: number
}

export interface ZeroOptions {
  stage: Stage
  dtype: DType
  /** In which gradients are accumulated; undefined: f32. */
  gradientDtype?: DType
  seed: number
  /** Over which parameters are replicated and gradients reduced: data and context parallelism. */
  group: ProcessGroup
  /** All ranks of the mesh: the global norm is over them. */
  world: ProcessGroup
  optimizer: Optimizer
  groups: readonly HyperGroup[]
  groupOf: (parameter: Parameter) => number
  /** False: communication on the compute stream. */
  overlap: boolean
  /** Gradients are averaged over the group, or summed. */
  average: boolean
  /** Where 16-bit gradients are averaged: what they are divided by before the sum; default: the average is exact. */
  predivide?: number
  /** What gradients travel as; undefined: what they are accumulated in. */
  communicationDtype?: DType
  /** Elements: largest unit, smallest sharded parameter, parameters to fetch ahead and to hold. */
  maxUnit: number
  persistBelow: number
  prefetch: number
  maxLive: number
  /** Modules in which ranks may take different ways: at stage 3 fetched whole. */
  leaf?: (module: Module) => boolean
  /** What lies in host memory or on disk. */
  offload?: OffloadOptions
  /** False for parameters of other pipeline stages. */
  include?: (parameter: Parameter) => boolean
}

export interface UpdateRequest {
  lr: number
  /** Index of the update, from 1. */
  update: number
  norm: Tensor
  maxNorm: number
  lossScale: number
  /** Where the schedule cycles it: instead of the first beta. */
  momentum?: number | undefined
}

export class Zero {
  readonly units: readonly Unit[]
  readonly fetcher: Fetcher | undefined
  /** Trainable units in the order in which their gradients are reduced. */
  readonly #order: readonly Unit[]
  readonly #left = new Map<Unit, number>()
  readonly #stream: number
  readonly files: SwapFiles
  readonly #swapper: Swapper
  /** Of #order, those that the backward under way goes through. */
  #queue: readonly Unit[] = []
  #next = 0
  #reducing = false
  /** The backward's reductions wait for its end. */
  #late = false
  /** Largest gradient of each unit of #order, of the last norm. */
  #largest: Tensor | undefined

  constructor(
    readonly model: Module,
    readonly options: ZeroOptions,
  ) {
    const { group, dtype, gradientDtype = 'f32', seed, optimizer, maxUnit, overlap } = options
    // Over one rank a shard is the whole: nothing is gained by copies of it.
    const { offload = {} } = options
    checkOffload(options.stage, offload)
    const stage = group.size === 1 && options.stage > 1 && !offload.parameters ? 1 : options.stage
    const keeps = lifetimes[stage]
    const sharded = keeps.parameters === 'shard'
    this.#stream = overlap ? COMMUNICATION : COMPUTE
    const layouts = layoutUnits(model, {
      numShards: group.size,
      groupOf: options.groupOf,
      maxUnit,
      persistBelow: sharded ? options.persistBelow : 0,
      splitRoot: sharded,
      ...(sharded && options.leaf && { leaf: options.leaf }),
      // Read from disk to their place in the whole, without a copy on the way.
      ...(offload.parameters?.device === 'nvme' && { alignment: PAGE / bytesPerElement[dtype] }),
      ...(options.include && { include: options.include }),
    })
    const plan = planOffload(layouts, { lifetimes: keeps, dtype, optimizer, offload }, options.world.rank)
    const { files } = plan
    this.files = files
    const units: Unit[] = []
    try {
      for (const [index, layout] of layouts.entries()) {
        const places = plan.places[index] as (typeof plan.places)[number]
        units.push(makeUnit(layout, { lifetimes: keeps, group, dtype, gradientDtype, seed, optimizer, places, files }))
      }
    } catch (error) {
      for (const unit of units) unit.dispose()
      for (const file of filesOf(files)) file.close()
      throw error
    }
    this.units = units
    this.#order = this.units.filter((unit) => unit.layout.trainable).reverse()
    this.#swapper = new Swapper(this.#order, offload.optimizer?.bufferCount ?? 2)
    for (const unit of this.#order) this.#watch(unit)
    if (sharded) {
      const { prefetch, maxLive } = options
      this.fetcher = new Fetcher(model, this.units, { group: group.duplicate(), prefetch, maxLive, overlap })
    }
  }

  #watch(unit: Unit): void {
    for (const { parameter } of unit.layout.slots) {
      parameter.tensor.onGradient = () => {
        const left = (this.#left.get(unit) ?? 0) - 1
        this.#left.set(unit, left)
        if (left === 0) this.fetcher?.done(unit)
        if (this.#reducing && !this.#late) this.#advance()
      }
    }
  }

  /** True where a backward must leave nothing but shards of its gradients. */
  get reducesEachBackward(): boolean {
    return this.#order.some((unit) => unit.keeps.gradients === 'shard')
  }

  /** Trainable units of some of the parameters, in the order in which they are reduced. */
  unitsOf(parameters: ReadonlySet<Parameter>): Unit[] {
    return this.#order.filter((unit) => unit.layout.slots.some(({ parameter }) => parameters.has(parameter)))
  }

  /**
   * Before a backward through `units` (default: all); `boundary`: its gradients are the last before an update, to be
   * reduced as they become complete, or, where `late`, in endBackward.
   */
  beginBackward(
    boundary: boolean,
    { units = this.#order, late = false }: { units?: readonly Unit[]; late?: boolean } = {},
  ): void {
    this.#queue = units
    this.#late = late
    this.#next = 0
    this.#reducing = boundary || this.reducesEachBackward
    for (const unit of units) this.#left.set(unit, unit.layout.slots.length)
  }

  #advance(): void {
    while (this.#next < this.#queue.length && (this.#left.get(this.#queue[this.#next] as Unit) ?? 1) <= 0) {
      this.#reduce(this.#queue[this.#next++] as Unit)
    }
  }

  /** After a backward: reduces what it left, units with parameters that it did not use. */
  endBackward(): void {
    if (!this.#reducing) return
    this.reduce(this.#queue.slice(this.#next))
    this.#next = this.#queue.length
    this.#reducing = false
  }

  /** Reduces what these units have collected. */
  reduce(units: readonly Unit[]): void {
    for (const unit of units) this.#reduce(unit)
  }

  #reduce(unit: Unit): void {
    const own = unit.ownGradients as Tensor
    if (unit.keeps.gradients === 'shard') {
      const full = unit.collect()
      if (unit.accumulating) {
        const sum = unscoped(() => empty([own.count], { category: 'gradients', dtype: own.dtype }))
        this.#collective(unit, sum, full)
        runOp('binary', [own], [own, sum], [0], this.#stream)
        sum.dispose()
      } else this.#collective(unit, own, full)
      unit.accumulating = true
      unit.dropCollected()
    } else if (this.options.group.size > 1) this.#collective(unit, own, unit.gradients as Tensor)
  }

  /** The sum (or mean) of `input` (which may be divided in place) over the ranks: all of it, or this rank's shard. */
  #collective(unit: Unit, output: Tensor, input: Tensor): void {
    const { group, average, predivide, communicationDtype: wire = input.dtype } = this.options
    const divides = average && predivide !== undefined && wire !== 'f32' && group.size > 1
    const options = { average: average && !divides, tag: unit.layout.index, stream: this.#stream }
    const multiply = (by: number, x: Tensor): void => {
      if (divides && by !== 1) runOp('affine', [x], [x], [by, 0], this.#stream)
    }
    const reduce = (to: Tensor, from: Tensor): void => {
      multiply(1 / (predivide ?? 1), from)
      if (to.count === from.count && group.size > 1) group.allReduce(to, options)
      else group.reduceScatter(to, from, options)
      multiply((predivide ?? 1) / group.size, to)
    }
    if (wire === input.dtype) {
      reduce(output, input)
      return
    }
    unscoped(() => {
      const sent = empty([input.count], { dtype: wire, category: 'buffers', shared: true })
      runOp('cast', [sent], [input], [], this.#stream)
      const result = output.count === input.count ? sent : empty([output.count], { dtype: wire, category: 'buffers' })
      reduce(result, sent)
      runOp('cast', [output], [result], [], this.#stream)
      for (const tensor of new Set([sent, result])) tensor.dispose()
    })
  }

  /** Gradients that several model-parallel ranks have parts of (tied or replicated parameters) are summed over them. */
  reduceReplicas(): void {
    for (const { layout, ownGradients } of this.#order) {
      if (layout.partialOver && layout.partialOver.size > 1) layout.partialOver.allReduce(ownGradients as Tensor)
    }
  }

  /** Global L2 norm of the reduced gradients as they are stored (f32 scalar): the same bits on every layout. */
  gradientNorm(): Tensor {
    const { world } = this.options
    // One buffer for all steps: a step that is a graph writes it, too.
    this.#largest ??= unscoped(() => keep(empty([this.#order.length], { category: 'buffers' })))
    const each = this.#largest
    runOp('fill', [each], [], [0])
    // What model-parallel ranks have in common counts once.
    const counted = this.#order.filter(({ layout }) => (layout.replicas?.rank ?? 0) === 0)
    return tidy(() => {
      for (const [index, unit] of this.#order.entries()) runOp('absmax', [each.view([1], index)], [unit.shardGradients])
      let largest = empty([1], { zero: true, shared: true })
      runOp('absmax', [largest], [each])
      if (world.size > 1) {
        const all = empty([world.size], { shared: true })
        world.allGather(all, largest)
        largest = empty([1], { zero: true })
        runOp('absmax', [largest], [all])
      }
      const sum = empty([2], { dtype: 'i64', zero: true, shared: true })
      for (const unit of counted) runOp('sum_squares', [sum], [unit.shardGradients, largest])
      world.allReduce(sum)
      const norm = empty([])
      runOp('norm_finish', [norm], [sum, largest])
      return norm
    })
  }

  /**
   * After an update that was left out because the norm was not finite: the first parameter in the model's order whose
   * gradient was not (undefined: their squares were too large), then zeroes the gradients. Collective over all ranks.
   */
  async dropGradients(): Promise<string | undefined> {
    const largest = (await this.#largest?.data()) as Float32Array
    const suspects = this.#order.filter((_, index) => !Number.isFinite(largest[index]))
    const name = await firstNotFinite(this.model, suspects, this.options.world)
    for (const { keeps, ownGradients } of this.#order)
      if (keeps.gradients === 'full') runOp('fill', [ownGradients], [], [0])
    return name
  }

  /**
   * One update of this rank's part, then the parameters of all. Zeroes the gradients. A graph of it asks `request` for
   * its numbers at each launch.
   */
  update(request: UpdateRequest): void {
    const { optimizer, groups } = this.options
    for (const unit of this.#order) {
      const zeroGrad = unit.keeps.gradients === 'full'
      const apply = ({ part, group }: Span): void => {
        const { lrScale, weightDecay } = groups[group] as HyperGroup
        const call: UpdateCall = {
          get lr() {
            return request.lr * lrScale
          },
          get update() {
            return request.update
          },
          get gradScale() {
            return 1 / request.lossScale
          },
          get momentum() {
            return request.momentum
          },
          norm: request.norm,
          maxNorm: request.maxNorm,
          zeroGrad,
        }
        optimizer.update(part, call, weightDecay)
      }
      if (unit.onDisk) this.#swapper.update(unit, apply)
      else unit.spans.forEach(apply)
      unit.zeroStrays()
      unit.accumulating = false
      unit.share()
    }
  }

  /** Forgets a step that was begun and not done: its gradients are zero. */
  abandonStep(): void {
    this.#reducing = false
    this.#next = this.#queue.length
    for (const unit of this.#order) {
      unit.accumulating = false
      unit.dropCollected()
      if (unit.gradients) runOp('fill', [unit.gradients], [], [0])
    }
    this.fetcher?.end()
  }

  /** Optimizer states, gradients or parameters (their shards, at stage 3) to host memory, or back. */
  move(op: string, what: readonly Offloadable[], to: 'host' | 'device'): void {
    const unknown = what.find((name) => !offloadables.includes(name))
    if (unknown !== undefined)
      throw new ZeroshardError('ARGUMENT', `[${op}] '${unknown}' is not one of ${offloadables.join(', ')}`)
    for (const unit of this.units) for (const name of what) unit.offload(name, to)
  }

  /** After masters were loaded: the model's copy, on every rank. */
  refresh(): void {
    for (const unit of this.units) unit.refresh()
  }

  dispose(): void {
    this.#largest?.dispose()
    this.model.visit((module) => {
      module.hooks = undefined
    })
    for (const unit of this.units) unit.dispose()
    this.#swapper.dispose()
    for (const file of filesOf(this.files)) file.close()
  }
}

// One unit's memory: the flat buffers that the stage's row of the lifetime table gives it. No communication here.

import { cutRange } from '../../optim/cut.js'
import type { Optimizer, OptimizerPart } from '../../optim/optimizer.js'
import { unscoped } from '../../tensor/scope.js'
import { type Category, type DType, empty, runOp, Tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { piecesIn, type UnitLayout } from './layout.js'

export type Stage = 0 | 1 | 2 | 3

/** What exists in full, always, and of what a rank has its shard (and the full buffer only while a unit runs). */
export interface Lifetimes {
  parameters: 'full' | 'shard'
  gradients: 'full' | 'shard'
  optimizer: 'full' | 'shard'
}

export const lifetimes: Record<Stage, Lifetimes> = {
  0: { parameters: 'full', gradients: 'full', optimizer: 'full' },
  1: { parameters: 'full', gradients: 'full', optimizer: 'shard' },
  2: { parameters: 'full', gradients: 'shard', optimizer: 'shard' },
  3: { parameters: 'shard', gradients: 'shard', optimizer: 'shard' },
}

export const offloadables = ['optimizer', 'gradients', 'parameters'] as const
export type Offloadable = (typeof offloadables)[number]

/** A range of the optimizer's part of the unit with one hyperparameter group. */
export interface Span {
  part: OptimizerPart
  group: number
}

export interface UnitOptions {
  lifetimes: Lifetimes
  group: ProcessGroup
  dtype: DType
  seed: number
  optimizer: Optimizer
  /** Where shards of parameters and optimizer states are counted: 'host' where they are offloaded. */
  parameterCategory?: Category
  optimizerCategory?: Category
}

export class Unit {
  /** The full buffers, where they exist always. */
  readonly parameters: Tensor | undefined
  readonly gradients: Tensor | undefined
  /** What the optimizer of this rank updates: [start, end) of the unit. */
  readonly start: number
  readonly end: number
  readonly ownParameters: Tensor
  readonly ownGradients: Tensor | undefined
  /** f32 values that the optimizer works on; the parameters themselves where those are f32 (or frozen). */
  readonly master: Tensor
  readonly states: Record<string, Tensor> = {}
  readonly spans: Span[] = []
  /** This rank's shard of the gradients, at every stage: each element is counted once in the norm. */
  readonly shardGradients: Tensor | undefined
  readonly keeps: Lifetimes
  /** False after an update, until gradients of a first micro-batch have been reduced into ownGradients. */
  accumulating = false
  readonly #strays: Tensor[] = []
  readonly #owned: Tensor[] = []
  readonly #parameterTensors: Tensor[] = []
  readonly #gradientTensors: Tensor[] = []
  #fetched: Tensor | undefined
  #collected: Tensor | undefined

  constructor(
    readonly layout: UnitLayout,
    readonly options: UnitOptions,
  ) {
    const { dtype, group } = options
    this.keeps = layout.persistent ? { ...options.lifetimes, parameters: 'full' } : options.lifetimes
    const { keeps } = this
    const sharded = keeps.optimizer === 'shard'
    this.start = sharded ? group.rank * layout.shardSize : 0
    this.end = sharded ? this.start + layout.shardSize : layout.size
    const own = this.end - this.start
    const { parameterCategory = 'parameters', optimizerCategory = 'optimizer' } = options
    const whole = keeps.parameters === 'full'
    this.parameters = whole ? this.#make(layout.size, 'parameters', dtype) : undefined
    this.ownParameters = this.parameters
      ? this.#view(this.parameters, this.start, own)
      : this.#make(own, parameterCategory, dtype)
    this.master =
      dtype === 'f32' || !layout.trainable ? this.ownParameters : this.#make(own, optimizerCategory, 'f32', false)
    if (layout.trainable) {
      this.gradients = keeps.gradients === 'full' ? this.#make(layout.size, 'gradients') : undefined
      this.ownGradients = this.gradients ? this.#view(this.gradients, this.start, own) : this.#make(own, 'gradients')
      this.shardGradients =
        own === layout.shardSize
          ? this.ownGradients
          : this.#view(this.ownGradients, group.rank * layout.shardSize, layout.shardSize)
      for (const name of options.optimizer.states) this.states[name] = this.#make(own, optimizerCategory, 'f32', false)
      this.#cutSpans()
      this.#findStrays()
    }
    this.#attach()
    this.#initialise()
  }

  #make(count: number, category: Category, dtype: DType = 'f32', shared = true): Tensor {
    const tensor = empty([count], { category, dtype, zero: true, shared })
    this.#owned.push(tensor)
    return tensor
  }

  #view(of: Tensor, start: number, count: number): Tensor {
    const view = of.view([count], start)
    this.#owned.push(view)
    return view
  }

  #cutSpans(): void {
    const { layout, options } = this
    const { needsWholeParameters } = options.optimizer
    const own = (at: number): number => Math.min(Math.max(at, this.start), this.end)
    let begin = 0
    for (const { group, end } of layout.groups) {
      const [from, to] = [own(begin), own(end)]
      if (from < to || needsWholeParameters) this.spans.push({ group, part: this.#part(begin, end, from, to) })
      begin = end
    }
  }

  /** The optimizer's view of elements [from, to), which are this rank's of the range [begin, end). */
  #part(begin: number, end: number, from: number, to: number): OptimizerPart {
    const { layout, options } = this
    const sharded = this.keeps.optimizer === 'shard'
    const cut = (of: Tensor): Tensor => this.#view(of, from - this.start, to - from)
    return {
      param: cut(this.master),
      states: Object.fromEntries(Object.entries(this.states).map(([name, state]) => [name, cut(state)])),
      ...(options.dtype !== 'f32' && { out: cut(this.ownParameters) }),
      grad: cut(this.ownGradients as Tensor),
      pieces: piecesIn(layout, from, to).map(({ slot, start, count, offset }) => ({
        name: slot.parameter.name,
        shape: slot.parameter.shape,
        start,
        count,
        offset: offset - from,
      })),
      group: sharded ? options.group : options.group.alone,
      ...(sharded &&
        options.optimizer.needsWholeParameters && {
          cut: cutRange(
            piecesIn(layout, begin, end).map(({ slot: { parameter, offset } }) => ({
              name: parameter.name,
              shape: parameter.shape,
              offset,
            })),
            [begin, end],
            layout.shardSize,
            options.group.size,
          ),
        }),
    }
  }

  /** The gradients outside this rank's part: the optimizer's pass does not zero those. */
  #findStrays(): void {
    const { gradients } = this
    if (!gradients) return
    if (this.start > 0) this.#strays.push(this.#view(gradients, 0, this.start))
    if (this.end < this.layout.size) this.#strays.push(this.#view(gradients, this.end, this.layout.size - this.end))
  }

  /** Gives every parameter its tensor and gradient: views, or tensors whose memory comes and goes. */
  #attach(): void {
    const { dtype } = this.options
    for (const { parameter, offset } of this.layout.slots) {
      const tensor = this.parameters?.view(parameter.shape, offset) ?? Tensor.lent(parameter.shape, dtype)
      parameter.attach(tensor)
      this.#owned.push(tensor)
      this.#parameterTensors.push(tensor)
      if (!this.layout.trainable) continue
      const gradient = this.gradients?.view(parameter.shape, offset) ?? Tensor.lent(parameter.shape, 'f32')
      tensor.grad = gradient
      this.#owned.push(gradient)
      this.#gradientTensors.push(gradient)
      if (!this.gradients) gradient.lender = () => this.collect()
    }
  }

  /** Initial values: each rank makes its shard of them, then all are gathered where the whole exists. */
  #initialise(): void {
    const { group, seed } = this.options
    const { layout } = this
    const first = group.rank * layout.shardSize
    for (const { slot, start, count, offset } of piecesIn(layout, first, first + layout.shardSize)) {
      const target = this.master.view([count], offset - this.start)
      if (target.dtype === 'f32') slot.parameter.fill(target, seed, start)
      else {
        const wide = empty([count], { category: 'buffers' })
        slot.parameter.fill(wide, seed, start)
        runOp('cast', [target], [wide])
        wide.dispose()
      }
      target.dispose()
    }
    if (this.keeps.optimizer === 'full' && group.size > 1) {
      const shard = this.master.view([layout.shardSize], first)
      group.allGather(this.master, shard)
      shard.dispose()
    }
    this.refresh()
  }

  /** After the master changed: the model's 16-bit copy of this rank's part, then everyone's parameters. */
  refresh(): void {
    if (this.master !== this.ownParameters) runOp('cast', [this.ownParameters], [this.master])
    this.share()
  }

  /** After this rank's part of the parameters changed: everyone's, where they exist in full. */
  share(): void {
    if (this.parameters && this.keeps.optimizer === 'shard' && this.options.group.size > 1)
      this.options.group.allGather(this.parameters, this.ownParameters, { tag: this.layout.index })
  }

  /** Tells when the tape has given back all holds on this unit's parameters, and asks for memory when it is used. */
  watch(onUse: () => void, onIdle: () => void): void {
    for (const tensor of this.#parameterTensors) {
      tensor.lender = onUse
      tensor.onIdle = () => {
        if (!this.#parameterTensors.some((other) => other.held)) onIdle()
      }
    }
  }

  get fetched(): boolean {
    return this.#fetched !== undefined
  }

  /** Begins to gather the full parameters; lendFetched() makes them the parameters' memory. */
  fetch(gather: (full: Tensor, own: Tensor) => void): void {
    if (this.parameters || this.#fetched) return
    this.#fetched = unscoped(() => empty([this.layout.size], { category: 'parameters', dtype: this.options.dtype }))
    gather(this.#fetched, this.ownParameters)
  }

  lendFetched(): void {
    this.#lend(this.#parameterTensors, this.#fetched as Tensor)
  }

  release(): void {
    if (!this.#fetched) return
    for (const tensor of this.#parameterTensors) tensor.takeBack()
    this.#fetched.dispose()
    this.#fetched = undefined
  }

  /** After the full parameters changed: this rank's part of them, and its master. */
  adopt(): void {
    const own = (this.full as Tensor).view([this.end - this.start], this.start)
    if (!this.parameters) runOp('cast', [this.ownParameters], [own])
    if (this.master !== this.ownParameters) runOp('cast', [this.master], [own])
    own.dispose()
  }

  /** All of the unit's parameters, where they exist now. */
  get full(): Tensor | undefined {
    return this.parameters ?? this.#fetched
  }

  /** The full gradient buffer of this backward, zero-filled. */
  collect(): Tensor {
    if (this.gradients) return this.gradients
    if (!this.#collected) {
      const { size } = this.layout
      this.#collected = unscoped(() => empty([size], { category: 'gradients', zero: true, shared: true }))
      this.#lend(this.#gradientTensors, this.#collected)
    }
    return this.#collected
  }

  dropCollected(): void {
    if (!this.#collected) return
    for (const tensor of this.#gradientTensors) tensor.takeBack()
    this.#collected.dispose()
    this.#collected = undefined
  }

  #lend(tensors: readonly Tensor[], buffer: Tensor): void {
    unscoped(() =>
      this.layout.slots.forEach(({ offset }, index) => {
        const tensor = tensors[index] as Tensor
        tensor.lend(buffer.view(tensor.shape, offset))
      }),
    )
  }

  /** Optimizer states, gradients or parameters (their shards, at stage 3) to host memory, or back. */
  offload(what: Offloadable, to: 'host' | 'device'): void {
    const own: Record<Offloadable, [Category, (Tensor | undefined)[]]> = {
      optimizer: [
        this.options.optimizerCategory ?? 'optimizer',
        [...Object.values(this.states), this.master === this.ownParameters ? undefined : this.master],
      ],
      gradients: ['gradients', [this.gradients ?? this.ownGradients]],
      parameters: [this.options.parameterCategory ?? 'parameters', [this.parameters ?? this.ownParameters]],
    }
    const [category, tensors] = own[what]
    for (const tensor of tensors) tensor?.recategorize(to === 'host' ? 'host' : category)
  }

  zeroStrays(): void {
    for (const stray of this.#strays) runOp('fill', [stray], [], [0])
  }

  dispose(): void {
    this.release()
    this.dropCollected()
    for (const { parameter } of this.layout.slots) parameter.detach()
    for (const tensor of this.#owned.reverse()) tensor.dispose()
  }
}

/** Builds a unit outside of all scopes. */
export const makeUnit = (layout: UnitLayout, options: UnitOptions): Unit => unscoped(() => new Unit(layout, options))

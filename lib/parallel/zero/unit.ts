// One unit's memory: the flat buffers that the stage's row of the lifetime table gives it. No communication here.

import type { Optimizer } from '../../optim/optimizer.js'
import { tidy, unscoped } from '../../tensor/scope.js'
import { type Category, type DType, empty, runOp, Tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { copyFlat, type DiskFlat, type Flat, MemoryFlat } from './flat.js'
import { initialise } from './initial-values.js'
import type { UnitLayout } from './layout.js'
import type { Place, SwapFiles, UnitPlaces } from './offload.js'
import { type Holding, type Span, spansIn } from './spans.js'
import type { SwapFile } from './swap-file.js'

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

export interface UnitOptions {
  lifetimes: Lifetimes
  group: ProcessGroup
  dtype: DType
  /** In which gradients are accumulated. */
  gradientDtype: DType
  seed: number
  optimizer: Optimizer
  places: UnitPlaces
  files: SwapFiles
}

export class Unit {
  /** The full buffers, where they exist always. */
  readonly parameters: Tensor | undefined
  readonly gradients: Tensor | undefined
  /** What the optimizer of this rank updates: [start, end) of the unit. */
  readonly start: number
  readonly end: number
  readonly ownParameters: Flat
  readonly ownGradients: Tensor | undefined
  /** f32 values that the optimizer works on; the parameters themselves where those are f32 (or frozen). */
  readonly master: Flat
  readonly states: Record<string, Flat> = {}
  /** True where some of it lies on disk: the swapper brings that for the update, part by part. */
  readonly onDisk: boolean
  /** What the optimizer updates, where all of it is in memory. */
  readonly spans: Span[] = []
  /** This rank's shard of the gradients, at every stage: each element is counted once in the norm. */
  readonly shardGradients: Tensor | undefined
  readonly keeps: Lifetimes
  /** False after an update, until gradients of a first micro-batch have been reduced into ownGradients. */
  accumulating = false
  readonly #strays: Tensor[] = []
  /** Freed with the unit. */
  readonly owned: Tensor[] = []
  readonly #parameterTensors: Tensor[] = []
  readonly #gradientTensors: Tensor[] = []
  #fetched: Tensor | undefined
  #collected: Tensor | undefined

  constructor(
    readonly layout: UnitLayout,
    readonly options: UnitOptions,
  ) {
    const { dtype, gradientDtype, group } = options
    this.keeps = layout.persistent ? { ...options.lifetimes, parameters: 'full' } : options.lifetimes
    const { keeps } = this
    const sharded = keeps.optimizer === 'shard'
    this.start = sharded ? group.rank * layout.shardSize : 0
    this.end = sharded ? this.start + layout.shardSize : layout.size
    const own = this.end - this.start
    const { places, files } = options
    const whole = keeps.parameters === 'full'
    this.parameters = whole ? this.#make(layout.size, 'parameters', dtype) : undefined
    this.ownParameters = this.parameters
      ? new MemoryFlat(this.#view(this.parameters, this.start, own))
      : this.#place(places.parameters, files.parameters, 'parameters', dtype)
    const keep = (): Flat => this.#place(places.optimizer, files.optimizer, 'optimizer', 'f32')
    this.master = dtype === 'f32' || !layout.trainable ? this.ownParameters : keep()
    if (layout.trainable) {
      this.gradients = keeps.gradients === 'full' ? this.#make(layout.size, 'gradients', gradientDtype) : undefined
      this.ownGradients = this.gradients
        ? this.#view(this.gradients, this.start, own)
        : this.#make(own, 'gradients', gradientDtype)
      this.shardGradients =
        own === layout.shardSize
          ? this.ownGradients
          : this.#view(this.ownGradients, group.rank * layout.shardSize, layout.shardSize)
      for (const name of options.optimizer.states) this.states[name] = keep()
      this.#findStrays()
    }
    const flats = [this.ownParameters, this.master, ...Object.values(this.states)]
    this.onDisk = flats.some(({ resident }) => !resident)
    if (layout.trainable && !this.onDisk) this.#findSpans()
    this.#attach()
    for (const buffer of [this.parameters, this.gradients]) if (buffer) group.register(buffer)
    initialise(this)
  }

  #make(count: number, category: Category, dtype: DType, shared = true): Tensor {
    const tensor = empty([count], { category, dtype, zero: true, shared })
    this.owned.push(tensor)
    return tensor
  }

  #view(of: Tensor, start: number, count: number): Tensor {
    const view = of.view([count], start)
    this.owned.push(view)
    return view
  }

  /** One of this rank's buffers, where the plan has it. */
  #place(place: Place, file: SwapFile | undefined, category: Category, dtype: DType): Flat {
    const own = this.end - this.start
    if (place === 'disk') return (file as SwapFile).reserve(own, dtype)
    return new MemoryFlat(this.#make(own, place === 'host' ? 'host' : category, dtype, category === 'parameters'))
  }

  #findSpans(): void {
    const memory = (flat: Flat): Tensor => flat.resident as Tensor
    const holding: Holding = {
      param: memory(this.master),
      states: Object.fromEntries(Object.entries(this.states).map(([name, flat]) => [name, memory(flat)])),
      ...(this.options.dtype !== 'f32' && { out: memory(this.ownParameters) }),
    }
    for (const span of spansIn(this, this.start, this.end, holding)) {
      const { param, out, grad, states } = span.part
      this.owned.push(param, grad, ...Object.values(states), ...(out ? [out] : []))
      this.spans.push(span)
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
    const { dtype, gradientDtype } = this.options
    for (const { parameter, offset } of this.layout.slots) {
      const tensor = this.parameters?.view(parameter.shape, offset) ?? Tensor.lent(parameter.shape, dtype)
      parameter.attach(tensor)
      this.owned.push(tensor)
      this.#parameterTensors.push(tensor)
      if (!this.layout.trainable) continue
      const gradient = this.gradients?.view(parameter.shape, offset) ?? Tensor.lent(parameter.shape, gradientDtype)
      tensor.grad = gradient
      this.owned.push(gradient)
      this.#gradientTensors.push(gradient)
      if (!this.gradients) gradient.lender = () => this.collect()
    }
  }

  /** After the master changed: the model's 16-bit copy of this rank's part, then everyone's parameters. */
  refresh(): void {
    if (this.master !== this.ownParameters) copyFlat(this.ownParameters, this.master)
    this.share()
  }

  /** After this rank's part of the parameters changed: everyone's, where they exist in full. */
  share(): void {
    this.#changed()
    if (this.parameters && this.keeps.optimizer === 'shard' && this.options.group.size > 1)
      this.options.group.allGather(this.parameters, this.ownParameters.resident as Tensor, { tag: this.layout.index })
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
    this.#fetched = unscoped(() =>
      empty([this.layout.size], { category: 'parameters', dtype: this.options.dtype, shared: true }),
    )
    const { resident } = this.ownParameters
    if (resident) gather(this.#fetched, resident)
    else this.#fetchFromDisk(this.#fetched, gather)
  }

  /** Read to its place in the whole, from where it goes to the other ranks. */
  #fetchFromDisk(full: Tensor, gather: (full: Tensor, own: Tensor) => void): void {
    const { file, offset } = this.ownParameters as DiskFlat
    const own = unscoped(() => full.view([this.end - this.start], this.start))
    file.transfer('read', [{ offset, tensor: own }])
    if (this.options.group.size > 1) gather(full, own)
    own.dispose()
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

  #changed(): void {
    for (const { parameter } of this.layout.slots) parameter.version++
  }

  /** The full parameters as they were, where they exist always. */
  putBack(before: Tensor): void {
    if (!this.parameters) return
    this.#changed()
    runOp('cast', [this.parameters], [before])
  }

  /** All of the unit's parameters, where they exist now. */
  get full(): Tensor | undefined {
    return this.parameters ?? this.#fetched
  }

  /** The full gradient buffer of this backward, zero-filled. */
  collect(): Tensor {
    if (this.gradients) return this.gradients
    if (!this.#collected) {
      const options = { category: 'gradients', dtype: this.options.gradientDtype, zero: true, shared: true } as const
      this.#collected = unscoped(() => empty([this.layout.size], options))
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
    const { places } = this.options
    const category = (place: Place, onDevice: Category): Category => (place === 'device' ? onDevice : 'host')
    const master = this.master === this.ownParameters ? undefined : this.master.resident
    const states = Object.values(this.states).map(({ resident }) => resident)
    const parameters = this.parameters ?? this.ownParameters.resident
    const own: Record<Offloadable, [Category, (Tensor | undefined)[]]> = {
      optimizer: [category(places.optimizer, 'optimizer'), [...states, master]],
      gradients: ['gradients', [this.gradients ?? this.ownGradients]],
      parameters: [this.parameters ? 'parameters' : category(places.parameters, 'parameters'), [parameters]],
    }
    const [home, tensors] = own[what]
    for (const tensor of tensors) if (tensor) this.#move(tensor, to === 'host' ? 'host' : home)
  }

  /** What the ranks know as alike on all of them is that only while it is where they registered it. */
  #move(tensor: Tensor, category: Category): void {
    const { group } = this.options
    const registered = tensor === this.parameters || tensor === this.gradients
    if (registered && category === 'host') group.unregister(tensor)
    tensor.recategorize(category)
    if (registered && category !== 'host') group.register(tensor)
  }

  zeroStrays(): void {
    for (const stray of this.#strays) runOp('fill', [stray], [], [0])
  }

  dispose(): void {
    this.release()
    this.dropCollected()
    for (const { parameter } of this.layout.slots) parameter.detach()
    for (const tensor of this.owned.reverse()) tensor.dispose()
  }
}

/** Builds a unit outside of all scopes; where that fails nothing of it is left. */
export const makeUnit = (layout: UnitLayout, options: UnitOptions): Unit =>
  unscoped(
    () =>
      tidy(() => {
        const unit = new Unit(layout, options)
        return { unit, owned: unit.owned }
      }).unit,
  )

// The scales of all tensors that a rank brings into 8 bits, one slot each, in flat tensors that never leave the device.
//
// current: each use measures its tensor first and takes the scale from that. delayed: the scale of a step follows from
// the largest values of the steps before, which are kept; what a step sees is added once, at its end, after the ranks
// that share the layers (data, context, tensor) have told each other the largest. So all of them have the same scales,
// which no layout and no cut into micro-batches changes. Before there is a history, delayed does as current.

import { type Float8, largestOf, type Quantized, quantizeInto, type Wanted } from '../../ops/float8.js'
import { tidy, unscoped } from '../../tensor/scope.js'
import { empty, runOp, type Tensor, tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'

/** Transformer Engine's words. */
export interface Recipe {
  /** hybrid: f8e4m3 forward, f8e5m2 for gradients. */
  format: 'hybrid' | 'e4m3'
  recipe: 'delayed' | 'current'
  /** Steps whose largest values are kept. */
  amax_history_len: number
  amax_compute_algo: 'max' | 'most_recent'
  /** Scales are divided by 2 to this power: room for values that grow. */
  margin: number
}

/** What has a scale: a layer's path and which of its tensors. */
export interface Slot {
  name: string
  dtype: Float8
}

/** Floats. */
const APART = 4

/** One slot's places in the flat tensors. */
interface Views {
  scale: Tensor
  inverse: Tensor
  amax: Tensor
}

export class Scales {
  /** False until a first step has filled the history. */
  known = false
  readonly scale: Tensor
  readonly inverse: Tensor
  /** Each of `inverse` 16 bytes apart: cuBLASLt refuses a scale at another address. */
  readonly #apart: Tensor
  /** Largest values of the running step. */
  readonly amax: Tensor
  /** (slots, amax_history_len), newest first; delayed alone. */
  readonly history: Tensor | undefined
  readonly #largest: Tensor
  /** Where a pass without backward puts what it saw. */
  readonly #unused: Tensor
  readonly #views: Views[]

  constructor(
    readonly slots: readonly Slot[],
    readonly recipe: Recipe,
    /** The ranks that have the same layers. */
    readonly group: ProcessGroup,
  ) {
    const n = slots.length
    const make = (shape: number[], shared = false): Tensor => empty(shape, { category: 'buffers', zero: true, shared })
    const filled = (values: number[]): Tensor => tensor(Float32Array.from(values), [n], { category: 'buffers' })
    const [ones, largest] = [slots.map(() => 1), slots.map(({ dtype }) => largestOf[dtype])]
    this.scale = unscoped(() => filled(ones))
    this.inverse = unscoped(() => filled(ones))
    this.#largest = unscoped(() => filled(largest))
    this.amax = unscoped(() => make([n], true))
    this.#unused = unscoped(() => make([1]))
    this.history = this.delayed ? unscoped(() => make([n, recipe.amax_history_len])) : undefined
    this.#apart = unscoped(() => make([n, APART]))
    this.spread()
    this.#views = unscoped(() =>
      slots.map((_, slot) => ({
        scale: this.scale.view([1], slot),
        inverse: this.#apart.view([1], slot * APART),
        amax: this.amax.view([1], slot),
      })),
    )
  }

  get delayed(): boolean {
    return this.recipe.recipe === 'delayed'
  }

  /** After `inverse` was written. */
  spread(): void {
    const { length } = this.slots
    if (length > 0) runOp('copy_2d', [this.#apart], [this.inverse], [length, 1, 0, APART, 0, 1])
  }

  /** Whether `inverse` is a slot's own, which stays when a tensor's codes go. */
  owns(slot: number, inverse: Tensor): boolean {
    return this.#views[slot]?.inverse === inverse
  }

  /** x (rows, cols) in 8 bits. `seen`: its largest value counts for the steps to come. */
  quantize(x: Tensor, size: readonly [number, number], slot: number, wanted: Wanted, seen: boolean): Quantized {
    const { dtype } = this.slots[slot] as Slot
    const views = this.#views[slot] as Views
    const counted = seen && this.delayed
    if (this.delayed && this.known) {
      const amax = counted ? views.amax : this.#unused
      return { ...quantizeInto(x, views.scale, amax, dtype, size, wanted), inverse: views.inverse }
    }
    const own = empty([1], { zero: true })
    const [scale, inverse] = [empty([1]), empty([1])]
    runOp('absmax', [own], [x])
    const largest = this.#largest.view([1], slot)
    runOp('fp8_scale', [scale, inverse, own, undefined], [largest], [1, 0, 0, this.recipe.margin])
    largest.dispose()
    return { ...quantizeInto(x, scale, counted ? views.amax : own, dtype, size, wanted), inverse }
  }

  /** Forgets the largest values of the running step. */
  abandonStep(): void {
    if (this.slots.length > 0) runOp('fill', [this.amax], [], [0])
  }

  /** Collective over the group, once at the end of a step: the scales of the next one. */
  update(): void {
    const { history, group, slots, recipe } = this
    const n = slots.length
    if (!history || n === 0) return
    tidy(() => {
      if (group.size > 1) {
        const all = empty([group.size, n], { shared: true })
        group.allGather(all, this.amax)
        runOp('reduce', [this.amax], [all], [1, group.size, n, 1, 0, 1])
      }
      const ofLargest = recipe.amax_compute_algo === 'max' ? 1 : 0
      const scalars = [n, recipe.amax_history_len, ofLargest, recipe.margin]
      runOp('fp8_scale', [this.scale, this.inverse, this.amax, history], [this.#largest], scalars)
      this.spread()
    })
  }

  dispose(): void {
    for (const views of this.#views) for (const view of Object.values(views)) view.dispose()
    for (const tensor of [this.scale, this.inverse, this.#apart, this.#largest, this.amax, this.#unused, this.history])
      tensor?.dispose()
  }
}

// A parameter is a declaration (name, shape, initialiser) until someone materialises it.
// Initial values are a pure function of (seed, name, element index), so every layout starts the same.

import { ZeroshardError } from '../binding/errors.js'
import { randomFill, siteOf } from '../ops/random.js'
import { countOf, runOp, type Shape, type Tensor } from '../tensor/tensor.js'
import { runsOf, type Slice, sliceShape } from './slice.js'

/** How a parameter begins. */
export type Init =
  | { kind: 'normal'; mean?: number; std: number }
  | { kind: 'uniform'; low: number; high: number }
  | { kind: 'constant'; value: number }

/**
 * Normal with mean 0.
 *
 * @example
 * new nn.Parameter([2, 2], nn.normal(0.02)).init.kind // 'normal'
 */
export const normal = (std: number): Init => ({ kind: 'normal', std })
/**
 * Uniform in [-bound, bound).
 *
 * @example
 * new nn.Parameter([2, 2], nn.uniform(0.1)).init.kind // 'uniform'
 */
export const uniform = (bound: number): Init => ({ kind: 'uniform', low: -bound, high: bound })
/**
 * Every element the same.
 *
 * @example
 * new nn.Parameter([2, 2], nn.constant(1)).init.kind // 'constant'
 */
export const constant = (value: number): Init => ({ kind: 'constant', value })

/** What a parameter knows of the ranks that hold the same elements of it; a process group is one. */
export interface Replicas {
  readonly rank: number
  readonly size: number
  allReduce(tensor: Tensor): Tensor
}

/** The ranks that together have all of a cut parameter, and which part each of them has. */
export interface CutOver {
  readonly group: Replicas & { allGather(output: Tensor, input: Tensor): Tensor }
  rangesOf(rank: number): Slice['ranges']
}

/**
 * A declaration: name, shape, initial values. The engine gives it its memory.
 *
 * @example
 * class Scale extends nn.Module {
 *   readonly weight = new nn.Parameter([3], nn.constant(2))
 *   forward(x: Tensor): Tensor {
 *     return ops.mul(x, this.weight.tensor)
 *   }
 * }
 * new Scale().materialize().forward(tensor([1, 2, 3])) // [2, 4, 6]
 */
export class Parameter {
  /** Path in the model, set by `Module.namedParameters`; also its Hugging Face name in our models. */
  name = ''
  /** False: frozen; it gets no gradient and no optimizer state. */
  trainable = true
  /** Model-parallel ranks (not data-parallel ones) with the same elements, this one among them. Undefined: none. */
  replicas: Replicas | undefined
  /** True where each of the replicas has only a part of the gradient's sum. */
  partialGradient = false
  /** Over which those parts are summed, where it is not over all replicas. */
  partialOver: Replicas | undefined
  /** Counts changes of the values: what was made of them before is stale. */
  version = 0
  /** Set where it is cut. */
  cutOver: CutOver | undefined
  #slice: Slice | undefined
  #shape: Shape
  #tensor: Tensor | undefined

  constructor(
    shape: Shape,
    readonly init: Init,
  ) {
    this.#shape = shape
  }

  /** Of the part that this process holds. */
  get shape(): Shape {
    return this.#shape
  }
  /** Of the whole, as checkpoints and initial values see it. */
  get wholeShape(): Shape {
    return this.#slice?.wholeShape ?? this.#shape
  }
  get count(): number {
    return countOf(this.#shape)
  }
  /** Where the part lies in the whole; undefined: it is the whole. */
  get slice(): Slice | undefined {
    return this.#slice
  }

  /** Keeps only these ranges of dim `dim` here. Before it has memory, and once. */
  cut(dim: number, ranges: Slice['ranges']): void {
    if (this.#tensor || this.#slice) {
      throw new ZeroshardError(
        'ARGUMENT',
        `parameter '${this.name}' ${this.#slice ? 'is cut already' : 'has memory already'}; cut it once, before initialize()`,
      )
    }
    this.#slice = { dim, ranges, wholeShape: this.#shape }
    this.#shape = sliceShape(this.#slice)
  }

  /** The values; throws before initialize() has materialised them. */
  get tensor(): Tensor {
    if (!this.#tensor) {
      throw new ZeroshardError(
        'ARGUMENT',
        `parameter '${this.name}' [${this.shape.join(', ')}] has no memory yet; call initialize() or materialize() first`,
      )
    }
    return this.#tensor
  }

  get materialized(): boolean {
    return this.#tensor !== undefined
  }

  /** Gives the parameter its memory; the caller owns the tensor. */
  attach(tensor: Tensor): void {
    tensor.name = this.name
    tensor.requiresGrad = this.trainable
    this.#tensor = tensor
  }

  detach(): void {
    this.#tensor = undefined
  }

  /** Writes initial values to an f32 tensor that holds elements [offset, offset + count) of this process's part. */
  fill(target: Tensor, seed: number, offset = 0): void {
    const { init } = this
    if (init.kind === 'constant') {
      runOp('fill', [target], [], [init.value])
      return
    }
    const site = siteOf('init', this.name)
    const draw = (into: Tensor, first: number): void =>
      init.kind === 'normal'
        ? randomFill(into, 'normal', init.mean ?? 0, init.std, seed, site, first)
        : randomFill(into, 'uniform', init.low, init.high, seed, site, first)
    for (const { local, whole, count } of runsOf(this.#slice, offset, target.count)) {
      if (count === target.count) {
        draw(target, whole)
        return
      }
      const part = target.view([count], local - offset)
      draw(part, whole)
      part.dispose()
    }
  }
}

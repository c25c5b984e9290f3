// A parameter is a declaration (name, shape, initialiser) until someone materialises it.
// Initial values are a pure function of (seed, name, element index), so every layout starts the same.

import { ZeroshardError } from '../binding/errors.js'
import { randomFill, siteOf } from '../ops/random.js'
import { countOf, runOp, type Shape, type Tensor } from '../tensor/tensor.js'

/** How a parameter begins. */
export type Init =
  | { kind: 'normal'; mean?: number; std: number }
  | { kind: 'uniform'; low: number; high: number }
  | { kind: 'constant'; value: number }

/** Normal with mean 0. */
export const normal = (std: number): Init => ({ kind: 'normal', std })
/** Uniform in [-bound, bound). */
export const uniform = (bound: number): Init => ({ kind: 'uniform', low: -bound, high: bound })
/** Every element the same. */
export const constant = (value: number): Init => ({ kind: 'constant', value })

/** A declaration: name, shape, initial values. The engine gives it its memory. */
export class Parameter {
  /** Path in the model, set by `Module.namedParameters`; also its Hugging Face name in our models. */
  name = ''
  /** False: frozen; it gets no gradient and no optimizer state. */
  trainable = true
  readonly count: number
  #tensor: Tensor | undefined

  constructor(
    readonly shape: Shape,
    readonly init: Init,
  ) {
    this.count = countOf(shape)
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

  /** Writes initial values to an f32 tensor that holds elements [offset, offset + count) of the whole. */
  fill(target: Tensor, seed: number, offset = 0): void {
    const { init } = this
    if (init.kind === 'constant') runOp('fill', [target], [], [init.value])
    else if (init.kind === 'normal')
      randomFill(target, 'normal', init.mean ?? 0, init.std, seed, siteOf('init', this.name), offset)
    else randomFill(target, 'uniform', init.low, init.high, seed, siteOf('init', this.name), offset)
  }
}

// The layers that models are made of. Shapes: (B, T, C) unless said otherwise.

import * as ops from '../ops/index.js'
import type { Tensor } from '../tensor/tensor.js'
import { Module } from './module.js'
import { constant, type Init, normal, Parameter, uniform } from './parameter.js'
import { wholeSequence } from './sequence.js'

/** Options of `Linear`: with bias unless false; `init` also means a bias of 0; an activation is fused. */
export interface LinearConfig {
  bias?: boolean
  init?: Init
  activation?: 'gelu' | 'geluTanh'
}

/**
 * x (…, in) → (…, out); weight (out, in).
 *
 * @example
 * const up = new nn.Linear(8, 4).materialize()
 * up.forward(tensor(new Float32Array(16), [2, 8])).shape // [2, 4]
 */
export class Linear extends Module {
  readonly weight: Parameter
  readonly bias: Parameter | undefined
  readonly activation: 'gelu' | 'geluTanh' | undefined
  /** Set where the product is in 8 bits. */
  quantizer: ops.Quantizer | undefined

  constructor(inFeatures: number, outFeatures: number, config: LinearConfig = {}) {
    super()
    const init = config.init ?? uniform(1 / Math.sqrt(inFeatures))
    this.weight = new Parameter([outFeatures, inFeatures], init)
    this.bias = config.bias === false ? undefined : new Parameter([outFeatures], config.init ? constant(0) : init)
    this.activation = config.activation
  }

  forward(x: Tensor): Tensor {
    const { activation, quantizer } = this
    return ops.linear(x, this.weight.tensor, this.bias?.tensor, { activation, quantizer })
  }
}

/**
 * GPT-2's linear: weight (in, out), as Hugging Face stores it.
 *
 * @example
 * const up = new nn.Conv1D(8, 4, nn.normal(0.02)).materialize()
 * up.weight.shape // [8, 4]
 */
export class Conv1D extends Module {
  readonly inFirst = true
  readonly weight: Parameter
  readonly bias: Parameter
  readonly activation: 'gelu' | 'geluTanh' | undefined
  /** Set where the product is in 8 bits. */
  quantizer: ops.Quantizer | undefined

  constructor(inFeatures: number, outFeatures: number, init: Init, activation?: 'gelu' | 'geluTanh') {
    super()
    this.weight = new Parameter([inFeatures, outFeatures], init)
    this.bias = new Parameter([outFeatures], constant(0))
    this.activation = activation
  }

  forward(x: Tensor): Tensor {
    const { activation, quantizer } = this
    return ops.linear(x, this.weight.tensor, this.bias.tensor, { inFirst: true, activation, quantizer })
  }
}

/**
 * ids i32 (…) → (…, C); weight (V, C).
 *
 * @example
 * const table = new nn.Embedding(256, 16).materialize()
 * table.forward(tensor(Int32Array.of(7, 9))).shape // [2, 16]
 */
export class Embedding extends Module {
  readonly weight: Parameter
  constructor(numEmbeddings: number, dimension: number, init: Init = normal(1)) {
    super()
    this.weight = new Parameter([numEmbeddings, dimension], init)
  }

  forward(ids: Tensor): Tensor {
    return ops.embedding(this.weight.tensor, ids)
  }
}

/**
 * (…, C) → (…, C), mean 0 and variance 1 over C, then weight and bias (C).
 *
 * @example
 * const norm = new nn.LayerNorm(2).materialize()
 * norm.forward(tensor([1, 3], [1, 2])) // [-1, 1]
 */
export class LayerNorm extends Module {
  readonly weight: Parameter
  readonly bias: Parameter
  constructor(
    dimension: number,
    readonly eps = 1e-5,
  ) {
    super()
    this.weight = new Parameter([dimension], constant(1))
    this.bias = new Parameter([dimension], constant(0))
  }

  forward(x: Tensor): Tensor {
    return ops.layerNorm(x, this.weight.tensor, this.bias.tensor, this.eps)
  }

  /** Norm of x + residual, and that sum. */
  forwardAdd(x: Tensor, residual: Tensor): { y: Tensor; sum: Tensor } {
    return ops.addLayerNorm(x, residual, this.weight.tensor, this.bias.tensor, this.eps)
  }
}

/**
 * (…, C) → (…, C), divided by the root mean square over C, then weight (C).
 *
 * @example
 * const norm = new nn.RMSNorm(2).materialize()
 * norm.forward(tensor([3, 4], [1, 2])) // [0.8485, 1.1314]
 */
export class RMSNorm extends Module {
  readonly weight: Parameter
  constructor(
    dimension: number,
    readonly eps = 1e-6,
  ) {
    super()
    this.weight = new Parameter([dimension], constant(1))
  }

  forward(x: Tensor): Tensor {
    return ops.rmsNorm(x, this.weight.tensor, this.eps)
  }
  forwardAdd(x: Tensor, residual: Tensor): { y: Tensor; sum: Tensor } {
    return ops.addRmsNorm(x, residual, this.weight.tensor, this.eps)
  }
}

/**
 * Zeroes with probability p in training. Each use draws anew: what, depends on (seed, step, sample, module path, how
 * often it was used in this forward) alone.
 *
 * @example
 * const drop = new nn.Dropout(0.1)
 * drop.eval()
 * drop.forward(tensor([1, 2])) // [1, 2]
 */
export class Dropout extends Module {
  sequence = wholeSequence

  constructor(readonly p: number) {
    super()
  }
  forward(x: Tensor): Tensor {
    if (!this.training || this.p === 0) return x
    return ops.dropout(x, this.p, this.path, this.sequence.part(x.shape[1] as number))
  }

  /** The same for an attention's weights; undefined where nothing is dropped. */
  ofAttention(part: Partial<ops.AttentionDropout> = {}): ops.AttentionDropout | undefined {
    return this.training && this.p > 0 ? { ...part, p: this.p, site: this.path } : undefined
  }
}

/**
 * Modules one after the other.
 *
 * @example
 * const mlp = new nn.Sequential(new nn.Linear(2, 8), new nn.Linear(8, 1)).materialize()
 * mlp.forward(tensor([1, 2], [1, 2])).shape // [1, 1]
 */
export class Sequential extends Module {
  readonly layers: Module[]
  constructor(...layers: Module[]) {
    super()
    this.layers = layers
  }

  forward(x: Tensor): Tensor {
    return this.layers.reduce((value, layer) => (layer as Module & { forward(x: Tensor): Tensor }).forward(value), x)
  }
}

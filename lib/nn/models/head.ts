// A language model's classifier: hidden states to the vocabulary, and to the loss without keeping the logits.

import * as ops from '../../ops/index.js'
import type { Tensor } from '../../tensor/tensor.js'
import { Module } from '../module.js'
import { type Init, Parameter } from '../parameter.js'

/**
 * weight (V, C), often the embedding's own.
 *
 * @example
 * const head = new LanguageModelHead(4, 8, nn.normal(0.02)).materialize()
 * head.logits(tensor(new Float32Array(8), [2, 4])).shape // [2, 8]
 */
export class LanguageModelHead extends Module {
  readonly weight: Parameter

  constructor(dimension: number, vocabSize: number, init: Init) {
    super()
    this.weight = new Parameter([vocabSize, dimension], init)
  }

  /** Mean cross entropy of x (B, T, C) against targets i32 (B, T). */
  forward(x: Tensor, targets: Tensor): Tensor {
    return ops.linearCrossEntropy(x, this.weight.tensor, targets)
  }

  /** x (…, C) → (…, V). */
  logits(x: Tensor): Tensor {
    return ops.linear(x, this.weight.tensor)
  }
}

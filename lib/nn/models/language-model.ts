// What a language model offers to the engine, to sampling and to export.

import { checkpoint } from '../../autograd/functions.js'
import * as ops from '../../ops/index.js'
import { tidy } from '../../tensor/scope.js'
import type { Tensor } from '../../tensor/tensor.js'
import type { Linear } from '../layers.js'
import { Module } from '../module.js'

/** One layer's keys and values of the tokens so far, (B, capacity, heads·D) each. */
export interface LayerCache {
  k: Tensor
  v: Tensor
}
export interface KeyValueCache {
  layers: LayerCache[]
  length: number
  capacity: number
}

/** Which activations backward computes again instead of keeping them. */
export interface Recompute {
  /** Groups of consecutive blocks, evenly split, of which only the input is kept; 0: none. */
  groups: number
  /** Of each block the attention, with the norm before it. */
  attention: boolean
}

/** The heads that an attention module computes: all of the model's, or a part where they are cut. */
export interface Heads {
  count: number
  keyValue: number
  /** Index of the first among the `total` of the model: dropout draws by it. */
  first: number
  total: number
}

/**
 * A model that predicts the next token. `forward` is its training loss; `generate` samples from it.
 *
 * @example
 * import { tensor } from 'zeroshard'
 * import { createModel } from 'zeroshard/models'
 *
 * const config = { model_type: 'llama', hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2,
 *   num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 16, vocab_size: 256 }
 * const model = createModel(config).materialize({ seed: 1 })
 * const ids = tensor(Int32Array.of(67, 97, 108, 108), [1, 4])
 * console.log(model.logits(ids).shape) // [1, 4, 256]
 * model.dispose()
 */
export abstract class LanguageModel extends Module {
  /** Hugging Face's config.json of this model. */
  abstract readonly config: Record<string, unknown>
  abstract readonly vocabSize: number
  abstract readonly maxPositions: number
  abstract readonly lm_head: Linear
  /** Set by activation_checkpointing. */
  recompute: Recompute = { groups: 0, attention: false }

  /** Mean cross entropy of ids i32 (B, T) against targets i32 (B, T). */
  override forward(ids: Tensor, targets: Tensor): Tensor {
    return ops.linearCrossEntropy(this.hidden(ids), this.lm_head.weight.tensor, targets)
  }

  /** What the classifier sees of ids i32 (B, T) → (B, T, C). */
  abstract hidden(ids: Tensor): Tensor

  /** Scores of every next token, of ids i32 (B, T) → (B, T, V). */
  logits(ids: Tensor): Tensor {
    return tidy(() => this.lm_head.forward(this.hidden(ids)))
  }

  /** Logits of the last of the given tokens (1, V); appends them to the cache. */
  abstract nextLogits(ids: Tensor, cache: KeyValueCache): Tensor
  abstract newCache(capacity: number): KeyValueCache
}

/** Runs blocks one after the other, in `groups` groups of which only the input is kept. */
export function runBlocks<Block>(
  blocks: readonly Block[],
  x: Tensor,
  groups: number,
  run: (block: Block, x: Tensor) => Tensor,
): Tensor {
  if (groups === 0) return chain(blocks, x, run)
  const count = Math.min(groups, blocks.length)
  const border = (group: number): number => Math.floor((group * blocks.length) / count)
  const parts = Array.from({ length: count }, (_, group) => blocks.slice(border(group), border(group + 1)))
  return chain(parts, x, (part, input) => checkpoint((again) => chain(part, again, run), input))
}

function chain<Item>(items: readonly Item[], x: Tensor, run: (item: Item, x: Tensor) => Tensor): Tensor {
  return items.reduce((input, item) => {
    const output = run(item, input)
    // Freed now, or by backward, which still holds what it needs: not only when the whole stack is done.
    if (input !== x && input !== output) input.dispose()
    return output
  }, x)
}

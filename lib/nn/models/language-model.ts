// What a language model offers to the engine, to sampling and to export.

import { tidy } from '../../tensor/scope.js'
import type { Tensor } from '../../tensor/tensor.js'
import { type Layer, LayeredModel, runLayers } from '../layered.js'
import type { Module } from '../module.js'
import { wholeSequence } from '../sequence.js'
import type { LanguageModelHead } from './head.js'

/** One layer's keys and values of the tokens so far, (B, capacity, heads·D) each. */
export interface LayerCache {
  k: Tensor
  v: Tensor
}
/** Keys and values of the tokens so far, for all layers; the caller disposes it. */
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
 * model.logits(ids).shape // [1, 4, 256]
 * model.dispose()
 */
export abstract class LanguageModel extends LayeredModel<[Tensor, Tensor]> {
  /** Hugging Face's config.json of this model. */
  abstract readonly config: Record<string, unknown>
  abstract readonly vocabSize: number
  abstract readonly maxPositions: number
  abstract readonly lm_head: LanguageModelHead
  /** The norm before the classifier. */
  abstract readonly norm: Module & { forward(x: Tensor): Tensor }
  /** Set by activation_checkpointing. */
  recompute: Recompute = { groups: 0, attention: false }
  sequence = wholeSequence

  /** The embedding and the blocks. */
  abstract body(): Layer[]

  /** The same and the classifier: mean cross entropy of ids i32 (B, T) against targets i32 (B, T). */
  layers(): Layer[] {
    const head: Layer = {
      type: 'head',
      modules: [this.norm, this.lm_head],
      forward: (x, [, targets]) =>
        this.lm_head.forward(this.norm.forward(x as Tensor), this.sequence.take(targets as Tensor)),
    }
    return [...this.body(), head]
  }

  /** Blocks as layers, in as many groups as are to be recomputed. */
  protected blocks<Block extends Module>(blocks: readonly Block[], run: (block: Block, x: Tensor) => Tensor): Layer[] {
    const groups = Math.min(this.recompute.groups, blocks.length)
    return blocks.map((block, index) => ({
      type: 'block',
      modules: [block],
      forward: (x) => run(block, x as Tensor),
      ...(groups > 0 && { recomputed: Math.floor(((index + 1) * groups - 1) / blocks.length) }),
    }))
  }

  /** Scores of every next token, of ids i32 (B, T) → (B, T, V); of this rank's tokens where sequences are cut. */
  logits(ids: Tensor): Tensor {
    return tidy(() => this.lm_head.logits(this.norm.forward(runLayers(this.body(), undefined, [ids]))))
  }

  /** Logits of the last of the given tokens (1, V); appends them to the cache. */
  abstract nextLogits(ids: Tensor, cache: KeyValueCache): Tensor
  abstract newCache(capacity: number): KeyValueCache
}

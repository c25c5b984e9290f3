// What a language model offers to the engine, to sampling and to export.

import type { Tensor } from '../../tensor/tensor.js'
import { LayeredModel } from '../layered.js'

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

/** forward(ids i32 (B, T), targets i32 (B, T)) is the mean cross entropy. */
export abstract class LanguageModel extends LayeredModel<[Tensor, Tensor]> {
  /** Hugging Face's config.json of this model. */
  abstract readonly config: Record<string, unknown>
  abstract readonly vocabSize: number
  abstract readonly maxPositions: number
  /** Set by activation_checkpointing: blocks whose activations are computed again in backward. */
  recompute: (block: number) => boolean = () => false

  /** Logits of the last of the given tokens (1, V); appends them to the cache. */
  abstract nextLogits(ids: Tensor, cache: KeyValueCache): Tensor
  abstract newCache(capacity: number): KeyValueCache
  /** Parameter names under which Hugging Face stores tied copies. */
  readonly tiedNames: readonly string[] = []
}

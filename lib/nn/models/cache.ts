// The key/value cache of generation.

import { unscoped } from '../../tensor/scope.js'
import { type DType, empty, runOp, type Tensor } from '../../tensor/tensor.js'
import type { KeyValueCache, LayerCache } from './language-model.js'

export function makeCache(layers: number, capacity: number, width: number, dtype: DType): KeyValueCache {
  return unscoped(() => ({
    layers: Array.from({ length: layers }, () => ({
      k: empty([1, capacity, width], { dtype, category: 'buffers' }),
      v: empty([1, capacity, width], { dtype, category: 'buffers' }),
    })),
    length: 0,
    capacity,
  }))
}

export function disposeCache(cache: KeyValueCache): void {
  for (const { k, v } of cache.layers) {
    k.dispose()
    v.dispose()
  }
}

/** Writes `tokens` rows of `source` (row length `row`, from `offset`) behind the first `length` tokens. */
export function append(
  target: Tensor,
  length: number,
  source: Tensor,
  tokens: number,
  offset: number,
  row: number,
): void {
  const width = target.shape[2] as number
  runOp('copy_2d', [target], [source], [tokens, width, length * width, width, offset, row])
}

export const layerOf = (cache: KeyValueCache, index: number): LayerCache => cache.layers[index] as LayerCache

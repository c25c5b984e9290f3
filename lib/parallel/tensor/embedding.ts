// An embedding whose rows are cut over the ranks of a group: each looks up the ids that it has, the sum is the whole.

import type { Embedding } from '../../nn/layers.js'
import { Module } from '../../nn/module.js'
import type { Parameter } from '../../nn/parameter.js'
import * as ops from '../../ops/index.js'
import type { Tensor } from '../../tensor/tensor.js'
import { reduceScatter } from '../collectives.js'
import { ProcessGroup } from '../group.js'
import { cutVocabulary } from './cut-parameter.js'
import { Region } from './region.js'

/**
 * ids i32 (B, T) → (B, T, C), replicated or this rank's part of the sequence.
 *
 * @example
 * const table = new VocabParallelEmbedding(new nn.Embedding(8, 4), Mesh.single().group('tp'))
 * table.first // 0
 */
export class VocabParallelEmbedding extends Module {
  readonly weight: Parameter
  readonly region: Region
  /** The first of this rank's rows. */
  readonly first: number

  /** Takes the table of a plain embedding. @throws CONFIG where there are fewer rows than ranks. */
  constructor(layer: Embedding, at: Region | ProcessGroup) {
    super()
    this.region = at instanceof ProcessGroup ? new Region(at) : at
    this.weight = layer.weight
    this.first = cutVocabulary(this.weight, this.region.group)[0]
  }

  forward(ids: Tensor): Tensor {
    const { group, sharded } = this.region
    if (!sharded) return group.allReduce(this.#own(ids))
    // In the order of the ranks' parts of the sequence, so that the sum comes out in parts.
    const [samples, length] = ids.shape as [number, number]
    const part = this.region.partOf(length)
    const byRank = ops.permute(ids.view([samples, group.size, part]), [1, 0, 2])
    const own = reduceScatter(this.#own(byRank), 0, group)
    return ops.reshape(own, [samples, part, -1])
  }

  /** The rows that are here, zeros for other ranks'. */
  #own(ids: Tensor): Tensor {
    return ops.embedding(this.weight.tensor, ids, this.first, this.weight.wholeShape[0])
  }
}

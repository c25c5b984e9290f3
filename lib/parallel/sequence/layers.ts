// Plain layers where each rank has a part of the sequence (x (B, S, C) of (B, T, C)): the same values and the same
// random numbers as on the whole.

import { Dropout, type Embedding } from '../../nn/layers.js'
import { Module } from '../../nn/module.js'
import type { Parameter } from '../../nn/parameter.js'
import { partWithin } from '../../nn/sequence.js'
import * as ops from '../../ops/index.js'
import type { Tensor } from '../../tensor/tensor.js'
import type { Region } from '../tensor/region.js'

/** Draws what dropout of the whole sequence draws at these positions. An attention's weights are never cut along it. */
export class SequenceDropout extends Dropout {
  constructor(
    layer: Dropout,
    readonly region: Region,
  ) {
    super(layer.p)
    this.sequence = layer.sequence
  }

  override forward(x: Tensor): Tensor {
    const { p, path, training, region, sequence } = this
    if (!training || p === 0 || !region.sharded) return super.forward(x)
    const count = x.shape[1] as number
    const { rank, size } = region.group
    const tokens = size * count
    return ops.dropout(x, p, path, partWithin(sequence.part(tokens), tokens, rank * count, count))
  }
}

/** A whole table, looked up for this rank's part of the ids (…, T): positions, say. */
export class SequenceEmbedding extends Module {
  readonly weight: Parameter
  constructor(
    layer: Embedding,
    readonly region: Region,
  ) {
    super()
    this.weight = layer.weight
  }

  forward(ids: Tensor): Tensor {
    const { region } = this
    if (!region.sharded) return ops.embedding(this.weight.tensor, ids)
    const part = region.partOf(ids.shape.at(-1) as number)
    const first = region.group.rank * part
    return ops.embedding(this.weight.tensor, ops.slice(ids, -1, first, first + part))
  }
}

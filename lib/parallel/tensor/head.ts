// A language model's classifier whose vocabulary is cut over the ranks of a group. Each has the logits of its own
// tokens; three numbers per row (maximum, sum, the target's logit) are all that the ranks exchange.

import { record } from '../../autograd/tape.js'
import type { LanguageModelHead } from '../../nn/models/head.js'
import { Module } from '../../nn/module.js'
import type { Parameter } from '../../nn/parameter.js'
import * as ops from '../../ops/index.js'
import type { ClassifierOptions, ScoreCall, Scorer } from '../../ops/loss.js'
import { countOf, empty, runOp, type Tensor } from '../../tensor/tensor.js'
import { ProcessGroup } from '../group.js'
import { type Range, unevenPart } from './cut.js'
import { cutVocabulary } from './cut-parameter.js'
import { Region } from './region.js'

/**
 * A classifier of which each rank has some rows of the vocabulary.
 *
 * @example
 * const head = new VocabParallelHead(new LanguageModelHead(4, 8, nn.normal(0.02)), Mesh.single().group('tp'))
 * head.weight.shape // [8, 4]
 */
export class VocabParallelHead extends Module {
  /** This rank's rows of (V, C). */
  readonly weight: Parameter
  readonly region: Region
  readonly range: Range

  constructor(layer: LanguageModelHead, at: Region | ProcessGroup) {
    super()
    this.region = at instanceof ProcessGroup ? new Region(at) : at
    this.weight = layer.weight
    this.range = cutVocabulary(this.weight, this.region.group)
  }

  /** Mean cross entropy, the same on every rank, of x (B, T, C), replicated or a sequence shard. */
  forward(x: Tensor, targets: Tensor): Tensor {
    const { region } = this
    const loss = vocabParallelCrossEntropy(region.enter(x).whole, this.weight, targets, region.group)
    region.release()
    return loss
  }

  /** x (…, C) → (…, V), whole on every rank. */
  logits(x: Tensor): Tensor {
    const { region } = this
    const own = ops.linear(region.enter(x).whole, this.weight.tensor)
    region.release()
    return gatherColumns(own, this.weight.wholeShape[0] as number, region.group)
  }
}

/**
 * Mean cross entropy of replicated x (…, C) with this rank's rows of the classifier; the logits exist for a chunk of
 * rows at a time (ops.linearCrossEntropy). x's gradient is this rank's part of the sum.
 *
 * @example
 * const { weight } = new LanguageModelHead(2, 3, nn.constant(0)).materialize()
 * const targets = tensor(Int32Array.of(1))
 * vocabParallelCrossEntropy(tensor([1, 0], [1, 2]), weight, targets, ProcessGroup.single()) // 1.0986
 */
export function vocabParallelCrossEntropy(
  x: Tensor,
  weight: Parameter,
  targets: Tensor,
  group: ProcessGroup,
  options: ClassifierOptions = {},
): Tensor {
  const scorer = group.size > 1 ? new PartScorer(weight.wholeShape[0] as number, group) : undefined
  return ops.linearCrossEntropy(x, weight.tensor, targets, options, scorer)
}

class PartScorer implements Scorer {
  /** Of all ranks, by the chunk's first row: (ranks, rows, 3). */
  readonly #stats = new Map<number, Tensor>()
  readonly columns: number
  readonly #start: number

  constructor(
    readonly vocabulary: number,
    readonly group: ProcessGroup,
  ) {
    this.columns = Math.ceil(vocabulary / group.size)
    this.#start = unevenPart(vocabulary, group.size, group.rank)[0]
  }

  score(call: ScoreCall): void {
    const { logits, targets, losses, ignoreIndex, gradient, scale } = call
    const [rows, v] = logits.shape as [number, number]
    const all = this.#stats.get(call.rows.start) ?? this.#exchange(call)
    const place = [rows, v, ignoreIndex, this.#start, this.group.size]
    runOp('classifier_merge', [logits, losses], [targets, all], [...place, gradient ? 1 : 0, scale])
  }

  #exchange({ logits, targets, ignoreIndex, rows }: ScoreCall): Tensor {
    const own = empty([rows.count, 3], { shared: true })
    const scalars = [rows.count, logits.shape[1] as number, ignoreIndex, this.#start, this.vocabulary]
    runOp('classifier_part', [own], [logits, targets], scalars)
    const all = empty([this.group.size, rows.count, 3])
    this.group.allGather(all, own)
    own.dispose()
    this.#stats.set(rows.start, all)
    return all
  }

  saved(): Tensor[] {
    return [...this.#stats.values()]
  }
}

/** All ranks' columns of a matrix whose columns are cut unevenly; each keeps the gradient of its own. */
function gatherColumns(own: Tensor, columns: number, group: ProcessGroup): Tensor {
  const { size, rank } = group
  if (size === 1) return own
  const rows = countOf(own.shape.slice(0, -1))
  const most = Math.ceil(columns / size)
  const width = own.shape.at(-1) as number
  const padded = empty([rows, most], { dtype: own.dtype, zero: true, shared: true })
  runOp('copy_2d', [padded], [own], [rows, width, 0, most, 0, width])
  const all = empty([size, rows, most], { dtype: own.dtype })
  group.allGather(all, padded)
  padded.dispose()
  const y = empty([...own.shape.slice(0, -1), columns], { dtype: own.dtype })
  for (let other = 0; other < size; other++) {
    const [start, end] = unevenPart(columns, size, other)
    runOp('copy_2d', [y], [all], [rows, end - start, start, columns, other * rows * most, most])
  }
  all.dispose()
  record('gatherColumns', [y], [own], [], ([dy]) => {
    if (!dy) return []
    const dx = empty(own.shape, { dtype: own.dtype })
    runOp('copy_2d', [dx], [dy], [rows, width, 0, width, unevenPart(columns, size, rank)[0], columns])
    return [dx]
  })
  return y
}

// Linears cut over the ranks of a group.
//
//   y = x W + b          column: W = [W1 | W2], each rank has some outputs     x → enter → x Wr + br
//                        row:    W = [W1 / W2], each rank has some inputs      sum of xr Wr → leave → + b
//
// With more than one chunk the collectives of a layer run beside its product, piece by piece.

import { type BackwardContext, record, willRecord } from '../../autograd/tape.js'
import { ZeroshardError } from '../../binding/errors.js'
import type { Conv1D, Linear } from '../../nn/layers.js'
import { Module } from '../../nn/module.js'
import type { Parameter } from '../../nn/parameter.js'
import { QuantizedLinear } from '../../ops/float8.js'
import * as ops from '../../ops/index.js'
import { product, weightGradient } from '../../ops/linear.js'
import { empty, type Tensor } from '../../tensor/tensor.js'
import { gather, scatter } from '../collectives.js'
import { ProcessGroup } from '../group.js'
import { GatheredPieces } from '../sequence/gathered.js'
import { ShardBlocks } from '../sequence/pieces.js'
import { type Deal, deal, partRanges, type Range, unevenPart } from './cut.js'
import { cutParameter } from './cut-parameter.js'
import { type Entered, Region } from './region.js'

/** Options of a linear whose outputs are cut. */
export interface ColumnOptions {
  /** The output is so many equal matrices side by side (q, k, v), each of which is cut. */
  parts?: number
  /** Indivisible units of each (heads); default: single outputs. */
  units?: number
  /** Fewer units than ranks: neighbours have the same one. */
  mayCopy?: boolean
  /** Every rank gets all outputs. */
  gatherOutput?: boolean
}

/** Options of a linear whose inputs are cut. */
export interface RowOptions {
  /** Indivisible units (heads); default: single inputs. */
  units?: number
  /** x is whole on every rank, not a column layer's output. */
  splitInput?: boolean
}

export const inFirstOf = (layer: Linear | Conv1D): boolean => 'inFirst' in layer && layer.inFirst

/** The copies of `dealt` units: ranks that have the same ones, each with a part of their gradient. */
export function markCopies(parameter: Parameter, group: ProcessGroup, { first, copies }: Deal): void {
  if (copies === 1) return
  parameter.replicas = group.subgroup(group.ranks.slice(first * copies, (first + 1) * copies))
  parameter.partialGradient = true
}

/**
 * x (…, in), replicated or a sequence shard → this rank's outputs (…, out / ranks).
 *
 * @example
 * const up = new ColumnParallelLinear(new nn.Linear(256, 1024), Mesh.single().group('tp'))
 * up.weight.shape // [1024, 256]
 */
export class ColumnParallelLinear extends Module {
  readonly weight: Parameter
  readonly bias: Parameter | undefined
  readonly region: Region
  /** Set where the product is in 8 bits. */
  quantizer: ops.Quantizer | undefined
  readonly #inFirst: boolean
  readonly #activation: Linear['activation']
  readonly #gatherOutput: boolean
  /** Made for itself alone: nothing else releases the region. */
  readonly #ownRegion: boolean

  /** Takes the parameters of a plain layer, which must have no memory yet. @throws CONFIG where it does not divide. */
  constructor(layer: Linear | Conv1D, at: Region | ProcessGroup, options: ColumnOptions = {}) {
    super()
    this.#ownRegion = at instanceof ProcessGroup
    this.region = at instanceof ProcessGroup ? new Region(at) : at
    const { group } = this.region
    const { parts = 1, mayCopy = false, gatherOutput = false } = options
    this.#inFirst = inFirstOf(layer)
    this.#activation = layer.activation
    this.#gatherOutput = gatherOutput
    this.weight = layer.weight
    this.bias = layer.bias
    const dim = this.#inFirst ? 1 : 0
    const size = this.weight.wholeShape[dim] as number
    const units = options.units ?? size / parts
    const what = `${nameOf(this.weight)}: number of ${options.units ? 'heads' : 'outputs'}`
    const dealtTo = (rank: number): Deal => deal(what, units, group.size, rank, mayCopy)
    const rangesOf = (rank: number): Range[] => partRanges(what, size, parts, units, dealtTo(rank))
    const dealt = dealtTo(group.rank)
    cutParameter(this.weight, dim, rangesOf, group)
    markCopies(this.weight, group, dealt)
    if (!this.bias) return
    cutParameter(this.bias, 0, rangesOf, group)
    markCopies(this.bias, group, dealt)
  }

  forward(x: Tensor): Tensor {
    const entered = this.region.enter(x)
    const { quantizer } = this
    const options = { inFirst: this.#inFirst, activation: this.#activation, quantizer }
    const y =
      entered.pieces && !quantizer
        ? gatheredLinear(entered, this.weight.tensor, this.bias?.tensor, options)
        : ops.linear(entered.whole, this.weight.tensor, this.bias?.tensor, options)
    if (this.#ownRegion || this.#gatherOutput) this.region.release()
    return this.#gatherOutput ? gather(y, -1, this.region.group) : y
  }
}

interface Form {
  inFirst: boolean
  activation?: Linear['activation']
  quantizer: ops.Quantizer | undefined
}

/** Each piece is multiplied while the next ones are gathered. */
function gatheredLinear({ whole, pieces }: Entered, weight: Tensor, bias: Tensor | undefined, form: Form): Tensor {
  const { inFirst, activation } = form
  const n = weight.shape[inFirst ? 1 : 0] as number
  const y = empty([...whole.shape.slice(0, -1), n], { dtype: whole.dtype })
  const compute = (pre: Tensor | undefined): void =>
    pieces?.multiply(y, weight, !inFirst, { bias, pre, epilogue: activation ?? 'none' })
  return ops.linear(whole, weight, bias, { ...form, output: { y, compute } })
}

/**
 * This rank's inputs (…, in / ranks) → the sum over the ranks (…, out), replicated or a sequence shard.
 *
 * @example
 * const down = new RowParallelLinear(new nn.Linear(1024, 256), Mesh.single().group('tp'))
 * down.weight.shape // [256, 1024]
 */
export class RowParallelLinear extends Module {
  readonly weight: Parameter
  /** Whole on every rank, added once, to the sum. */
  readonly bias: Parameter | undefined
  readonly region: Region
  /** Set where the product is in 8 bits. */
  quantizer: ops.Quantizer | undefined
  readonly #inFirst: boolean
  readonly #activation: Linear['activation']
  readonly #splitInput: boolean

  constructor(layer: Linear | Conv1D, at: Region | ProcessGroup, options: RowOptions = {}) {
    super()
    this.region = at instanceof ProcessGroup ? new Region(at) : at
    const { group, sequence } = this.region
    this.#inFirst = inFirstOf(layer)
    this.#activation = layer.activation
    this.#splitInput = options.splitInput ?? false
    this.weight = layer.weight
    this.bias = layer.bias
    const dim = this.#inFirst ? 0 : 1
    const size = this.weight.wholeShape[dim] as number
    const units = options.units ?? size
    const what = `${nameOf(this.weight)}: number of ${options.units ? 'heads' : 'inputs'}`
    const rangesOf = (rank: number): Range[] => partRanges(what, size, 1, units, deal(what, units, group.size, rank))
    cutParameter(this.weight, dim, rangesOf, group)
    if (!this.bias || group.size === 1) return
    this.bias.replicas = group
    this.bias.partialGradient = sequence
  }

  forward(x: Tensor): Tensor {
    const { region } = this
    region.release()
    const input = this.#splitInput ? scatter(x, -1, region.group) : x
    const inputs = this.weight.shape[this.#inFirst ? 0 : 1]
    if (input.shape.at(-1) !== inputs) {
      throw new ZeroshardError(
        'SHAPE',
        `[RowParallelLinear] input ${x.describe()} must be (…, ${inputs}), what a column layer gives this rank; a whole one takes splitInput`,
      )
    }
    const sum = summedLinear(input, this.weight.tensor, region, { inFirst: this.#inFirst, quantizer: this.quantizer })
    const y = this.bias ? ops.add(sum, this.bias.tensor) : sum
    return this.#activation ? ops[this.#activation](y) : y
  }
}

const nameOf = (parameter: Parameter): string => `parameter '${parameter.name}' [${parameter.wholeShape.join(', ')}]`

/** Sum over the ranks of x · weight; each piece is summed while the next one is multiplied. */
function summedLinear(x: Tensor, weight: Tensor, region: Region, form: Form): Tensor {
  const { inFirst } = form
  if (region.sharded) return scatteredLinear(x, weight, region, form)
  const { group, chunks } = region
  const [k, n] = (inFirst ? weight.shape : [...weight.shape].reverse()) as [number, number]
  const rows = x.count / k
  const y = empty([...x.shape.slice(0, -1), n], { dtype: x.dtype, shared: true })
  const compute = (_: unknown, multiply: ops.Multiply): void => {
    const numPieces = group.size > 1 ? Math.min(chunks, rows) : 1
    if (numPieces <= 1) {
      multiply(y)
      group.allReduce(y)
      return
    }
    let before: Tensor | undefined
    for (let index = 0; index < numPieces; index++) {
      const [start, end] = unevenPart(rows, numPieces, index)
      const m = end - start
      // Memory of its own, also apart from the last one's, whose sum is under way: work on one storage is in order.
      const piece = empty([m, n], { dtype: x.dtype, shared: true })
      before?.dispose()
      before = piece
      const into = y.view([m, n], start * n)
      multiply(piece, start, m)
      group.allReduce(piece, { output: into })
      into.dispose()
    }
    before?.dispose()
  }
  return ops.linear(x, weight, undefined, { ...form, output: { y, compute } })
}

/** The same for x (B, T, in): each rank gets its part of the sequence of the sum. */
function scatteredLinear(x: Tensor, weight: Tensor, region: Region, { inFirst, quantizer }: Form): Tensor {
  const { group, chunks } = region
  const [k, n] = (inFirst ? weight.shape : [...weight.shape].reverse()) as [number, number]
  const [samples, length] = x.shape as [number, number]
  const part = region.partOf(length)
  const shard = empty([samples, part, n], { dtype: x.dtype })
  const blocks = new ShardBlocks(samples, part, group.size, chunks)
  const { rows: m } = blocks
  const quantized = quantizer && new QuantizedLinear(x, weight, inFirst, quantizer, willRecord([x, weight]))
  let before: Tensor | undefined // whose sum is under way
  for (const { first, count } of blocks.pieces) {
    const sums = empty([group.size, count * m, n], { dtype: x.dtype, shared: true })
    before?.dispose()
    before = sums
    for (let rank = 0; rank < group.size; rank++) {
      for (let block = 0; block < count; block++) {
        const row = blocks.inWhole(first + block, rank)
        const into = sums.view([m, n], (rank * count + block) * m * n)
        if (quantized) quantized.multiply(into, undefined, row, m)
        else {
          const a = x.view([m, k], row * k)
          product(into, a, weight, { m, n, k, transB: !inFirst })
          a.dispose()
        }
        into.dispose()
      }
    }
    const own = shard.view([count * m, n], blocks.inShard(first) * n)
    group.reduceScatter(own, sums)
    own.dispose()
  }
  before?.dispose()
  record('rowLinear', [shard], [x, weight], quantized?.saved ?? [x, weight], ([dy], context) => {
    if (!dy) return []
    const pieces = new GatheredPieces(dy, group, chunks)
    if (quantized) {
      const whole = pieces.whole()
      pieces.dispose()
      return quantized.backward(whole, context)
    }
    const dx = context.needs(0) ? empty(x.shape, { dtype: x.dtype }) : undefined
    if (dx) pieces.multiply(dx, weight, inFirst)
    const whole = context.needs(1) ? pieces.whole() : undefined
    pieces.dispose()
    return [dx, whole && rowGradient(context, x, weight, whole, inFirst)]
  })
  return shard
}

function rowGradient(
  context: BackwardContext,
  x: Tensor,
  weight: Tensor,
  dy: Tensor,
  inFirst: boolean,
): Tensor | undefined {
  const [a, b] = inFirst ? [x, dy] : [dy, x]
  const [m, n] = weight.shape as [number, number]
  const form = { m, n, k: x.count / (x.shape.at(-1) as number), transA: true }
  return weightGradient(context, 1, weight, (into, accumulate) => product(into, a, b, { ...form, accumulate }), [x, dy])
}

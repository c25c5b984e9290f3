// LAMB (You and others, 2019, algorithm 2) with DeepSpeed's bounds of the trust ratio. The two norms of a parameter
// don't depend on order or cut, and neither does anything else: any sharding gives the same bits.

import { ZeroshardError } from '../binding/errors.js'
import { tidy } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'
import { type Crossing, crossingsOf, cutOf } from './cut.js'
import type { Optimizer, OptimizerPart, ParameterPiece, PartGroup, UpdateCall } from './optimizer.js'
import { betasOf, biasOf, flagOf, numberOf, type Params } from './params.js'

interface Fixed {
  betas: readonly [number, number]
  eps: number
  epsInside: boolean
  biasCorrection: boolean
  minCoeff: number
  maxCoeff: number
}

export function lamb(params: Params): Optimizer {
  const fixed: Fixed = {
    betas: betasOf(params, [0.9, 0.999]),
    eps: numberOf(params, 'eps', 1e-8),
    epsInside: flagOf(params, 'eps_inside_sqrt', false),
    biasCorrection: flagOf(params, 'bias_correction', true),
    minCoeff: numberOf(params, 'min_coeff', 0.01),
    maxCoeff: numberOf(params, 'max_coeff', 10),
  }
  if (fixed.minCoeff > fixed.maxCoeff) {
    throw new ZeroshardError(
      'CONFIG',
      `optimizer.params.min_coeff ${fixed.minCoeff} is more than max_coeff ${fixed.maxCoeff}; exchange them`,
    )
  }
  return {
    type: 'Lamb',
    states: ['exp_avg', 'exp_avg_sq'],
    needsWholeParameters: true,
    update: (part, call, weightDecay) => tidy(() => update(part, fixed, call, weightDecay)),
  }
}

function update(part: OptimizerPart, fixed: Fixed, call: UpdateCall, weightDecay: number): void {
  const { param, out } = part
  const crossings = crossingsOf(cutOf('lamb', part))
  const step = empty([param.count], { category: 'buffers' })
  if (param.count > 0) moments(part, step, fixed, call, weightDecay)
  const norms = trustNorms(part, step, crossings)
  part.pieces.forEach(({ offset, count }, index) => {
    const piece = (of: Tensor): Tensor => of.view([count], offset)
    runOp(
      'apply_update',
      [piece(param), out && piece(out)],
      [piece(step), norms.view([1], 2 * index), norms.view([1], 2 * index + 1), call.norm],
      () => [call.lr, 0, fixed.minCoeff, fixed.maxCoeff],
    )
  })
}

function moments(part: OptimizerPart, step: Tensor, fixed: Fixed, call: UpdateCall, weightDecay: number): void {
  const [, beta2] = fixed.betas
  runOp('lamb', [part.states.exp_avg, part.states.exp_avg_sq, step, part.grad], [part.param, call.norm], () => {
    const beta1 = call.momentum ?? fixed.betas[0]
    return [
      beta1,
      beta2,
      fixed.eps,
      weightDecay,
      biasOf(beta1, call.update, fixed.biasCorrection),
      biasOf(beta2, call.update, fixed.biasCorrection),
      fixed.epsInside ? 1 : 0,
      call.gradScale,
      call.maxNorm,
      call.zeroGrad ? 1 : 0,
    ]
  })
}

/** Norms over whole parameters: (pieces, 2), of the values and of the update. */
function trustNorms(part: OptimizerPart, step: Tensor, crossings: readonly Crossing[]): Tensor {
  const { pieces, param } = part
  const buffer = (count: number, dtype: 'f32' | 'i64' = 'f32'): Tensor =>
    empty([count], { category: 'buffers', dtype, zero: true, shared: true })
  const largest = buffer(2 * pieces.length)
  const sums = buffer(4 * pieces.length, 'i64')
  const norms = buffer(2 * pieces.length)
  const each = (run: (x: Tensor, at: number) => void): void =>
    pieces.forEach(({ count, offset }, index) => {
      run(param.view([count], offset), 2 * index)
      run(step.view([count], offset), 2 * index + 1)
    })
  each((x, at) => runOp('absmax', [largest.view([1], at)], [x]))
  if (crossings.length) share(part, largest, crossings, { width: 2, buffer, combine: largestOver, counts: () => true })
  each((x, at) => runOp('sum_squares', [sums.view([2], 2 * at)], [x, largest.view([1], at)]))
  if (crossings.length)
    share(part, sums, crossings, {
      width: 4,
      buffer: (count) => buffer(count, 'i64'), // sums of squares are exact integers
      combine: (over, own) => over.allReduce(own),
      counts: ({ sliced }) => sliced?.counts ?? false,
    })
  each((_, at) => runOp('norm_finish', [norms.view([1], at)], [sums.view([2], 2 * at), largest.view([1], at)]))
  return norms
}

/** Runs for the crossing parameters of which this rank has a piece: the row of the piece, and of the table. */
function eachOwn(
  pieces: readonly ParameterPiece[],
  crossings: readonly Crossing[],
  run: (piece: number, row: number) => void,
): void {
  for (const [row, crossing] of crossings.entries()) {
    const piece = pieces.findIndex(({ name }) => name === crossing.name)
    if (piece >= 0) run(piece, row)
  }
}

/** Elementwise maxima of the ranks' own values, in place. */
function largestOver(over: PartGroup, own: Tensor): void {
  const all = empty([own.count * over.size], { category: 'buffers', zero: true, shared: true })
  over.allGather(all, own)
  for (let rank = 0; rank < over.size; rank++)
    for (let at = 0; at < own.count; at++) runOp('absmax', [own.view([1], at)], [all.view([1], rank * own.count + at)])
}

/** How values of pieces become those of whole parameters. */
interface Sharing {
  /** Elements of a piece. */
  width: number
  buffer(count: number): Tensor
  combine(over: PartGroup, own: Tensor): void
  /** Whether this rank's part of a sliced parameter goes in. */
  counts(crossing: Crossing): boolean
}

/**
 * Replaces each piece's row of `values` by what `combine` makes of it over all ranks that have a part of its parameter:
 * a row of a table for each crossing, then the rows of sliced ones once more over their own groups.
 */
function share(
  { group, pieces }: OptimizerPart,
  values: Tensor,
  crossings: readonly Crossing[],
  { width, buffer, combine, counts }: Sharing,
): void {
  const at = (of: Tensor, row: number): Tensor => of.view([width], width * row)
  const table = buffer(width * crossings.length)
  eachOwn(pieces, crossings, (piece, row) => runOp('cast', [at(table, row)], [at(values, piece)]))
  combine(group, table)
  for (const [over, rows] of slicedRows(crossings)) {
    const part = buffer(width * rows.length)
    for (const [index, row] of rows.entries())
      if (counts(crossings[row] as Crossing)) runOp('cast', [at(part, index)], [at(table, row)])
    combine(over, part)
    for (const [index, row] of rows.entries()) runOp('cast', [at(table, row)], [at(part, index)])
  }
  eachOwn(pieces, crossings, (piece, row) => runOp('cast', [at(values, piece)], [at(table, row)]))
}

/** Rows of sliced parameters, by the group that has their parts. */
function slicedRows(crossings: readonly Crossing[]): Map<PartGroup, number[]> {
  const rows = new Map<PartGroup, number[]>()
  for (const [row, { sliced }] of crossings.entries()) {
    if (!sliced) continue
    const { group } = sliced.over
    rows.set(group, [...(rows.get(group) ?? []), row])
  }
  return rows
}

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
      [call.lr, 0, fixed.minCoeff, fixed.maxCoeff],
    )
  })
}

function moments(part: OptimizerPart, step: Tensor, fixed: Fixed, call: UpdateCall, weightDecay: number): void {
  const beta1 = call.momentum ?? fixed.betas[0]
  const beta2 = fixed.betas[1]
  runOp(
    'lamb',
    [part.states.exp_avg, part.states.exp_avg_sq, step, part.grad],
    [part.param, call.norm],
    [
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
    ],
  )
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
  if (crossings.length) shareLargest(part, largest, crossings, buffer)
  each((x, at) => runOp('sum_squares', [sums.view([2], 2 * at)], [x, largest.view([1], at)]))
  if (crossings.length) shareSums(part, sums, crossings, buffer)
  each((_, at) => runOp('norm_finish', [norms.view([1], at)], [sums.view([2], 2 * at), largest.view([1], at)]))
  return norms
}

/** Runs for the crossing parameters of which this rank has a piece: the row of the piece, and of the table. */
function eachOwn(
  pieces: readonly ParameterPiece[],
  crossings: readonly Crossing[],
  run: (piece: number, row: number, crossing: Crossing) => void,
): void {
  for (const [row, crossing] of crossings.entries()) {
    const piece = pieces.findIndex(({ name }) => name === crossing.name)
    if (piece >= 0) run(piece, row, crossing)
  }
}

/** Largest values of crossing parameters over all their ranks: a row of a table for each. */
function shareLargest(
  { group, pieces }: OptimizerPart,
  largest: Tensor,
  crossings: readonly Crossing[],
  buffer: (count: number) => Tensor,
): void {
  const size = 2 * crossings.length
  const table = buffer(size)
  const most = (over: PartGroup, own: Tensor): void => {
    const all = buffer(own.count * over.size)
    over.allGather(all, own)
    for (let rank = 0; rank < over.size; rank++)
      for (let at = 0; at < own.count; at++)
        runOp('absmax', [own.view([1], at)], [all.view([1], rank * own.count + at)])
  }
  eachOwn(pieces, crossings, (piece, row) => runOp('cast', [table.view([2], 2 * row)], [largest.view([2], 2 * piece)]))
  most(group, table)
  for (const [over, rows] of slicedRows(crossings)) {
    const part = buffer(2 * rows.length)
    for (const [index, row] of rows.entries()) runOp('cast', [part.view([2], 2 * index)], [table.view([2], 2 * row)])
    most(over, part)
    for (const [index, row] of rows.entries()) runOp('cast', [table.view([2], 2 * row)], [part.view([2], 2 * index)])
  }
  eachOwn(pieces, crossings, (piece, row) => runOp('cast', [largest.view([2], 2 * piece)], [table.view([2], 2 * row)]))
}

/** The same for sums of squares, which are exact integers. */
function shareSums(
  { group, pieces }: OptimizerPart,
  sums: Tensor,
  crossings: readonly Crossing[],
  buffer: (count: number, dtype: 'i64') => Tensor,
): void {
  const table = buffer(4 * crossings.length, 'i64')
  eachOwn(pieces, crossings, (piece, row) => runOp('cast', [table.view([4], 4 * row)], [sums.view([4], 4 * piece)]))
  group.allReduce(table)
  for (const [over, rows] of slicedRows(crossings)) {
    const part = buffer(4 * rows.length, 'i64')
    for (const [index, row] of rows.entries())
      if (crossings[row]?.sliced?.counts) runOp('cast', [part.view([4], 4 * index)], [table.view([4], 4 * row)])
    over.allReduce(part)
    for (const [index, row] of rows.entries()) runOp('cast', [table.view([4], 4 * row)], [part.view([4], 4 * index)])
  }
  eachOwn(pieces, crossings, (piece, row) => runOp('cast', [sums.view([4], 4 * piece)], [table.view([4], 4 * row)]))
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

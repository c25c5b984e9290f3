// Muon (Jordan, 2024): the momentum of hidden matrices is made orthogonal before it is applied; AdamW for the rest.
// A matrix that lies on several ranks is gathered and made orthogonal by each of them, which then applies its own part.

import { ZeroshardError } from '../binding/errors.js'
import { joinParts, ownPart } from '../nn/parts.js'
import { tidy } from '../tensor/scope.js'
import { empty, runOp, type Shape, type Tensor } from '../tensor/tensor.js'
import { type AdamWFixed, updateAdamW } from './adamw.js'
import { type Crossing, crossingsOf, cutOf, type Holding } from './cut.js'
import { orthogonalise } from './newton-schulz.js'
import type { Optimizer, OptimizerPart, ParameterPiece, UpdateCall } from './optimizer.js'
import { betasOf, flagOf, numberOf, type Params } from './params.js'

/** DeepSpeed's choice: matrices that are neither an embedding nor the output layer. */
export const isHiddenMatrix = (name: string, shape: Shape): boolean =>
  shape.length >= 2 && !/embed|lm_head|(^|\.)w[tp]e(\.|$)/i.test(name)

interface Fixed {
  /** Which parameters are not AdamW's. */
  useMuon: (name: string, shape: Shape) => boolean
  momentum: number
  nesterov: boolean
  steps: number
  /** Rates of the two halves, in units of the call's. */
  muonRate: number
  adamRate: number
  adam: AdamWFixed
}

/** The momentum of a matrix is kept in `exp_avg`; its `exp_avg_sq` stays 0. */
export function muon(params: Params): Optimizer {
  const lr = numberOf(params, 'lr', 0.02)
  const rate = (key: string): number => {
    const own = numberOf(params, key, lr)
    if (lr === 0 && own > 0)
      throw new ZeroshardError(
        'CONFIG',
        `optimizer.params.${key} ${own} is no multiple of optimizer.params.lr, which is 0: nothing would be trained; set lr to ${own}; muon_lr and adam_lr may be 0`,
      )
    return lr === 0 ? 1 : own / lr
  }
  const fixed: Fixed = {
    useMuon: (params.use_muon as Fixed['useMuon'] | undefined) ?? isHiddenMatrix,
    momentum: numberOf(params, 'momentum', 0.95),
    nesterov: flagOf(params, 'nesterov', true),
    steps: numberOf(params, 'ns_steps', 5),
    muonRate: rate('muon_lr'),
    adamRate: rate('adam_lr'),
    adam: {
      betas: betasOf(params, [0.9, 0.95]),
      eps: numberOf(params, 'eps', 1e-10),
      decoupled: true,
      biasCorrection: true,
    },
  }
  return {
    type: 'Muon',
    states: ['exp_avg', 'exp_avg_sq'],
    needsWholeParameters: true,
    update: (part, call, weightDecay) => tidy(() => update(part, fixed, call, weightDecay)),
  }
}

function update(part: OptimizerPart, fixed: Fixed, call: UpdateCall, weightDecay: number): void {
  const { param, out } = part
  const crossings = crossingsOf(cutOf('muon', part)).filter(({ name, shape }) => fixed.useMuon(name, shape))
  const runs = runsOf(part, fixed)
  for (const run of runs) {
    const slice = (of: Tensor): Tensor => of.view([run.count], run.offset)
    if (run.momentum) accumulate(part, slice, run.momentum, fixed, call)
    else {
      const { exp_avg, exp_avg_sq } = part.states as Record<'exp_avg' | 'exp_avg_sq', Tensor>
      updateAdamW(
        {
          ...part,
          param: slice(param),
          out: out && slice(out),
          grad: slice(part.grad),
          states: { exp_avg: slice(exp_avg), exp_avg_sq: slice(exp_avg_sq) },
        },
        fixed.adam,
        atRate(call, fixed.adamRate),
        weightDecay,
      )
    }
  }
  const momentum = (shape: Shape, offset: number): Tensor => {
    const run = runs.find((run) => offset < run.offset + run.count) as Run
    return (run.momentum as Tensor).view(shape, offset - run.offset)
  }
  const gathered = gather(part, momentum, crossings)
  const own = part.pieces.filter(({ name, shape }) => fixed.useMuon(name, shape))
  for (const crossing of crossings) {
    // All ranks join the parts of a sliced matrix, also those without a piece of it.
    tidy(() => {
      const piece = own.find(({ name }) => name === crossing.name)
      const { sliced } = crossing
      const whole = piece || sliced ? gathered(crossing) : undefined
      const joined = whole && sliced ? joinParts(whole, sliced) : whole
      if (piece && joined) applyMatrices(part, piece, joined, fixed, call, weightDecay)
    })
  }
  for (const piece of own) {
    if (crossings.some(({ name }) => name === piece.name)) continue
    tidy(() => applyMatrices(part, piece, momentum(piece.shape, piece.offset), fixed, call, weightDecay))
  }
}

/** The same call, which may change, at another rate. */
const atRate = (call: UpdateCall, rate: number): UpdateCall =>
  Object.create(call, { lr: { get: () => call.lr * rate } }) as UpdateCall

/** A range of the part that belongs to one of the two halves; Muon's with what is to be made orthogonal. */
interface Run {
  offset: number
  count: number
  momentum?: Tensor
}

/** Covers the part, padding included: that goes with what lies before it, so that its gradient is zeroed too. */
function runsOf({ pieces, param }: OptimizerPart, { useMuon }: Fixed): Run[] {
  const starts: { offset: number; muon: boolean }[] = []
  for (const { name, shape, offset } of pieces) {
    const muon = useMuon(name, shape)
    if (starts[starts.length - 1]?.muon !== muon) starts.push({ offset: starts.length ? offset : 0, muon })
  }
  if (starts.length === 0 && param.count > 0) starts.push({ offset: 0, muon: false })
  return starts.map(({ offset, muon }, index) => {
    const count = (starts[index + 1]?.offset ?? param.count) - offset
    return { offset, count, ...(muon && { momentum: empty([count], { category: 'buffers' }) }) }
  })
}

function accumulate(
  part: OptimizerPart,
  slice: (of: Tensor) => Tensor,
  momentum: Tensor,
  fixed: Fixed,
  call: UpdateCall,
): void {
  runOp('muon', [slice(part.states.exp_avg as Tensor), momentum, slice(part.grad)], [call.norm], () => [
    fixed.momentum,
    fixed.nesterov ? 1 : 0,
    call.gradScale,
    call.maxNorm,
    call.zeroGrad ? 1 : 0,
  ])
}

/** Exchanges the pieces of all crossing matrices in one all-gather; gives each matrix whole, when asked. */
function gather(
  { group }: OptimizerPart,
  momentum: (shape: Shape, offset: number) => Tensor,
  crossings: readonly Crossing[],
): (crossing: Crossing) => Tensor {
  // A rank's pieces lie one after the other in its slot, at the same places on every rank's account.
  const used = Array.from({ length: group.size }, () => 0)
  const place = new Map<Holding, number>()
  for (const { holdings } of crossings) {
    for (const holding of holdings) {
      const at = used[holding.rank] as number
      place.set(holding, at)
      used[holding.rank] = at + holding.count
    }
  }
  const slot = Math.max(...used)
  const all = empty([slot * group.size], { category: 'buffers', shared: true })
  if (crossings.length) {
    const own = all.view([slot], group.rank * slot)
    for (const [{ rank, offset, count }, at] of place)
      if (rank === group.rank) runOp('cast', [own.view([count], at)], [momentum([count], offset)])
    group.allGather(all, own)
  }
  return ({ shape, holdings }) => {
    const whole = empty(shape, { category: 'buffers' })
    for (const holding of holdings) {
      const { rank, start, count } = holding
      const from = rank * slot + (place.get(holding) as number)
      runOp('cast', [whole.view([count], start)], [all.view([count], from)])
    }
    return whole
  }
}

/** Applies the orthogonal matrices (the last two dims; the others are a stack) to the elements that are here. */
function applyMatrices(
  { param, out }: OptimizerPart,
  piece: ParameterPiece,
  whole: Tensor,
  fixed: Fixed,
  call: UpdateCall,
  weightDecay: number,
): void {
  const { sliced } = piece
  const [rows, cols] = (sliced?.slice.wholeShape ?? piece.shape).slice(-2) as [number, number]
  // Steps of a tall matrix are longer, so that an input's effect changes as much; the decay is not scaled.
  const scale = Math.sqrt(Math.max(1, rows / cols))
  const apply = (step: Tensor, offset: number): void => {
    const own = (of: Tensor): Tensor => of.view([step.count], piece.offset + offset)
    runOp('apply_update', [own(param), out && own(out)], [step, undefined, undefined, call.norm], () => [
      call.lr * fixed.muonRate * scale,
      weightDecay / scale,
      0,
      0,
    ])
  }
  const size = rows * cols
  const end = piece.start + piece.count
  if (sliced) {
    const all = empty([whole.count], { category: 'buffers' })
    for (let first = 0; first < whole.count; first += size)
      runOp('cast', [all.view([size], first)], [orthogonal(whole, rows, cols, first, fixed)])
    apply(ownPart(all, sliced).view([piece.count], piece.start), 0)
    return
  }
  for (let first = Math.floor(piece.start / size) * size; first < end; first += size) {
    const from = Math.max(first, piece.start)
    const count = Math.min(first + size, end) - from
    tidy(() => apply(orthogonal(whole, rows, cols, first, fixed).view([count], from - first), from - piece.start))
  }
}

/** The matrix of a stack that begins at `first`, made orthogonal. */
const orthogonal = (stack: Tensor, rows: number, cols: number, first: number, { steps }: Fixed): Tensor =>
  orthogonalise(stack.view([rows, cols], first), steps)

// Losses and softmax; the language model's classifier, whose logits exist only in chunks.

import { type BackwardContext, record, willRecord } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { tidy } from '../tensor/scope.js'
import { type DType, empty, runOp, type Tensor } from '../tensor/tensor.js'
import { affine, mul, sub } from './arithmetic.js'
import { checkDType, checkFloat, checkShape, lastDim } from './check.js'
import { cast, mean } from './layout.js'
import { product, weightGradient } from './linear.js'

function softmaxOf(op: string, x: Tensor, log: number): Tensor {
  checkFloat(op, x)
  const cols = lastDim(op, x)
  const scalars = [x.count / Math.max(cols, 1), cols, log]
  const y = empty(x.shape, { dtype: x.dtype })
  runOp('softmax_forward', [y], [x], scalars)
  record(op, [y], [x], [y], ([dy]) => {
    if (!dy) return []
    const dx = empty(x.shape, { dtype: x.dtype })
    runOp('softmax_backward', [dx], [dy, y], scalars)
    return [dx]
  })
  return y
}

/**
 * Softmax over the last dim.
 *
 * @example
 * ops.softmax(tensor([0, 0])) // [0.5, 0.5]
 */
export const softmax = (x: Tensor): Tensor => softmaxOf('softmax', x, 0)
/**
 * Log-softmax over the last dim.
 *
 * @example
 * ops.logSoftmax(tensor([0, 0])) // [-0.6931, -0.6931]
 */
export const logSoftmax = (x: Tensor): Tensor => softmaxOf('logSoftmax', x, 1)

/**
 * Mean of (x - y)².
 *
 * @example
 * ops.meanSquaredError(tensor([1, 2]), tensor([1, 4])) // 2
 */
export function meanSquaredError(x: Tensor, y: Tensor): Tensor {
  return tidy(() => {
    const difference = sub(x, y)
    return mean(mul(difference, difference))
  })
}

/** Options of the cross entropies. */
export interface ClassifierOptions {
  /** Targets with this value don't count; default -100. */
  ignoreIndex?: number
  /** Number of targets that count, where some are ignored; default all. */
  numTargets?: number
  /** Bytes of logits to hold at once; default 256 MiB. */
  logitBytes?: number
}

/** Some rows of a matrix. */
export interface Rows {
  start: number
  count: number
}

/** How logits (rows, V) become losses; where the vocabulary is cut over ranks, by all of them. */
export interface Scorer {
  /** The most columns of any rank: all hold as many rows at once. */
  columns: number
  /** Writes each row's loss and, where asked for, its gradient times `scale` over the logits; a chunk may come again. */
  score(call: ScoreCall): void
  /** What it needs to score a chunk again in backward. */
  saved(): readonly Tensor[]
}
/** One chunk of rows to score. */
export interface ScoreCall {
  logits: Tensor
  targets: Tensor
  losses: Tensor
  gradient: boolean
  ignoreIndex: number
  scale: number
  rows: Rows
}

/** The whole vocabulary here. */
const whole = (columns: number): Scorer => ({
  columns,
  score: ({ logits, targets, losses, gradient, ignoreIndex, scale, rows }) =>
    runOp(
      'classifier',
      [logits, losses, undefined],
      [targets],
      [rows.count, columns, columns, ignoreIndex, gradient ? 1 : 0, scale],
    ),
  saved: () => [],
})

/**
 * What a gradient of logits is multiplied by where it is stored. In f16 a token's share of a mean is lost below 6e-8:
 * there it is stored 4096 times as large as before the mean, and the product with it takes the mean, in f32.
 */
const storedScale = (dtype: DType, inverse: number): number => (dtype === 'f16' ? 4096 : inverse)

/**
 * Mean cross entropy of x (…, C) · weight (V, C)ᵀ against targets i32 (…): an f32 scalar. The logits exist for one
 * chunk of rows at a time; where all fit in one, backward uses their gradient in place, else it computes them again.
 *
 * @example
 * const [hidden, weight] = [tensor([1, 0], [1, 2]), tensor([1, 0, 1, 0], [2, 2])]
 * ops.linearCrossEntropy(hidden, weight, tensor(Int32Array.of(1))) // 0.6931
 */
export function linearCrossEntropy(
  x: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: ClassifierOptions = {},
  scorer?: Scorer,
): Tensor {
  return tidy(() => classified(x, weight, targets, options, scorer ?? whole(weight.shape[0] as number)))
}

function classified(x: Tensor, weight: Tensor, targets: Tensor, options: ClassifierOptions, scorer: Scorer): Tensor {
  const op = 'linearCrossEntropy'
  checkFloat(op, x, weight)
  checkDType(op, targets, 'i32')
  const c = lastDim(op, x)
  if (weight.shape.length !== 2 || weight.shape[1] !== c) {
    throw new ZeroshardError('SHAPE', `[${op}] ${x.describe()} needs a weight of [V, ${c}], got ${weight.describe()}`)
  }
  checkShape(op, 'targets', targets, x.shape.slice(0, -1))
  const v = weight.shape[0] as number
  const rows = targets.count
  const perRow = scorer.columns * (x.bytes / Math.max(x.count, 1))
  const chunk = Math.max(1, Math.min(rows, Math.floor((options.logitBytes ?? 2 ** 28) / perRow)))
  const single = chunk >= rows
  const recording = willRecord([x, weight])
  const inverse = 1 / (options.numTargets ?? rows)
  const scale = storedScale(x.dtype, inverse)
  const losses = empty([rows])
  const classify = (part: Rows, gradient: boolean, into: Tensor): Tensor => {
    const logits = empty([part.count, v], { dtype: x.dtype })
    product(logits, x.view([part.count, c], part.start * c), weight, { m: part.count, n: v, k: c, transB: true })
    scorer.score({
      logits,
      targets: targets.view([part.count], part.start),
      losses: into.view([part.count], part.start),
      gradient,
      ignoreIndex: options.ignoreIndex ?? -100,
      scale,
      rows: part,
    })
    return logits
  }
  const chunks: Rows[] = []
  for (let start = 0; start < rows; start += chunk) chunks.push({ start, count: Math.min(chunk, rows - start) })
  let dlogits: Tensor | undefined
  for (const part of chunks) {
    const logits = classify(part, recording && single, losses)
    if (recording && single) dlogits = logits
    else logits.dispose()
  }
  const loss = empty([])
  runOp('reduce', [loss], [losses], [1, rows, 1, 0, 0, inverse])
  losses.dispose()
  record(op, [loss], [x, weight], [x, weight, targets, dlogits, ...scorer.saved()], ([dy], context) => {
    if (!dy) return []
    const alpha = scale === inverse ? dy : affine(dy, inverse / scale)
    const dx = context.needs(0) ? empty(x.shape, { dtype: x.dtype }) : undefined
    const apply = ({ start, count: m }: Rows, gradient: Tensor, accumulate: boolean, into?: Tensor): void => {
      const part = (of: Tensor): Tensor => of.view([m, c], start * c)
      if (dx) product(part(dx), gradient, weight, { m, n: c, k: v }, { alpha })
      if (into) product(into, gradient, part(x), { m: v, n: c, k: m, transA: true, accumulate }, { alpha })
    }
    const dw = backwardChunks(chunks, dlogits, context, weight, apply, (part) => {
      const scratch = empty([rows])
      const logits = classify(part, true, scratch)
      scratch.dispose()
      return logits
    })
    return [dx, dw]
  })
  dlogits?.dispose()
  return loss
}

function backwardChunks(
  chunks: readonly Rows[],
  dlogits: Tensor | undefined,
  context: BackwardContext,
  weight: Tensor,
  apply: (part: Rows, gradient: Tensor, accumulate: boolean, into?: Tensor) => void,
  again: (part: Rows) => Tensor,
): Tensor | undefined {
  const run = (into?: Tensor, accumulate = false): void =>
    chunks.forEach((part, index) => {
      const gradient = dlogits ?? again(part)
      apply(part, gradient, accumulate || index > 0, into)
      if (!dlogits) gradient.dispose()
    })
  if (context.needs(1)) return weightGradient(context, 1, weight, run)
  run()
  return undefined
}

/**
 * Mean cross entropy of logits (…, V) against targets i32 (…): an f32 scalar.
 *
 * @example
 * ops.crossEntropy(tensor([0, 0], [1, 2]), tensor(Int32Array.of(1))) // 0.6931
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options: ClassifierOptions = {}): Tensor {
  const op = 'crossEntropy'
  checkFloat(op, logits)
  checkDType(op, targets, 'i32')
  checkShape(op, 'targets', targets, logits.shape.slice(0, -1))
  const v = lastDim(op, logits)
  const rows = targets.count
  const inverse = 1 / (options.numTargets ?? rows)
  // In f16 neither a small gradient nor a large scale of the loss fits.
  const gradient = empty(logits.shape, { dtype: logits.dtype === 'f16' ? 'f32' : logits.dtype })
  runOp('cast', [gradient], [logits])
  const losses = empty([rows])
  runOp('classifier', [gradient, losses, undefined], [targets], [rows, v, v, options.ignoreIndex ?? -100, 1, inverse])
  const loss = empty([])
  runOp('reduce', [loss], [losses], [1, rows, 1, 0, 0, inverse])
  losses.dispose()
  record(op, [loss], [logits], [gradient], ([dy]) => {
    if (!dy) return []
    const dx = empty(logits.shape, { dtype: gradient.dtype })
    runOp('binary', [dx], [gradient, cast(dy, gradient.dtype)], [2])
    return [dx.dtype === logits.dtype ? dx : cast(dx, logits.dtype)]
  })
  gradient.dispose()
  return loss
}

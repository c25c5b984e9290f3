// Layer norm and RMS norm over the last dim, alone or fused with the residual addition before it.

import { record } from '../autograd/tape.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'
import { checkFloat, checkShape, lastDim } from './check.js'

interface NormInputs {
  x: Tensor
  weight: Tensor | undefined
  bias: Tensor | undefined
  residual: Tensor | undefined
}

function norm(
  op: 'layerNorm' | 'rmsNorm',
  { x, weight, bias, residual }: NormInputs,
  eps: number,
): { y: Tensor; sum: Tensor } {
  checkFloat(op, x, weight, bias, residual)
  const cols = lastDim(op, x)
  const rows = cols === 0 ? 0 : x.count / cols
  for (const vector of [weight, bias]) if (vector) checkShape(op, 'weight and bias', vector, [cols])
  if (residual) checkShape(op, 'residual', residual, x.shape)
  const layer = op === 'layerNorm'
  const y = empty(x.shape, { dtype: x.dtype })
  const rstd = empty([rows])
  const mean = layer ? empty([rows]) : undefined
  const added = residual ? empty(x.shape, { dtype: x.dtype }) : undefined
  if (layer) runOp('layer_norm_forward', [y, mean, rstd, added], [x, weight, bias, residual], [rows, cols, eps])
  else runOp('rms_norm_forward', [y, rstd, added], [x, weight, residual], [rows, cols, eps])
  const normalised = added ?? x
  record(
    op,
    added ? [y, added] : [y],
    [x, weight, bias, residual],
    [normalised, weight, mean, rstd],
    ([dy, dsum], context) => {
      if (!dy) return [dsum, undefined, undefined, residual ? dsum : undefined]
      const dx = empty(x.shape, { dtype: x.dtype })
      const sinkOf = (index: number, vector: Tensor | undefined): Tensor | undefined =>
        vector && context.needs(index) ? (context.sink(index) ?? empty(vector.shape, { zero: true })) : undefined
      const [dweight, dbias] = [sinkOf(1, weight), sinkOf(2, bias)]
      if (layer) {
        runOp('layer_norm_backward', [dx, dweight, dbias], [dy, normalised, weight, mean, rstd, dsum], [rows, cols])
      } else runOp('rms_norm_backward', [dx, dweight], [dy, normalised, weight, rstd, dsum], [rows, cols])
      return [dx, context.sink(1) ? undefined : dweight, context.sink(2) ? undefined : dbias, residual ? dx : undefined]
    },
  )
  mean?.dispose()
  rstd.dispose()
  return { y, sum: normalised }
}

/**
 * (x - mean) / sqrt(variance + eps) * weight + bias.
 *
 * @example
 * ops.layerNorm(tensor([1, 3], [1, 2])) // [-1, 1]
 */
export const layerNorm = (x: Tensor, weight?: Tensor, bias?: Tensor, eps = 1e-5): Tensor =>
  norm('layerNorm', { x, weight, bias, residual: undefined }, eps).y

/**
 * Layer norm of x + residual; `sum` is that addition, the next residual.
 *
 * @example
 * const { y, sum } = ops.addLayerNorm(tensor([1, 1], [1, 2]), tensor([0, 2], [1, 2]))
 * y // [-1, 1]
 * sum // [1, 3]
 */
export const addLayerNorm = (
  x: Tensor,
  residual: Tensor,
  weight?: Tensor,
  bias?: Tensor,
  eps = 1e-5,
): { y: Tensor; sum: Tensor } => norm('layerNorm', { x, weight, bias, residual }, eps)

/**
 * x / sqrt(mean(x²) + eps) * weight.
 *
 * @example
 * ops.rmsNorm(tensor([3, 4], [1, 2])) // [0.8485, 1.1314]
 */
export const rmsNorm = (x: Tensor, weight?: Tensor, eps = 1e-6): Tensor =>
  norm('rmsNorm', { x, weight, bias: undefined, residual: undefined }, eps).y

/**
 * RMS norm of x + residual; `sum` is that addition.
 *
 * @example
 * ops.addRmsNorm(tensor([1, 1], [1, 2]), tensor([2, 3], [1, 2])).sum // [3, 4]
 */
export const addRmsNorm = (x: Tensor, residual: Tensor, weight?: Tensor, eps = 1e-6): { y: Tensor; sum: Tensor } =>
  norm('rmsNorm', { x, weight, bias: undefined, residual }, eps)

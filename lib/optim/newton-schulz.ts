// The nearest orthogonal matrix, roughly: five steps of a quintic iteration (Jordan, "Muon", 2024) that bring all
// singular values close to 1. Products only, in f32.

import { tidy } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'

/** x ← a x + (b A + c A²) x with A = x xᵀ: chosen by Jordan for the steepest slope at 0. */
const [a, b, c] = [3.4445, -4.775, 2.0315]
const EPSILON = 1e-7

/** y (m, n) = x op(z), plus y where `add`; `alpha` (f32 scalar) multiplies the product. */
function product(
  y: Tensor,
  [x, transX]: readonly [Tensor, boolean],
  [z, transZ]: readonly [Tensor, boolean],
  k: number,
  { add = false, alpha }: { add?: boolean; alpha?: Tensor } = {},
): void {
  const [m, n] = y.shape as [number, number]
  runOp(
    'matmul',
    [y, undefined],
    [x, z, undefined, undefined, alpha],
    [1, m, n, k, transX ? 1 : 0, transZ ? 1 : 0, add ? 1 : 0, 0],
  )
}

const buffer = (shape: readonly number[]): Tensor => empty(shape, { category: 'buffers' })

/** x / (‖x‖ + ε), Frobenius: no singular value is above 1. */
function normalised(x: Tensor): Tensor {
  return tidy(() => {
    const largest = empty([1], { category: 'buffers', zero: true })
    const sum = empty([2], { category: 'buffers', dtype: 'i64', zero: true })
    const [norm, divisor, y] = [buffer([1]), buffer([1]), buffer(x.shape)]
    runOp('absmax', [largest], [x])
    runOp('sum_squares', [sum], [x, largest])
    runOp('norm_finish', [norm], [sum, largest])
    runOp('affine', [divisor], [norm], [1, EPSILON])
    runOp('binary', [y], [x, divisor], [3])
    return y
  })
}

/**
 * A fresh (rows, cols) matrix with x's singular vectors and singular values of about 1. The same bits for the same x,
 * on any number of threads.
 */
export function orthogonalise(x: Tensor, steps: number): Tensor {
  const [rows, cols] = x.shape as [number, number]
  const tall = rows > cols
  const [small, large] = tall ? [cols, rows] : [rows, cols]
  return tidy(() => {
    const alpha = buffer([1])
    runOp('fill', [alpha], [], [c])
    const [gram, polynomial] = [buffer([small, small]), buffer([small, small])]
    let [y, next] = [normalised(x), buffer(x.shape)]
    for (let step = 0; step < steps; step++) {
      // The smaller of the two Gram matrices; the polynomial of it stands on that side.
      product(gram, [y, tall], [y, !tall], large)
      runOp('affine', [polynomial], [gram], [b, 0])
      product(polynomial, [gram, false], [gram, false], small, { add: true, alpha })
      runOp('affine', [next], [y], [a, 0])
      if (tall) product(next, [y, false], [polynomial, false], small, { add: true })
      else product(next, [polynomial, false], [y, false], small, { add: true })
      ;[y, next] = [next, y]
    }
    return y
  })
}

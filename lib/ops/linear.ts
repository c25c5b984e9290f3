// Matrix products. Weight gradients are added straight into the parameter's gradient buffer.

import { type BackwardContext, record, willRecord } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { countOf, empty, runOp, type Tensor } from '../tensor/tensor.js'
import { checkFloat, checkShape, lastDim } from './check.js'
import { QuantizedLinear, type Quantizer } from './float8.js'
import { weightGradient } from './weight-gradient.js'

export { weightGradient } from './weight-gradient.js'

export interface Product {
  batch?: number
  m: number
  n: number
  k: number
  transA?: boolean
  transB?: boolean
  accumulate?: boolean
}

const epilogues = { none: 0, geluTanh: 1, gelu: 2, dGeluTanh: 3, dGelu: 4 } as const

/** One call of the kernel (native/ops/matmul.h); not on the tape. */
export function product(
  y: Tensor,
  a: Tensor,
  b: Tensor,
  p: Product,
  extra: {
    pre?: Tensor | undefined
    bias?: Tensor | undefined
    preIn?: Tensor | undefined
    /** Factor of the product, f32 (1). */
    alpha?: Tensor
    epilogue?: keyof typeof epilogues
  } = {},
): void {
  runOp(
    'matmul',
    [y, extra.pre],
    [a, b, extra.bias, extra.preIn, extra.alpha],
    [
      p.batch ?? 1,
      p.m,
      p.n,
      p.k,
      p.transA ? 1 : 0,
      p.transB ? 1 : 0,
      p.accumulate ? 1 : 0,
      epilogues[extra.epilogue ?? 'none'],
    ],
  )
}

/**
 * Product of matrices (…, M, K) and (…, K, N), or (K, N) for all of the batch → (…, M, N).
 *
 * @example
 * ops.matmul(tensor([1, 2], [1, 2]), tensor([3, 4], [2, 1])) // [11]
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  checkFloat('matmul', a, b)
  const [m, k] = [a.shape.at(-2), a.shape.at(-1)]
  const [kb, n] = [b.shape.at(-2), b.shape.at(-1)]
  const lead = a.shape.slice(0, -2)
  const shared = b.shape.length === 2
  if (
    m === undefined ||
    k === undefined ||
    n === undefined ||
    k !== kb ||
    (!shared && countOf(lead) !== countOf(b.shape.slice(0, -2)))
  ) {
    throw new ZeroshardError(
      'SHAPE',
      `[matmul] ${a.describe()} and ${b.describe()} do not multiply: need (…, M, K) and (…, K, N)`,
    )
  }
  const batch = shared ? 1 : countOf(lead)
  const rows = shared ? countOf(lead) * m : m
  const y = empty([...lead, m, n], { dtype: a.dtype })
  product(y, a, b, { batch, m: rows, n, k })
  record('matmul', [y], [a, b], [a, b], ([dy], context) => {
    if (!dy) return []
    const da = context.needs(0) ? empty(a.shape, { dtype: a.dtype }) : undefined
    if (da) product(da, dy, b, { batch, m: rows, n: k, k: n, transB: true })
    const db = context.needs(1)
      ? weightGradient(
          context,
          1,
          b,
          (into, accumulate) => product(into, a, dy, { batch, m: k, n, k: rows, transA: true, accumulate }),
          [a, dy],
        )
      : undefined
    return [da, db]
  })
  return y
}

/** Options of `linear`. */
export interface LinearOptions {
  /** Weight is (in, out), as GPT-2's Conv1D keeps it, instead of (out, in). */
  inFirst?: boolean
  /** Applied to the sum in the same pass. */
  activation?: 'gelu' | 'geluTanh' | undefined
  /** The product in 8 bits: how its operands get there. x bf16 or f16. */
  quantizer?: Quantizer | undefined
  /**
   * The output, and what computes it (and the sum before the activation), perhaps with `multiply`; default: fresh
   * memory, one product.
   */
  output?: { y: Tensor; compute: (pre: Tensor | undefined, multiply: Multiply) => void }
}

/** Writes rows [row, row + rows) of x · weight + bias; default: all of them. */
export type Multiply = (into: Tensor, row?: number, rows?: number) => void

/**
 * x (…, in) · weight (out, in)ᵀ + bias (out) → (…, out).
 *
 * @example
 * ops.linear(tensor([1, 2], [1, 2]), tensor([3, 4], [1, 2]), tensor([0.5])) // [11.5]
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor, options: LinearOptions = {}): Tensor {
  checkFloat('linear', x, weight, bias)
  const k = lastDim('linear', x)
  const [rowsOfWeight, colsOfWeight] = [weight.shape[0] as number, weight.shape[1] as number]
  const [n, kw] = options.inFirst ? [colsOfWeight, rowsOfWeight] : [rowsOfWeight, colsOfWeight]
  if (weight.shape.length !== 2 || kw !== k) {
    throw new ZeroshardError(
      'SHAPE',
      `[linear] input ${x.describe()} needs a weight of ${options.inFirst ? `[${k}, out]` : `[out, ${k}]`}, got ${weight.describe()}`,
    )
  }
  if (bias) checkShape('linear', 'bias', bias, [n])
  const m = k === 0 ? countOf(x.shape.slice(0, -1)) : x.count / k
  const { activation, output, quantizer } = options
  const inFirst = options.inFirst === true
  const quantized = quantizer && new QuantizedLinear(x, weight, inFirst, quantizer, willRecord([x, weight, bias]))
  const y = output?.y ?? empty([...x.shape.slice(0, -1), n], { dtype: x.dtype })
  const pre = activation ? empty(y.shape, { dtype: x.dtype }) : undefined
  const multiply: Multiply = (into, row = 0, rows = m) => {
    if (quantized) {
      quantized.multiply(into, bias, row, rows)
      return
    }
    const a = x.view([rows, k], row * k)
    product(into, a, weight, { m: rows, n, k, transB: !inFirst }, { bias })
    a.dispose()
  }
  if (output) output.compute(pre, multiply)
  else if (quantized) {
    multiply(pre ?? y)
    if (pre) runOp('unary', [y], [pre], [kindOf(activation as Activation)])
  } else product(y, x, weight, { m, n, k, transB: !inFirst }, { bias, pre, epilogue: activation ?? 'none' })
  const saved = quantized ? [...quantized.saved, pre] : [x, weight, pre]
  record('linear', [y], [x, weight, bias], saved, ([grad], context) => {
    if (!grad) return []
    const dy = pre ? activationGradient(grad, pre, activation as Activation) : grad
    const [dx, dw] = quantized
      ? quantized.backward(dy, context)
      : linearBackward(x, weight, dy, { m, n, k, inFirst }, context)
    const db =
      bias && context.needs(2)
        ? weightGradient(
            context,
            2,
            bias,
            (into, accumulate) => runOp('reduce', [into], [dy], [1, m, n, 0, accumulate ? 1 : 0, 1]),
            [dy],
          )
        : undefined
    return [dx, dw, db]
  })
  if (pre) pre.dispose()
  return y
}

function linearBackward(
  x: Tensor,
  weight: Tensor,
  dy: Tensor,
  { m, n, k, inFirst }: { m: number; n: number; k: number; inFirst: boolean },
  context: BackwardContext,
): [dx: Tensor | undefined, dw: Tensor | undefined] {
  const dx = context.needs(0) ? empty(x.shape, { dtype: x.dtype }) : undefined
  if (dx) product(dx, dy, weight, { m, n: k, k: n, transB: inFirst })
  const compute = (into: Tensor, accumulate: boolean): void =>
    inFirst
      ? product(into, x, dy, { m: k, n, k: m, transA: true, accumulate })
      : product(into, dy, x, { m: n, n: k, k: m, transA: true, accumulate })
  return [dx, context.needs(1) ? weightGradient(context, 1, weight, compute, [x, dy]) : undefined]
}

type Activation = NonNullable<LinearOptions['activation']>
const kindOf = (activation: Activation): number => (activation === 'geluTanh' ? 0 : 1)

function activationGradient(dy: Tensor, pre: Tensor, activation: Activation): Tensor {
  const dx = empty(pre.shape, { dtype: pre.dtype })
  runOp('unary_backward', [dx], [dy, pre, undefined], [kindOf(activation)])
  return dx
}

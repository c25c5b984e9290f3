// Matrix products. Weight gradients are added straight into the parameter's gradient buffer.

import { type BackwardContext, record } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { countOf, empty, runOp, type Tensor } from '../tensor/tensor.js'
import { checkFloat, checkShape, lastDim } from './check.js'

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

/**
 * Lets `compute` add into the leaf's gradient buffer (f32, or of `like`'s dtype), or write a fresh tensor where there
 * is none. Where `uses` says which tensors it needs, it may be called later.
 */
export function weightGradient(
  context: BackwardContext,
  index: number,
  like: Tensor,
  compute: (into: Tensor, accumulate: boolean) => void,
  uses?: readonly Tensor[],
): Tensor | undefined {
  const sink = context.sink(index, like.dtype)
  if (sink) {
    if (!uses || !context.postpone(index, uses, () => compute(sink, true))) compute(sink, true)
    return undefined
  }
  // A leaf whose buffer is of another type adds it in f32.
  const fresh = empty(like.shape, { dtype: like.producer ? like.dtype : 'f32' })
  compute(fresh, false)
  return fresh
}

/** Options of `linear`. */
export interface LinearOptions {
  /** Weight is (in, out), as GPT-2's Conv1D keeps it, instead of (out, in). */
  inFirst?: boolean
  /** Applied to the sum in the same pass. */
  activation?: 'gelu' | 'geluTanh' | undefined
  /** The output, and what computes it (and the sum before the activation); default: fresh memory, one product. */
  output?: { y: Tensor; compute: (pre: Tensor | undefined) => void }
}

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
  const { activation, output } = options
  const y = output?.y ?? empty([...x.shape.slice(0, -1), n], { dtype: x.dtype })
  const pre = activation ? empty(y.shape, { dtype: x.dtype }) : undefined
  if (output) output.compute(pre)
  else product(y, x, weight, { m, n, k, transB: !options.inFirst }, { bias, pre, epilogue: activation ?? 'none' })
  record('linear', [y], [x, weight, bias], [x, weight, pre], ([grad], context) => {
    if (!grad) return []
    const dy = pre ? activationGradient(grad, pre, activation as 'gelu') : grad
    const dx = context.needs(0) ? empty(x.shape, { dtype: x.dtype }) : undefined
    if (dx) product(dx, dy, weight, { m, n: k, k: n, transB: options.inFirst === true })
    const dw = context.needs(1)
      ? weightGradient(
          context,
          1,
          weight,
          (into, accumulate) =>
            options.inFirst
              ? product(into, x, dy, { m: k, n, k: m, transA: true, accumulate })
              : product(into, dy, x, { m: n, n: k, k: m, transA: true, accumulate }),
          [x, dy],
        )
      : undefined
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

function activationGradient(dy: Tensor, pre: Tensor, activation: 'gelu' | 'geluTanh'): Tensor {
  const dx = empty(pre.shape, { dtype: pre.dtype })
  runOp('unary_backward', [dx], [dy, pre, undefined], [activation === 'geluTanh' ? 0 : 1])
  return dx
}

// Elementwise arithmetic with numpy broadcasting, and activation functions.

import { record } from '../autograd/tape.js'
import { empty, runOp, type Shape, type Tensor } from '../tensor/tensor.js'
import { broadcastShape, checkFloat, checkShape, sameShape } from './check.js'

const binaryKinds = { add: 0, sub: 1, mul: 2, div: 3, maximum: 4, minimum: 5 } as const
const unaryKinds = {
  geluTanh: 0,
  gelu: 1,
  silu: 2,
  relu: 3,
  tanh: 4,
  sigmoid: 5,
  exp: 6,
  log: 7,
  sqrt: 8,
  square: 9,
  abs: 10,
  reciprocal: 11,
} as const
/** Kinds whose gradient needs the result instead of the input (native/ops/elementwise.h). */
const fromResult = new Set<number>([3, 4, 5, 6, 8, 11])

function rawBinary(kind: number, a: Tensor, b: Tensor, shape: Shape): Tensor {
  const y = empty(shape, { dtype: a.dtype })
  runOp('binary', [y], [a, b], [kind])
  return y
}

/** Sums a gradient over the dims that broadcasting added or stretched. */
function unbroadcast(gradient: Tensor, shape: Shape): Tensor {
  if (sameShape(gradient.shape, shape)) return gradient
  let current = gradient
  let dims = [...gradient.shape]
  const lead = dims.length - shape.length
  const sumOver = (outer: number, n: number, inner: number): void => {
    const y = empty([outer * inner], { dtype: gradient.dtype })
    runOp('reduce', [y], [current], [outer, n, inner, 0, 0, 1])
    current = y
  }
  if (lead > 0) {
    const inner = shape.reduce((product, _, index) => product * (dims[lead + index] as number), 1)
    sumOver(
      1,
      dims.slice(0, lead).reduce((p, s) => p * s, 1),
      inner,
    )
    dims = dims.slice(lead)
  }
  shape.forEach((size, index) => {
    const n = dims[index] as number
    if (size === n) return
    const outer = dims.slice(0, index).reduce((p, s) => p * s, 1)
    sumOver(
      outer,
      n,
      dims.slice(index + 1).reduce((p, s) => p * s, 1),
    )
    dims[index] = 1
  })
  return current.view(shape)
}

function binary(name: keyof typeof binaryKinds, a: Tensor, b: Tensor): Tensor {
  checkFloat(name, a, b)
  const y = rawBinary(binaryKinds[name], a, b, broadcastShape(name, a, b))
  const product = name === 'mul' || name === 'div'
  record(name, [y], [a, b], product ? [a, b] : [], ([dy], { needs }) => {
    if (!dy) return []
    const multiply = (other: Tensor): Tensor => rawBinary(2, dy, other, dy.shape)
    const da = !needs(0)
      ? undefined
      : name === 'mul'
        ? multiply(b)
        : name === 'div'
          ? rawBinary(3, dy, b, dy.shape)
          : dy
    const db = !needs(1)
      ? undefined
      : name === 'mul'
        ? multiply(a)
        : name === 'div'
          ? scaled(rawBinary(3, rawBinary(3, multiply(a), b, dy.shape), b, dy.shape), -1)
          : name === 'sub'
            ? scaled(dy, -1)
            : dy
    return [da && unbroadcast(da, a.shape), db && unbroadcast(db, b.shape)]
  })
  return y
}

function scaled(x: Tensor, factor: number, offset = 0): Tensor {
  const y = empty(x.shape, { dtype: x.dtype })
  runOp('affine', [y], [x], [factor, offset])
  return y
}

/**
 * a + b, broadcast.
 *
 * @example
 * ops.add(tensor([1, 2]), tensor([10])) // [11, 12]
 */
export const add = (a: Tensor, b: Tensor): Tensor => binary('add', a, b)
/**
 * a - b, broadcast.
 *
 * @example
 * ops.sub(tensor([1, 2]), tensor([10])) // [-9, -8]
 */
export const sub = (a: Tensor, b: Tensor): Tensor => binary('sub', a, b)
/**
 * a * b elementwise, broadcast.
 *
 * @example
 * ops.mul(tensor([1, 2]), tensor([10])) // [10, 20]
 */
export const mul = (a: Tensor, b: Tensor): Tensor => binary('mul', a, b)
/**
 * a / b elementwise, broadcast.
 *
 * @example
 * ops.div(tensor([1, 2]), tensor([4])) // [0.25, 0.5]
 */
export const div = (a: Tensor, b: Tensor): Tensor => binary('div', a, b)

/**
 * x * factor + offset with numbers.
 *
 * @example
 * ops.affine(tensor([1, 2]), 3, -1) // [2, 5]
 */
export function affine(x: Tensor, factor: number, offset = 0): Tensor {
  checkFloat('affine', x)
  const y = scaled(x, factor, offset)
  record('affine', [y], [x], [], ([dy]) => [dy && scaled(dy, factor)])
  return y
}

/**
 * x * factor with a number.
 *
 * @example
 * ops.scale(tensor([1, 2]), 3) // [3, 6]
 */
export const scale = (x: Tensor, factor: number): Tensor => affine(x, factor)

function unary(name: keyof typeof unaryKinds, x: Tensor): Tensor {
  checkFloat(name, x)
  const kind = unaryKinds[name]
  const y = empty(x.shape, { dtype: x.dtype })
  runOp('unary', [y], [x], [kind])
  const useResult = fromResult.has(kind)
  record(name, [y], [x], [useResult ? y : x], ([dy]) => {
    if (!dy) return []
    const dx = empty(x.shape, { dtype: x.dtype })
    runOp('unary_backward', [dx], [dy, useResult ? undefined : x, useResult ? y : undefined], [kind])
    return [dx]
  })
  return y
}

/**
 * GELU, exact (erf) form.
 *
 * @example
 * ops.gelu(tensor([-1, 0, 1])) // [-0.1587, 0, 0.8413]
 */
export const gelu = (x: Tensor): Tensor => unary('gelu', x)
/**
 * GELU, tanh form (Hugging Face "gelu_new").
 *
 * @example
 * ops.geluTanh(tensor([-1, 0, 1])) // [-0.1588, 0, 0.8412]
 */
export const geluTanh = (x: Tensor): Tensor => unary('geluTanh', x)
/**
 * x · sigmoid(x).
 *
 * @example
 * ops.silu(tensor([-1, 0, 1])) // [-0.2689, 0, 0.7311]
 */
export const silu = (x: Tensor): Tensor => unary('silu', x)
/**
 * max(x, 0).
 *
 * @example
 * ops.relu(tensor([-1, 2])) // [0, 2]
 */
export const relu = (x: Tensor): Tensor => unary('relu', x)
/**
 * Hyperbolic tangent.
 *
 * @example
 * ops.tanh(tensor([0, 1])) // [0, 0.7616]
 */
export const tanh = (x: Tensor): Tensor => unary('tanh', x)
/**
 * 1 / (1 + e^-x).
 *
 * @example
 * ops.sigmoid(tensor([0, 1])) // [0.5, 0.7311]
 */
export const sigmoid = (x: Tensor): Tensor => unary('sigmoid', x)
/**
 * e^x.
 *
 * @example
 * ops.exp(tensor([0, 1])) // [1, 2.7183]
 */
export const exp = (x: Tensor): Tensor => unary('exp', x)
/**
 * Natural logarithm.
 *
 * @example
 * ops.log(tensor([1, 10])) // [0, 2.3026]
 */
export const log = (x: Tensor): Tensor => unary('log', x)
/**
 * Square root.
 *
 * @example
 * ops.sqrt(tensor([4, 9])) // [2, 3]
 */
export const sqrt = (x: Tensor): Tensor => unary('sqrt', x)
/**
 * x².
 *
 * @example
 * ops.square(tensor([-2, 3])) // [4, 9]
 */
export const square = (x: Tensor): Tensor => unary('square', x)
/**
 * |x|.
 *
 * @example
 * ops.abs(tensor([-2, 3])) // [2, 3]
 */
export const abs = (x: Tensor): Tensor => unary('abs', x)
/**
 * 1 / x.
 *
 * @example
 * ops.reciprocal(tensor([2, 4])) // [0.5, 0.25]
 */
export const reciprocal = (x: Tensor): Tensor => unary('reciprocal', x)

/**
 * silu(gate) * up, elementwise (Llama's MLP).
 *
 * @example
 * ops.swiglu(tensor([0, 1]), tensor([5, 2])) // [0, 1.4621]
 */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  checkFloat('swiglu', gate, up)
  checkShape('swiglu', 'up', up, gate.shape)
  const y = empty(gate.shape, { dtype: gate.dtype })
  runOp('swiglu_forward', [y], [gate, up])
  record('swiglu', [y], [gate, up], [gate, up], ([dy]) => {
    if (!dy) return []
    const dgate = empty(gate.shape, { dtype: gate.dtype })
    const dup = empty(gate.shape, { dtype: gate.dtype })
    runOp('swiglu_backward', [dgate, dup], [dy, gate, up])
    return [dgate, dup]
  })
  return y
}

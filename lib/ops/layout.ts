// Shape, dtype and data movement: reshape, slice, concat, transpose, cast, sums.

import { record } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { countOf, type DType, empty, runOp, type Shape, type Tensor } from '../tensor/tensor.js'
import { checkDType, checkFloat, lastDim, normalDim } from './check.js'

/**
 * The same values in another shape; one size may be -1. Shares memory.
 *
 * @example
 * ops.reshape(tensor([1, 2, 3, 4]), [2, -1]).shape // [2, 2]
 */
export function reshape(x: Tensor, shape: Shape): Tensor {
  x.check('reshape')
  const known = shape.filter((size) => size !== -1).reduce((product, size) => product * size, 1)
  const full = shape.map((size) => (size === -1 ? x.count / known : size))
  if (countOf(full) !== x.count || shape.filter((size) => size === -1).length > 1) {
    throw new ZeroshardError('SHAPE', `[reshape] ${x.describe()} does not have the elements of [${shape.join(', ')}]`)
  }
  const y = x.view(full)
  record('reshape', [y], [x], [], ([dy]) => [dy?.view(x.shape)])
  return y
}

/**
 * x in another dtype.
 *
 * @example
 * ops.cast(tensor([1.5]), 'bf16').dtype // 'bf16'
 */
export function cast(x: Tensor, dtype: DType): Tensor {
  x.check('cast')
  const y = empty(x.shape, { dtype })
  runOp('cast', [y], [x])
  record('cast', [y], [x], [], ([dy]) => {
    if (!dy || dy.dtype === x.dtype) return [dy]
    const dx = empty(x.shape, { dtype: x.dtype })
    runOp('cast', [dx], [dy])
    return [dx]
  })
  return y
}

/**
 * x with its dims in the order of `order`.
 *
 * @example
 * ops.permute(tensor([1, 2, 3, 4], [2, 1, 2]), [2, 0, 1]).shape // [2, 2, 1]
 */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  x.check('permute')
  if ([...order].sort((a, b) => a - b).some((dim, index) => dim !== index) || order.length !== x.shape.length) {
    throw new ZeroshardError('SHAPE', `[permute] [${order.join(', ')}] is no order of the dims of ${x.describe()}`)
  }
  const y = rawPermute(x, order)
  const inverse = order.map((_, dim) => order.indexOf(dim))
  record('permute', [y], [x], [], ([dy]) => [dy && rawPermute(dy, inverse)])
  return y
}

function rawPermute(x: Tensor, order: readonly number[]): Tensor {
  const y = empty(
    order.map((dim) => x.shape[dim] as number),
    { dtype: x.dtype },
  )
  runOp(
    'permute',
    [y],
    [x],
    Array.from({ length: 8 }, (_, index) => order[index] ?? index),
  )
  return y
}

/**
 * Swaps two dims.
 *
 * @example
 * ops.transpose(tensor([1, 2, 3, 4], [2, 2])) // [1, 3, 2, 4]
 */
export function transpose(x: Tensor, dim0 = -2, dim1 = -1): Tensor {
  const [a, b] = [normalDim('transpose', x, dim0), normalDim('transpose', x, dim1)]
  return permute(
    x,
    x.shape.map((_, dim) => (dim === a ? b : dim === b ? a : dim)),
  )
}

/**
 * Elements [start, end) of one dim.
 *
 * @example
 * ops.slice(tensor([1, 2, 3, 4], [2, 2]), 1, 0, 1) // [1, 3]
 */
export function slice(x: Tensor, dim: number, start: number, end: number): Tensor {
  const axis = normalDim('slice', x.check('slice'), dim)
  const size = x.shape[axis] as number
  if (!(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= size)) {
    throw new ZeroshardError('SHAPE', `[slice] [${start}, ${end}) is no part of dim ${dim} of ${x.describe()}`)
  }
  const outer = countOf(x.shape.slice(0, axis))
  const inner = countOf(x.shape.slice(axis + 1))
  const shape = x.shape.map((value, index) => (index === axis ? end - start : value))
  const y = empty(shape, { dtype: x.dtype })
  const [rows, cols] = [outer, (end - start) * inner]
  runOp('copy_2d', [y], [x], [rows, cols, 0, cols, start * inner, size * inner])
  record('slice', [y], [x], [], ([dy]) => {
    if (!dy) return []
    const dx = empty(x.shape, { dtype: x.dtype, zero: true })
    runOp('copy_2d', [dx], [dy], [rows, cols, start * inner, size * inner, 0, cols])
    return [dx]
  })
  return y
}

/**
 * Joins tensors along one dim.
 *
 * @example
 * ops.concat([tensor([1, 2]), tensor([3])], 0) // [1, 2, 3]
 */
export function concat(parts: readonly Tensor[], dim: number): Tensor {
  const first = parts[0]
  if (!first) throw new ZeroshardError('ARGUMENT', '[concat] needs at least one tensor')
  const axis = normalDim('concat', first, dim)
  for (const part of parts) {
    const fits =
      part.dtype === first.dtype &&
      part.shape.length === first.shape.length &&
      part.shape.every((size, index) => index === axis || size === first.shape[index])
    if (!fits)
      throw new ZeroshardError('SHAPE', `[concat] ${part.describe()} does not fit ${first.describe()} along dim ${dim}`)
  }
  const outer = countOf(first.shape.slice(0, axis))
  const inner = countOf(first.shape.slice(axis + 1))
  const total = parts.reduce((sum, part) => sum + (part.shape[axis] as number), 0)
  const y = empty(
    first.shape.map((size, index) => (index === axis ? total : size)),
    { dtype: first.dtype },
  )
  const widths = parts.map((part) => (part.shape[axis] as number) * inner)
  const offsets = widths.map((_, index) => widths.slice(0, index).reduce((sum, width) => sum + width, 0))
  parts.forEach((part, index) => {
    const width = widths[index] as number
    runOp('copy_2d', [y], [part], [outer, width, offsets[index] as number, total * inner, 0, width])
  })
  record('concat', [y], parts, [], ([dy]) =>
    parts.map((part, index) => {
      if (!dy) return undefined
      const width = widths[index] as number
      const dx = empty(part.shape, { dtype: part.dtype })
      runOp('copy_2d', [dx], [dy], [outer, width, 0, width, offsets[index] as number, total * inner])
      return dx
    }),
  )
  return y
}

function reduceAll(name: string, x: Tensor, factor: number): Tensor {
  checkFloat(name, x)
  const y = empty([])
  runOp('reduce', [y], [x], [1, x.count, 1, 0, 0, factor])
  record(name, [y], [x], [], ([dy]) => {
    if (!dy) return []
    const wide = empty(x.shape, { zero: true })
    runOp('binary', [wide], [wide, dy], [0])
    runOp('affine', [wide], [wide], [factor, 0])
    if (x.dtype === 'f32') return [wide]
    const dx = empty(x.shape, { dtype: x.dtype })
    runOp('cast', [dx], [wide])
    return [dx]
  })
  return y
}

/**
 * Sum of all elements, an f32 scalar.
 *
 * @example
 * ops.sum(tensor([1, 2, 3])) // 6
 */
export const sum = (x: Tensor): Tensor => reduceAll('sum', x, 1)
/**
 * Mean of all elements, an f32 scalar.
 *
 * @example
 * ops.mean(tensor([1, 2, 3])) // 2
 */
export const mean = (x: Tensor): Tensor => reduceAll('mean', x, 1 / x.count)

/**
 * Rows of x (n, …) by ids i32 (m) → (m, …).
 *
 * @example
 * ops.gather(tensor([10, 20, 30]), tensor(Int32Array.of(2, 0))) // [30, 10]
 */
export function gather(x: Tensor, ids: Tensor): Tensor {
  checkFloat('gather', x)
  checkDType('gather', ids, 'i32')
  const n = x.shape[0] as number
  const inner = countOf(x.shape.slice(1))
  const y = empty([...ids.shape, ...x.shape.slice(1)], { dtype: x.dtype })
  runOp('gather', [y], [x, ids], [1, n, inner, ids.count])
  record('gather', [y], [x], [ids], ([dy]) => {
    if (!dy) return []
    const dx = empty(x.shape, { zero: true })
    runOp('scatter_add', [dx], [dy.dtype === 'f32' ? dy : rawCast(dy, 'f32'), ids], [1, n, inner, ids.count])
    return [x.dtype === 'f32' ? dx : rawCast(dx, x.dtype)]
  })
  return y
}

function rawCast(x: Tensor, dtype: DType): Tensor {
  const y = empty(x.shape, { dtype })
  runOp('cast', [y], [x])
  return y
}

/**
 * The k largest of the last dim, descending: values and i32 ids.
 *
 * @example
 * const { values, ids } = ops.topK(tensor([1, 5, 3]), 2)
 * values // [5, 3]
 * ids // [1, 2]
 */
export function topK(x: Tensor, k: number): { values: Tensor; ids: Tensor } {
  checkFloat('topK', x)
  const cols = lastDim('topK', x)
  if (!(Number.isInteger(k) && k >= 1 && k <= cols)) {
    throw new ZeroshardError('ARGUMENT', `[topK] k ${k} must be between 1 and ${cols}`)
  }
  const shape = [...x.shape.slice(0, -1), k]
  const values = empty(shape, { dtype: x.dtype })
  const ids = empty(shape, { dtype: 'i32' })
  runOp('top_k', [values, ids], [x], [x.count / cols, cols, k])
  return { values, ids }
}

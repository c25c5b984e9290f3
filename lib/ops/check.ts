// Checks at the public edge of operations: each message names the operation, both values and the cure.

import { ZeroshardError } from '../binding/errors.js'
import type { DType, Shape, Tensor } from '../tensor/tensor.js'

export const floats: readonly DType[] = ['f32', 'bf16', 'f16']

export function checkFloat(op: string, ...tensors: readonly (Tensor | undefined)[]): void {
  const first = tensors[0] as Tensor
  for (const tensor of tensors) {
    if (!tensor) continue
    tensor.check(op)
    if (!floats.includes(tensor.dtype)) {
      throw new ZeroshardError('DTYPE', `[${op}] takes f32, bf16 or f16, got ${tensor.describe()}; cast it`)
    }
    if (tensor.dtype !== first.dtype) {
      throw new ZeroshardError(
        'DTYPE',
        `[${op}] ${first.describe()} and ${tensor.describe()} differ in dtype; cast one`,
      )
    }
  }
}

export function checkDType(op: string, tensor: Tensor, dtype: DType): void {
  tensor.check(op)
  if (tensor.dtype !== dtype)
    throw new ZeroshardError('DTYPE', `[${op}] needs ${dtype}, got ${tensor.describe()}; cast it`)
}

export function checkShape(op: string, what: string, tensor: Tensor, shape: Shape): void {
  if (!sameShape(tensor.shape, shape)) {
    throw new ZeroshardError('SHAPE', `[${op}] ${what} must be [${shape.join(', ')}], got ${tensor.describe()}`)
  }
}

export const sameShape = (a: Shape, b: Shape): boolean =>
  a.length === b.length && a.every((size, index) => size === b[index])

/** Shapes broadcast as numpy does. */
export function broadcastShape(op: string, a: Tensor, b: Tensor): number[] {
  const rank = Math.max(a.shape.length, b.shape.length)
  return Array.from({ length: rank }, (_, index) => {
    const left = a.shape[index - rank + a.shape.length] ?? 1
    const right = b.shape[index - rank + b.shape.length] ?? 1
    if (left !== right && left !== 1 && right !== 1) {
      throw new ZeroshardError(
        'SHAPE',
        `[${op}] ${a.describe()} and ${b.describe()} do not broadcast: ${left} against ${right}`,
      )
    }
    return left === 1 ? right : left
  })
}

/** A dim counted from the end where negative. */
export function normalDim(op: string, tensor: Tensor, dim: number): number {
  const rank = tensor.shape.length
  const normal = dim < 0 ? dim + rank : dim
  if (!Number.isInteger(dim) || normal < 0 || normal >= rank) {
    throw new ZeroshardError('SHAPE', `[${op}] dim ${dim} does not exist in ${tensor.describe()}`)
  }
  return normal
}

/** The size of the last dim. */
export const lastDim = (op: string, tensor: Tensor): number => {
  if (tensor.shape.length === 0) throw new ZeroshardError('SHAPE', `[${op}] needs at least one dim, got a scalar`)
  return tensor.shape[tensor.shape.length - 1] as number
}

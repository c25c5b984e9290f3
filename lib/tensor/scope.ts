// Scopes own what is created inside them: on return everything is disposed but the result.
// A module's forward is a scope; `tidy` is the same for user code. Synchronous only.

import { ZeroshardError } from '../binding/errors.js'
import type { Tensor } from './tensor.js'

const stack: Tensor[][] = []

/** Hands a new tensor to the innermost scope; false where there is none. */
export function adopt(tensor: Tensor): boolean {
  const scope = stack[stack.length - 1]
  if (!scope) return false
  scope.push(tensor)
  return true
}

/**
 * Runs `fn`; disposes all tensors made in it except those in its result (tensor, array, or plain object of them).
 *
 * @example
 * const y = tidy(() => {
 *   const squared = ops.square(tensor([1, 2])) // freed at the end
 *   return ops.scale(squared, 10)
 * })
 * y // [10, 40]
 */
export function tidy<T>(fn: () => T): T {
  const scope: Tensor[] = []
  stack.push(scope)
  let result: T | undefined
  try {
    result = fn()
    if (result instanceof Promise) {
      throw new ZeroshardError('ARGUMENT', '[tidy] the function is asynchronous; a scope ends when it returns')
    }
    return result
  } finally {
    stack.pop()
    const kept = scope.length ? new Set<unknown>(tensorsIn(result)) : undefined
    const parent = stack[stack.length - 1]
    for (const tensor of scope) {
      if (!kept?.has(tensor)) tensor.dispose()
      else if (parent) parent.push(tensor)
      else tensor.guard()
    }
  }
}

/**
 * Takes a tensor out of its scope: it lives until dispose().
 *
 * @example
 * const kept: Tensor[] = []
 * tidy(() => {
 *   kept.push(keep(tensor([1, 2])))
 * })
 * kept[0]?.disposed // false
 */
export function keep(tensor: Tensor): Tensor {
  for (const scope of stack) {
    const index = scope.lastIndexOf(tensor)
    if (index >= 0) {
      scope.splice(index, 1)
      tensor.guard()
    }
  }
  return tensor
}

/** Runs `fn` outside of all scopes: what it makes belongs to the caller. */
export function unscoped<T>(fn: () => T): T {
  const saved = stack.splice(0)
  try {
    return fn()
  } finally {
    stack.push(...saved)
  }
}

/** The tensors in a value, arrays and plain objects included. */
export function tensorsIn(value: unknown): Tensor[] {
  if (!value || typeof value !== 'object') return []
  if (isTensor(value)) return [value]
  if (Array.isArray(value)) return value.flatMap(tensorsIn)
  if (value instanceof Map) return [...value.values()].flatMap(tensorsIn)
  return Object.getPrototypeOf(value) === Object.prototype ? Object.values(value).flatMap(tensorsIn) : []
}

const isTensor = (value: object): value is Tensor => 'describe' in value && 'dispose' in value && 'hold' in value

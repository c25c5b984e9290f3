// Compares an operation with its float64 reference: values, and gradients against central differences of the reference.

import type { Test } from 'tap'
import { backwardFrom } from '../../lib/autograd/functions.js'
import * as ops from '../../lib/ops/index.js'
import { memory } from '../../lib/tensor/memory.js'
import { tidy } from '../../lib/tensor/scope.js'
import { type DType, type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { type Array64, array, random } from '../reference/ops.js'

export interface Case {
  name: string
  /** Shapes of the differentiable inputs; their values are random, from `low` to `high`. */
  shapes: number[][]
  low?: number
  high?: number
  reference(...inputs: Array64[]): Array64
  run(...inputs: Tensor[]): Tensor
  /** False: the gradient is not compared (a kink, or none). */
  gradients?: boolean
  dtypes?: DType[]
}

const tolerances: Record<string, { value: number; gradient: number }> = {
  f32: { value: 2e-5, gradient: 2e-4 },
  bf16: { value: 2e-2, gradient: 4e-2 },
  f16: { value: 4e-3, gradient: 1e-2 },
}

/** Bytes and tensors that live now: tests end as they began. */
export const alive = (): string => JSON.stringify({ tensors: memory.stats().tensors, bytes: memory.stats().live.total })

export async function values(x: Tensor): Promise<Float32Array> {
  if (x.dtype === 'f32') return (await x.data()) as Float32Array
  const wide = ops.cast(x, 'f32')
  try {
    return (await wide.data()) as Float32Array
  } finally {
    wide.dispose()
  }
}

const f64 = (shape: readonly number[], data: Float32Array): Array64 => ({
  shape: [...shape],
  data: Float64Array.from(data),
})

/** The largest difference, relative to the larger of 1 and the reference's largest value. */
export function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [worst, scale] = [0, 1]
  for (let i = 0; i < expected.length; i++) {
    scale = Math.max(scale, Math.abs(expected[i] as number))
    const gap = Math.abs((actual[i] as number) - (expected[i] as number))
    worst = Math.max(worst, Number.isNaN(gap) ? Infinity : gap)
  }
  return actual.length === expected.length ? worst / scale : Infinity
}

/** True where both hold the same bytes (tap's own comparison takes seconds on large arrays). */
export function sameBits(a: Float32Array | undefined, b: Float32Array | undefined): boolean {
  if (!a || !b) return false
  const bytes = (x: Float32Array): Buffer => Buffer.from(x.buffer, x.byteOffset, x.byteLength)
  return bytes(a).equals(bytes(b))
}

export async function compare(t: Test, test: Case, dtype: DType): Promise<void> {
  const next = random(test.name.length * 7919 + test.shapes.flat().reduce((sum, size) => sum * 31 + size, 17))
  const { low = -2, high = 2 } = test
  const before = alive()
  const inputs = test.shapes.map((shape) => {
    const wide = tensor(Float32Array.from(array(shape, () => low + (high - low) * next()).data), shape)
    const input = dtype === 'f32' ? wide : ops.cast(wide, dtype)
    if (input !== wide) wide.dispose()
    input.requiresGrad = test.gradients ?? true
    return input
  })
  const given = await Promise.all(inputs.map(async (input) => f64(input.shape, await values(input))))
  const y = test.run(...inputs)
  const expected = test.reference(...given)
  const { value, gradient } = tolerances[dtype] as { value: number; gradient: number }
  t.strictSame([...y.shape], expected.shape, 'shape')
  const gap = difference(await values(y), expected.data)
  t.ok(gap <= value, `${dtype} values: ${gap} is at most ${value}`)
  if ((test.gradients ?? true) && expected.data.length > 0) {
    const weights = array(expected.shape, () => next() - 0.5)
    tidy(() => {
      const w = tensor(Float32Array.from(weights.data), y.shape)
      backwardFrom(ops.sum(ops.mul(y.dtype === 'f32' ? y : ops.cast(y, 'f32'), w)))
    })
    for (const [index, input] of inputs.entries()) {
      const slopes = numeric(test, given, index, weights)
      const off = difference((await input.grad?.data()) as Float32Array, slopes)
      t.ok(off <= gradient, `${dtype} gradient ${index}: ${off} is at most ${gradient}`)
    }
  }
  y.dispose()
  for (const input of inputs) {
    input.grad?.dispose()
    input.dispose()
  }
  t.equal(alive(), before, 'nothing is left')
}

function numeric(test: Case, given: Array64[], index: number, weights: Array64): Float64Array {
  const step = 1e-5
  const loss = (): number =>
    test.reference(...given).data.reduce((sum, value, i) => sum + value * (weights.data[i] as number), 0)
  const { data } = given[index] as Array64
  return data.map((value, i) => {
    data[i] = value + step
    const up = loss()
    data[i] = value - step
    const down = loss()
    data[i] = value
    return (up - down) / (2 * step)
  })
}

// Gradients against finite differences: the check for an operation of one's own.

import { ZeroshardError } from '../binding/errors.js'
import { tidy } from '../tensor/scope.js'
import { type Tensor, tensor } from '../tensor/tensor.js'
import { backwardFrom, recomputeState } from './functions.js'
import { noGrad, record } from './tape.js'

/** Options of `gradCheck`. */
export interface GradientCheckOptions {
  /** Step of the differences; default 0.02, which suits f32 values around 1. */
  eps?: number
  /** Largest difference, relative to the larger of 1 and the input's largest slope; default 1e-3. */
  tolerance?: number
}

/** What a check found. */
export interface GradientCheck {
  /** The largest difference found, in units of `tolerance`'s scale. */
  worst: number
  /** How many slopes were compared. */
  compared: number
}

/**
 * Compares the gradients of `fn` (any shape of result) with finite differences of it, element by element: some four
 * forward passes for each element of the f32 inputs, so keep those small. The inputs are not changed; `fn` must give
 * the same result for the same inputs and should have no kink near them.
 *
 * @throws AUTOGRAD naming the input, the element and both slopes where they differ by more than `tolerance`.
 * @example
 * import { gradCheck, ops, tensor } from 'zeroshard'
 *
 * const x = tensor([0.5, -1, 2, 0.1], [2, 2])
 * const { worst } = await gradCheck((x) => ops.softmax(ops.mul(x, x)), [x])
 * console.log(worst < 1e-3) // true
 */
export async function gradCheck(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  options: GradientCheckOptions = {},
): Promise<GradientCheck> {
  const { eps = 0.02, tolerance = 1e-3 } = options
  if (!(eps > 0) || !(tolerance > 0))
    throw new ZeroshardError('ARGUMENT', `[gradCheck] eps ${eps} and tolerance ${tolerance} must be greater than 0`)
  const checked = inputs.flatMap((input, index) => (input.check('gradCheck').dtype === 'f32' ? [index] : []))
  if (checked.length === 0) throw new ZeroshardError('DTYPE', '[gradCheck] needs at least one f32 input')
  const values = new Map<number, Float32Array>()
  for (const index of checked) values.set(index, (await (inputs[index] as Tensor).data()) as Float32Array)
  const slopes = analytic(fn, inputs, values)
  const result: GradientCheck = { worst: 0, compared: 0 }
  for (const index of checked) {
    const given = slopes.get(index) as Float32Array
    const expected = differences(fn, inputs, values, index, eps)
    const scale = expected.reduce((largest, slope) => Math.max(largest, Math.abs(slope)), 1)
    for (const [at, slope] of expected.entries()) {
      const gap = Math.abs((given[at] as number) - slope) / scale
      if (!(gap <= tolerance)) {
        throw new ZeroshardError(
          'AUTOGRAD',
          `[gradCheck] input ${index} ${inputs[index]?.describe()}, element ${at}: the gradient is ${given[at]}, finite differences say ${slope}; they differ by ${gap.toPrecision(3)}, ${tolerance} is allowed`,
        )
      }
      result.worst = Math.max(result.worst, gap)
      result.compared++
    }
    await new Promise(setImmediate)
  }
  return result
}

/** Fixed weights that make one number of a result: no two alike, so that no slope hides behind another. */
const weightOf = (index: number): number => Math.fround(0.5 + 0.5 * Math.sin(index * 1.7 + 0.3))

function copies(inputs: readonly Tensor[], values: ReadonlyMap<number, Float32Array>): Tensor[] {
  return inputs.map((input, index) => {
    const data = values.get(index)
    return data ? tensor(data, input.shape) : input
  })
}

/** Runs `fn` on what `tensors` gives, with the random numbers of the first call. */
function repeated<T>(fn: () => T): T {
  const before = recomputeState.save()
  try {
    return fn()
  } finally {
    recomputeState.restore(before)
  }
}

function analytic(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  values: ReadonlyMap<number, Float32Array>,
): Map<number, Float32Array> {
  return tidy(() => {
    const leaves = copies(inputs, values)
    for (const index of values.keys()) (leaves[index] as Tensor).requiresGrad = true
    try {
      const y = repeated(() => fn(...leaves))
      if (y.dtype !== 'f32')
        throw new ZeroshardError('DTYPE', `[gradCheck] the result must be f32, got ${y.describe()}`)
      if (y.requiresGrad) backwardFrom(weighed(y))
      return new Map(
        [...values].map(([index, { length }]) => {
          const grad = (leaves[index] as Tensor).grad
          return [index, grad ? (grad.dataSync() as Float32Array) : new Float32Array(length)]
        }),
      )
    } finally {
      for (const leaf of leaves) if (!inputs.includes(leaf)) leaf.grad?.dispose()
    }
  })
}

/** Σ weight · y, as a node of its own: this file knows no operation. */
function weighed(y: Tensor): Tensor {
  const loss = tensor([0], [])
  const weights = Float32Array.from({ length: y.count }, (_, index) => weightOf(index))
  record('gradCheck', [loss], [y], [], () => [tensor(weights, y.shape)])
  return loss
}

/** Slopes by central differences over eps and 2 eps (an error of eps⁴); sums in f64. */
function differences(
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Tensor[],
  values: ReadonlyMap<number, Float32Array>,
  index: number,
  eps: number,
): Float64Array {
  const data = (values.get(index) as Float32Array).slice()
  const moved = new Map([...values, [index, data]])
  const at = (element: number, value: number): { value: number; x: number } => {
    const before = data[element] as number
    data[element] = value
    const x = data[element] as number
    const y = tidy(() => noGrad(() => repeated(() => fn(...copies(inputs, moved))).dataSync() as Float32Array))
    data[element] = before
    return { value: y.reduce((sum, part, i) => sum + part * weightOf(i), 0), x }
  }
  return Float64Array.from(data, (x, element) => {
    const slope = (step: number): number => {
      const [up, down] = [at(element, x + step), at(element, x - step)]
      return (up.value - down.value) / (up.x - down.x)
    }
    return (4 * slope(eps) - slope(2 * eps)) / 3
  })
}

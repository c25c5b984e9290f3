// Whether linears of a user's module can be cut: its forward is run with a few hidden units, all at once and in halves.
// What reaches the last linear must add up, and hidden units must not be seen anywhere else.

import { recomputeState } from '../../autograd/functions.js'
import { noGrad } from '../../autograd/tape.js'
import { type Conv1D, Linear } from '../../nn/layers.js'
import { Module } from '../../nn/module.js'
import type { Parameter } from '../../nn/parameter.js'
import { tensorsIn, tidy, unscoped } from '../../tensor/scope.js'
import { countOf, empty, type Tensor, tensor } from '../../tensor/tensor.js'
import { inFirstOf } from './linear.js'

export type AnyLinear = Linear | Conv1D

/** Linears `up` (one, or a gate and another) that read one input, and `down` that reads what comes of them. */
export interface Pair {
  up: [field: string, layer: AnyLinear][]
  down: [field: string, layer: AnyLinear]
}

export function sizesOf(layer: AnyLinear): { inputs: number; outputs: number } {
  const [rows, cols] = layer.weight.wholeShape as [number, number]
  return inFirstOf(layer) ? { inputs: rows, outputs: cols } : { inputs: cols, outputs: rows }
}

/** Hidden units of the trial: two ranks have half of them each. */
const TRIAL = 4
/** Other parameters of the module get memory for the trial, up to so many elements. */
const MOST_OTHERS = 2 ** 20

/** What one run shows: the sum that the last linear makes, and all that the module gives when it is told another one. */
interface Shown {
  sum: Float32Array
  rest: Float32Array[]
}

/** Whether hidden units of `pair` can be dealt to ranks. The module is as before. */
export function addsUp(module: Module, pair: Pair): boolean {
  const linears = new Set<Module>([...pair.up.map(([, layer]) => layer), pair.down[1]])
  const others = [...module.parametersBelow(linears)].filter(({ materialized }) => !materialized)
  if (others.reduce((sum, { count }) => sum + count, 0) > MOST_OTHERS) return false
  const { inputs } = sizesOf(pair.up[0]?.[1] as AnyLinear)
  return [
    [2, 3, inputs],
    [6, inputs],
  ].some((shape) => {
    try {
      const all = run(module, pair, others, shape, 0, TRIAL)
      const halves = [0, TRIAL / 2].map((from) => run(module, pair, others, shape, from, from + TRIAL / 2))
      const [first, second] = halves as [Shown, Shown]
      const added = all.sum.every(
        (value, i) => Math.abs(value - (first.sum[i] as number) - (second.sum[i] as number)) < 1e-4,
      )
      return all.sum.length > 0 && added && halves.every(({ rest }) => same(rest, all.rest))
    } catch {
      return false
    }
  })
}

const same = (a: readonly Float32Array[], b: readonly Float32Array[]): boolean =>
  a.length === b.length && a.every((values, i) => values.join() === b[i]?.join())

/** Stands for the last linear: keeps the sum, and gives what does not depend on it. */
class Told extends Module {
  readonly sums: Float32Array[] = []
  constructor(
    readonly small: Linear,
    readonly outputs: number,
  ) {
    super()
  }
  forward(x: Tensor): Tensor {
    const sum = this.small.forward(x)
    this.sums.push(sum.dataSync() as Float32Array)
    return wave([...sum.shape], 3)
  }
}

const wave = (shape: number[], salt: number): Tensor =>
  tensor(
    Float32Array.from({ length: countOf(shape) }, (_, i) => Math.sin(i * 1.7 + salt)),
    shape,
  )

function run(
  module: Module,
  { up, down }: Pair,
  others: readonly Parameter[],
  shape: number[],
  from: number,
  to: number,
): Shown {
  const random = recomputeState.save()
  const smalls = new Map<string, Linear>(
    [...up, down].map(([field, layer]) => [field, small(field, layer, field !== down[0], from, to)]),
  )
  const told = new Told(smalls.get(down[0]) as Linear, sizesOf(down[1]).outputs)
  try {
    for (const parameter of others) unscoped(() => lend(parameter))
    Object.assign(
      module,
      Object.fromEntries([...smalls].map(([field, layer]) => [field, field === down[0] ? told : layer])),
    )
    return tidy(() => {
      const result = noGrad(() => (module as Module & { forward(x: Tensor): unknown }).forward(wave(shape, 0)))
      if (told.sums.length !== 1) throw new TypeError('the last linear is used several times, or not at all')
      const rest = tensorsIn(result).map((value) => value.dataSync() as Float32Array)
      if (rest.length === 0) throw new TypeError('no tensor')
      return { sum: told.sums[0] as Float32Array, rest }
    })
  } finally {
    Object.assign(module, Object.fromEntries([...up, down]))
    for (const layer of smalls.values()) layer.dispose()
    for (const parameter of others.filter(({ materialized }) => materialized)) {
      parameter.tensor.dispose()
      parameter.detach()
    }
    recomputeState.restore(random)
  }
}

function lend(parameter: Parameter): void {
  const values = empty(parameter.shape, { category: 'buffers' })
  parameter.fill(values, 1)
  parameter.attach(values)
}

/** A linear with hidden units [from, to) of TRIAL, whose weights depend on the unit alone. */
function small(field: string, layer: AnyLinear, isUp: boolean, from: number, to: number): Linear {
  const { inputs, outputs } = sizesOf(layer)
  const { activation } = layer
  const made = isUp
    ? new Linear(inputs, to - from, { bias: layer.bias !== undefined, ...(activation && { activation }) })
    : new Linear(to - from, outputs, { bias: false })
  const value = (unit: number, other: number): number => Math.sin(1 + unit * 12.9 + other * 0.7 + field.length)
  const [rows, cols] = made.weight.shape as [number, number]
  const weights = Float32Array.from({ length: rows * cols }, (_, i) => {
    const [row, col] = [Math.floor(i / cols), i % cols]
    return isUp ? value(from + row, col) / Math.sqrt(inputs) : value(from + col, row)
  })
  unscoped(() => {
    made.weight.attach(tensor(weights, [rows, cols]))
    made.bias?.attach(tensor(Float32Array.from({ length: to - from }, (_, unit) => value(from + unit, 3))))
  })
  return made
}

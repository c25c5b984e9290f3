// A plan for a user's plain model: linears whose outputs only the next linear reads, through something elementwise.
// What a module's own forward does between them is tried out, with a few hidden units: all at once must be the sum of
// halves. Where it is not, or nothing fits, layers stay whole.

import { noGrad } from '../../autograd/tape.js'
import { Conv1D, Linear, Sequential } from '../../nn/layers.js'
import type { Module } from '../../nn/module.js'
import { tidy, unscoped } from '../../tensor/scope.js'
import { Tensor, tensor } from '../../tensor/tensor.js'
import type { PlanEntry } from '../plan.js'
import { inFirstOf } from './linear.js'

type AnyLinear = Linear | Conv1D
interface Sizes {
  inputs: number
  outputs: number
}

/** Linears `up` (one, or a gate and another) that read one input, and `down` that reads what comes of them. */
interface Pair {
  up: [field: string, layer: AnyLinear][]
  down: [field: string, layer: AnyLinear]
}

/** Hidden units of the trial: two ranks have half of them each. */
const TRIAL = 4

export function deducePlan(model: Module, ranks: number): { plan: PlanEntry[]; notes: string[] } {
  const plan: PlanEntry[] = []
  const whole: string[] = []
  model.visit((module) => {
    const linears = module.children().filter((child): child is [string, AnyLinear] => isLinear(child[1]))
    const paths = new Map(linears.map(([field]) => [field, module.path ? `${module.path}.${field}` : field]))
    const add = ([field]: [string, AnyLinear], as: 'column' | 'row'): void => {
      plan.push({ match: new RegExp(`^${(paths.get(field) as string).replaceAll('.', '\\.')}$`), as })
      paths.delete(field)
    }
    for (const pair of pairsOf(module, linears)) {
      if (sizesOf(pair.down[1]).inputs % ranks !== 0) continue
      for (const up of pair.up) add(up, 'column')
      add(pair.down, 'row')
    }
    whole.push(...paths.values())
  })
  return { plan, notes: notesOf(plan, whole, ranks) }
}

function notesOf(plan: readonly PlanEntry[], whole: readonly string[], ranks: number): string[] {
  const names = (as: string): string[] =>
    plan.filter((entry) => entry.as === as).map(({ match }) => String(match).slice(2, -2).replaceAll('\\.', '.'))
  const list = (paths: readonly string[]): string =>
    `${paths.slice(0, 4).join(', ')}${paths.length > 4 ? ` and ${paths.length - 4} more` : ''}`
  if (plan.length === 0)
    return [
      `tensor parallelism: no pair of linears can be cut safely over ${ranks} ranks; each computes the whole model (give parallelize() a plan)`,
    ]
  return [
    `tensor parallelism over ${ranks} ranks: cut by outputs ${list(names('column'))}; by inputs ${list(names('row'))}`,
    ...(whole.length ? [`tensor parallelism: whole on every rank ${list(whole)}`] : []),
  ]
}

const isLinear = (module: Module): module is AnyLinear => module instanceof Linear || module instanceof Conv1D

function sizesOf(layer: AnyLinear): Sizes {
  const [rows, cols] = layer.weight.wholeShape as [number, number]
  return inFirstOf(layer) ? { inputs: rows, outputs: cols } : { inputs: cols, outputs: rows }
}

const fits = (up: AnyLinear, down: AnyLinear): boolean => sizesOf(up).outputs === sizesOf(down).inputs

function pairsOf(module: Module, linears: readonly [string, AnyLinear][]): Pair[] {
  if (module instanceof Sequential) return pairsOfSequence(module)
  // A module of its own with nothing but the two (or gate, up, down) is tried out.
  const down = linears.at(-1)
  if (!down || linears.length < 2 || linears.length > 3 || module.children().length !== linears.length) return []
  const up = linears.slice(0, -1)
  const alike = up.every(
    ([, layer]) => fits(layer, down[1]) && sizesOf(layer).inputs === sizesOf(up[0]?.[1] as AnyLinear).inputs,
  )
  const distinct = new Set(linears.map(([, { weight }]) => weight)).size === linears.length
  return alike && distinct && addsUp(module, { up, down }) ? [{ up, down }] : []
}

/** Neighbours in a Sequential: nothing is between them. */
function pairsOfSequence({ layers }: Sequential): Pair[] {
  const pairs: Pair[] = []
  for (let index = 0; index + 1 < layers.length; index++) {
    const [up, down] = [layers[index], layers[index + 1]] as [Module, Module]
    if (!isLinear(up) || !isLinear(down) || !fits(up, down)) continue
    pairs.push({ up: [[`layers.${index}`, up]], down: [`layers.${index + 1}`, down] })
    index++
  }
  return pairs
}

/** Whether the module with all hidden units is the sum of itself with either half of them. */
function addsUp(module: Module, { up, down }: Pair): boolean {
  const { inputs } = sizesOf(up[0]?.[1] as AnyLinear)
  const run = (shape: number[], from: number, to: number): Float32Array =>
    tidy(() => {
      const restore = [...up.map(([field, layer]) => shrink(module, field, layer, true, from, to))]
      restore.push(shrink(module, down[0], down[1], false, from, to))
      try {
        const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 1.7))
        const y = noGrad(() => (module as Module & { forward(x: Tensor): unknown }).forward(tensor(values, shape)))
        if (!(y instanceof Tensor) || y.dtype !== 'f32') throw new TypeError('no tensor')
        return y.dataSync() as Float32Array
      } finally {
        for (const undo of restore.reverse()) undo()
      }
    })
  return [
    [2, 3, inputs],
    [6, inputs],
  ].some((shape) => {
    try {
      const [all, first, second] = [run(shape, 0, TRIAL), run(shape, 0, TRIAL / 2), run(shape, TRIAL / 2, TRIAL)]
      return (
        all.length > 0 && all.every((value, i) => Math.abs(value - (first[i] as number) - (second[i] as number)) < 1e-4)
      )
    } catch {
      return false
    }
  })
}

/** Puts a layer with hidden units [from, to) of TRIAL in a linear's place; the result takes it away again. */
function shrink(module: Module, field: string, layer: AnyLinear, isUp: boolean, from: number, to: number): () => void {
  const { inputs, outputs } = sizesOf(layer)
  const hidden = to - from
  const { activation } = layer
  const small = isUp
    ? new Linear(inputs, hidden, { bias: layer.bias !== undefined, ...(activation && { activation }) })
    : new Linear(hidden, outputs, { bias: false })
  const value = (unit: number, other: number): number => Math.sin(1 + unit * 12.9 + other * 0.7 + field.length)
  const [rows, cols] = small.weight.shape as [number, number]
  const weights = Float32Array.from({ length: rows * cols }, (_, i) => {
    const [row, col] = [Math.floor(i / cols), i % cols]
    return isUp ? value(from + row, col) / Math.sqrt(inputs) : value(from + col, row)
  })
  unscoped(() => {
    small.weight.attach(tensor(weights, [rows, cols]))
    small.bias?.attach(tensor(Float32Array.from({ length: hidden }, (_, unit) => value(from + unit, 3))))
  })
  Object.assign(module, { [field]: small })
  return () => {
    small.dispose()
    Object.assign(module, { [field]: layer })
  }
}

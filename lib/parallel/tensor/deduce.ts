// A plan for a user's plain model: linears whose outputs only the next linear reads, through something elementwise.
// What a module's own forward does between them is tried out (trial.ts). Where nothing fits, layers stay whole.

import { Conv1D, Linear, Sequential } from '../../nn/layers.js'
import type { Module } from '../../nn/module.js'
import type { Parameter } from '../../nn/parameter.js'
import type { PlanEntry } from '../plan.js'
import { type AnyLinear, addsUp, type Pair, sizesOf } from './trial.js'

export function deducePlan(model: Module, ranks: number): { plan: PlanEntry[]; notes: string[] } {
  const plan: PlanEntry[] = []
  const whole: string[] = []
  const uses = new Map<Parameter, number>()
  model.visit((module) => {
    for (const parameter of module.ownParameters()) uses.set(parameter, (uses.get(parameter) ?? 0) + 1)
  })
  const isTied = (layer: AnyLinear): boolean => layer.ownParameters().some((parameter) => uses.get(parameter) !== 1)
  model.visit((module) => {
    const linears = module.children().filter((child): child is [string, AnyLinear] => isLinear(child[1]))
    const paths = new Map(linears.map(([field]) => [field, module.path ? `${module.path}.${field}` : field]))
    const add = ([field]: [string, AnyLinear], as: 'column' | 'row'): void => {
      plan.push({ match: new RegExp(`^${(paths.get(field) as string).replaceAll('.', '\\.')}$`), as })
      paths.delete(field)
    }
    for (const pair of pairsOf(module, linears)) {
      if (sizesOf(pair.down[1]).inputs % ranks !== 0 || [...pair.up, pair.down].some(([, layer]) => isTied(layer)))
        continue
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

const fits = (up: AnyLinear, down: AnyLinear): boolean => sizesOf(up).outputs === sizesOf(down).inputs

function pairsOf(module: Module, linears: readonly [string, AnyLinear][]): Pair[] {
  if (module instanceof Sequential) return pairsOfSequence(module)
  // A module of its own with the two (or gate, up, down) is tried out.
  const down = linears.at(-1)
  if (!down || linears.length < 2 || linears.length > 3 || linears.some(([field]) => field.includes('.'))) return []
  const up = linears.slice(0, -1)
  const alike = up.every(
    ([, layer]) => fits(layer, down[1]) && sizesOf(layer).inputs === sizesOf(up[0]?.[1] as AnyLinear).inputs,
  )
  return alike && addsUp(module, { up, down }) ? [{ up, down }] : []
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

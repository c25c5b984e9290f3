// Parameter groups: which parameters have hyperparameters of their own. Pure.

import { nearest, ZeroshardError } from '../binding/errors.js'
import type { Shape } from '../tensor/tensor.js'

/**
 * Parameters that `match` (their name, or what a function says of name and shape) have these hyperparameters instead
 * of the optimizer's.
 *
 * @example const groups: ParamGroup[] = [{ match: /(bias|norm.*weight)$/, weightDecay: 0 }, { match: /embed/, lr: 1e-4 }]
 */
export interface ParamGroup {
  match: RegExp | ((name: string, shape: Shape) => boolean)
  /** Shown in errors. */
  name?: string
  /** The rate that the schedule starts from (its maximum, or what its ratios multiply). */
  lr?: number
  weightDecay?: number
}

/** What is asked of a parameter; `nn.Parameter` is one. */
export interface Groupable {
  name: string
  shape: Shape
  trainable: boolean
}

const matches = ({ match }: ParamGroup, { name, shape }: Groupable): boolean =>
  typeof match === 'function' ? match(name, shape) : name.search(match) >= 0

/**
 * Index of each parameter's group: the first that matches; -1 where none does (the optimizer's own hyperparameters)
 * and for frozen parameters.
 *
 * @throws CONFIG where a group matches nothing, a frozen parameter, or only what earlier groups have, or a value of it
 *   makes no sense
 */
export function assignGroups(parameters: readonly Groupable[], groups: readonly ParamGroup[]): number[] {
  groups.forEach(checkValues)
  const assigned = parameters.map((parameter) => groups.findIndex((group) => matches(group, parameter)))
  groups.forEach((group, index) => {
    const title = describe(group, index)
    const all = parameters.filter((parameter) => matches(group, parameter))
    const frozen = all.find(({ trainable }) => !trainable)
    if (all.length === 0) fail(`${title} matches no parameter${hintFor(group, parameters)}`)
    if (frozen) fail(`${title} matches '${frozen.name}', which is frozen; narrow the match, or make it trainable`)
    if (!assigned.includes(index)) fail(`${title} matches only what earlier groups match; put it before them`)
  })
  return assigned
}

/**
 * What a schedule of the optimizer's `lr` is multiplied by for a group.
 *
 * @throws CONFIG where the group has a rate and `lr` is 0, of which it cannot be a multiple
 */
export function lrScaleOf(group: ParamGroup, index: number, lr: number): number {
  if (group.lr === undefined) return 1
  if (lr === 0 && group.lr > 0)
    fail(
      `${describe(group, index)}: lr ${group.lr} is no multiple of optimizer.params.lr, which is 0: nothing would be trained; set that to ${group.lr}, and give the parameters that are not to move a group of lr 0`,
    )
  return lr === 0 ? 0 : group.lr / lr
}

function fail(message: string): never {
  throw new ZeroshardError('CONFIG', message)
}

function describe({ name, match }: ParamGroup, index: number): string {
  if (name !== undefined) return `parameter group '${name}'`
  return `parameter group ${index}${match instanceof RegExp ? ` (${match})` : ''}`
}

function checkValues(group: ParamGroup, index: number): void {
  for (const key of ['lr', 'weightDecay'] as const) {
    const value = group[key]
    if (value === undefined || (Number.isFinite(value) && value >= 0)) continue
    fail(`${describe(group, index)}: ${key} is ${value}; it must be a number, at least 0`)
  }
}

/** The name of which an end is nearest to the words of the pattern. */
function hintFor({ match }: ParamGroup, parameters: readonly Groupable[]): string {
  const ends = new Map<string, string>()
  for (const { name } of parameters) {
    const words = name.split('.')
    words.forEach((_, first) => {
      const end = words.slice(first).join('.')
      if (!ends.has(end)) ends.set(end, name)
    })
  }
  const words = match instanceof RegExp ? match.source.replace(/\\/g, '').replace(/^\^|\$$/g, '') : ''
  const near = words ? nearest(words, ends.keys()) : undefined
  if (near !== undefined) return `; did you mean ${ends.get(near)}?`
  const [first] = parameters
  return first ? `; there are ${parameters.length}, as ${first.name}` : '; the model has none'
}

// How parameters lie in flat buffers. Pure: no memory, no communication.
// A unit (a transformer block, or a part of it; what is outside of blocks is one more) is one flat buffer, padded so
// that it cuts into equal shards. All of a unit is treated alike: trainable or not, always whole or not, held by the
// same model-parallel ranks. Parameters lie by their hyperparameter group, so that each group is one range.

import type { Module } from '../../nn/module.js'
import type { Parameter, Replicas } from '../../nn/parameter.js'

/** Shards begin at multiples of this many elements (64 bytes of f32). */
const ALIGNMENT = 16

export interface Slot {
  parameter: Parameter
  offset: number
  count: number
}

/** The flat buffer of a unit: where each parameter lies, and how large a shard is. */
export interface UnitLayout {
  /** Path of the module whose forward uses it; empty: the model's. */
  module: string
  /** The same, told apart from other units of that module. */
  name: string
  index: number
  slots: Slot[]
  /** Elements, padding included: a multiple of the number of shards. */
  size: number
  shardSize: number
  /** Hyperparameter groups in order, each up to `end`. */
  groups: { group: number; end: number }[]
  trainable: boolean
  /** Stage 3: small parameters that stay whole. */
  persistent: boolean
  /** Stage 3: the module's units are fetched together. */
  leaf: boolean
  replicas: Replicas | undefined
  partialGradient: boolean
  partialOver: Replicas | undefined
}

/** A part of a flat unit that lies in [start, end). */
export interface Piece {
  slot: Slot
  /** Within the parameter. */
  start: number
  count: number
  /** Within the unit. */
  offset: number
}

export interface LayoutOptions {
  numShards: number
  /** Hyperparameter group of each parameter; default: all 0. */
  groupOf?: (parameter: Parameter) => number
  /** Most elements of a unit, where it has more than one parameter. */
  maxUnit?: number
  /** Parameters of fewer elements are persistent. */
  persistBelow?: number
  /** Parameters outside of blocks: units by module, in the order of use, instead of one that comes first. */
  splitRoot?: boolean
  /** Elements: shards are multiples of it, those of small parameters that stay whole excepted. */
  alignment?: number
  /** Modules whose parameters are units of their own, together wherever the module is. */
  leaf?: (module: Module) => boolean
  /** False for parameters that have no memory on this rank. */
  include?: (parameter: Parameter) => boolean
}

/**
 * The model's units; their reverse is the order in which gradients are reduced.
 *
 * @example
 * const [unit] = layoutUnits(new nn.Linear(4, 3), { numShards: 2 })
 * unit?.size // 32
 */
export function layoutUnits(model: Module, options: LayoutOptions): UnitLayout[] {
  const { include = () => true } = options
  const named = [...model.namedParameters()].filter(([, parameter]) => include(parameter))
  const leaves = leafPaths(model, options.leaf)
  const blocks = blockPaths(model, leaves)
  const sections = new Map<string, Parameter[]>()
  if (!options.splitRoot) sections.set('', [])
  for (const [name, parameter] of named) {
    const block = blocks.find((path) => name.startsWith(`${path}.`))
    const key = block ?? (options.splitRoot ? name.slice(0, Math.max(name.lastIndexOf('.'), 0)) : '')
    sections.set(key, [...(sections.get(key) ?? []), parameter])
  }
  const units = [...sections].flatMap(([module, parameters]) =>
    alike(parameters, options).flatMap((same) => layoutAlike(module, same, options)),
  )
  return units.map((unit, index) => ({ ...unit, index, leaf: leaves.has(unit.module) }))
}

/** Paths of the modules in lists, and of leaves: the outermost ones. */
function blockPaths(model: Module, leaves: ReadonlySet<string>): string[] {
  const found: string[] = []
  const add = (path: string): void => {
    if (!found.some((block) => path === block || path.startsWith(`${block}.`))) found.push(path)
  }
  model.visit((module) => {
    if (leaves.has(module.path)) add(module.path)
    for (const [field] of module.children())
      if (/\.\d+$/.test(field)) add(module.path ? `${module.path}.${field}` : field)
  })
  return found
}

function leafPaths(model: Module, isLeaf: LayoutOptions['leaf']): Set<string> {
  const found = new Set<string>()
  model.visit((module) => {
    if (module.path && isLeaf?.(module)) found.add(module.path)
  })
  return found
}

const isPersistent = (parameter: Parameter, { persistBelow = 0 }: LayoutOptions): boolean =>
  parameter.count < persistBelow

/** Parameters in sets that can share a unit, in the order of their first members. */
function alike(parameters: readonly Parameter[], options: LayoutOptions): Parameter[][] {
  const sets: Parameter[][] = []
  for (const parameter of parameters) {
    const set = sets.find(([first]) => first && fit(first, parameter, options))
    if (set) set.push(parameter)
    else sets.push([parameter])
  }
  return sets
}

const fit = (a: Parameter, b: Parameter, options: LayoutOptions): boolean =>
  a.trainable === b.trainable &&
  a.replicas === b.replicas &&
  a.partialGradient === b.partialGradient &&
  a.partialOver === b.partialOver &&
  isPersistent(a, options) === isPersistent(b, options)

function layoutAlike(module: string, parameters: readonly Parameter[], options: LayoutOptions): UnitLayout[] {
  const { maxUnit = Number.POSITIVE_INFINITY } = options
  const parts: Parameter[][] = []
  let room = 0
  for (const parameter of parameters) {
    if (parameter.count > room || parts.length === 0) {
      parts.push([])
      room = maxUnit
    }
    parts[parts.length - 1]?.push(parameter)
    room -= parameter.count
  }
  return parts.map((part) => layoutUnit(module, part, options))
}

function layoutUnit(module: string, parameters: readonly Parameter[], options: LayoutOptions): UnitLayout {
  const { numShards, groupOf = () => 0 } = options
  const ordered = [...parameters].sort((a, b) => groupOf(a) - groupOf(b))
  const slots: Slot[] = []
  const groups: UnitLayout['groups'] = []
  let offset = 0
  for (const parameter of ordered) {
    const { count } = parameter
    slots.push({ parameter, offset, count })
    offset += count
    const last = groups[groups.length - 1]
    if (last?.group === groupOf(parameter)) last.end = offset
    else groups.push({ group: groupOf(parameter), end: offset })
  }
  const [first] = parameters as [Parameter]
  const persistent = isPersistent(first, options)
  const quantum = numShards * (persistent ? ALIGNMENT : (options.alignment ?? ALIGNMENT))
  const size = Math.ceil(offset / quantum) * quantum
  const last = groups[groups.length - 1]
  if (last) last.end = size
  return {
    module,
    name: module || first.name,
    index: 0,
    slots,
    size,
    shardSize: size / numShards,
    groups,
    trainable: first.trainable,
    persistent,
    leaf: false,
    replicas: first.replicas,
    partialGradient: first.partialGradient,
    partialOver: first.partialOver ?? (first.partialGradient ? first.replicas : undefined),
  }
}

/**
 * The parameters' parts that lie in [start, end) of a unit.
 *
 * @example
 * const [unit] = layoutUnits(new nn.Linear(4, 3), { numShards: 2 }) as [UnitLayout]
 * piecesIn(unit, 10, 15).map(({ slot, count }) => `${slot.parameter.name} ${count}`) // ['weight 2', 'bias 3']
 */
export function piecesIn(unit: UnitLayout, start: number, end: number): Piece[] {
  return unit.slots.flatMap((slot) => {
    const from = Math.max(start, slot.offset)
    const to = Math.min(end, slot.offset + slot.count)
    return from < to ? [{ slot, start: from - slot.offset, count: to - from, offset: from }] : []
  })
}

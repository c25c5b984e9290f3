// How parameters lie in flat buffers. Pure: no memory, no communication.
// A unit (a transformer block; the rest of the model is one more) is one flat buffer, padded so that it cuts into
// equal shards. Matrices come first, so that weight decay on matrices alone is a prefix.

import type { Module } from '../../nn/module.js'
import type { Parameter } from '../../nn/parameter.js'

/** Shards begin at multiples of this many elements (64 bytes of f32). */
const ALIGNMENT = 16

export interface Slot {
  parameter: Parameter
  offset: number
  count: number
}

/** The flat buffer of a unit: where each parameter lies, and how large a shard is. */
export interface UnitLayout {
  name: string
  slots: Slot[]
  /** Elements, padding included: a multiple of the number of shards. */
  size: number
  /** Where the matrices end. */
  matrixEnd: number
  shardSize: number
  /** Frozen parameters lie in units of their own, without gradients and optimizer states. */
  trainable: boolean
}

/** A part of a flat unit that lies in [start, end). */
export interface Piece {
  slot: Slot /** within the parameter */
  start: number
  count: number /** within the unit */
  offset: number
}

/** The model's units in the order of use: the root's own parameters first, then its blocks. */
export function layoutUnits(model: Module, numShards: number): UnitLayout[] {
  const named = model.namedParameters()
  const blocks: { name: string; parameters: Set<Parameter> }[] = []
  const taken = new Set<Parameter>()
  model.visit((module) => {
    for (const [field] of module.children()) {
      const path = module.path ? `${module.path}.${field}` : field
      if (!/\.\d+$/.test(field) || blocks.some((block) => inside(path, block.name))) continue
      const parameters = new Set([...named].filter(([name]) => inside(name, path)).map(([, parameter]) => parameter))
      if (parameters.size === 0) continue
      blocks.push({ name: path, parameters })
      for (const parameter of parameters) taken.add(parameter)
    }
  })
  const root = [...named.values()].filter((parameter) => !taken.has(parameter))
  return [{ name: 'root', parameters: root }, ...blocks].flatMap(({ name, parameters }) =>
    [true, false].flatMap((trainable) => {
      const chosen = [...parameters].filter((parameter) => parameter.trainable === trainable)
      return chosen.length ? [layoutUnit(name, chosen, numShards, trainable)] : []
    }),
  )
}

const inside = (name: string, path: string): boolean => name === path || name.startsWith(`${path}.`)

function layoutUnit(name: string, parameters: readonly Parameter[], numShards: number, trainable: boolean): UnitLayout {
  const isMatrix = (parameter: Parameter): boolean => parameter.shape.length >= 2
  const ordered = [...parameters.filter(isMatrix), ...parameters.filter((parameter) => !isMatrix(parameter))]
  const slots: Slot[] = []
  let offset = 0
  let matrixEnd = 0
  for (const parameter of ordered) {
    slots.push({ parameter, offset, count: parameter.count })
    offset += parameter.count
    if (isMatrix(parameter)) matrixEnd = offset
  }
  const quantum = numShards * ALIGNMENT
  const size = Math.ceil(offset / quantum) * quantum
  return { name, slots, size, matrixEnd, shardSize: size / numShards, trainable }
}

/** The parameters' parts that lie in [start, end) of a unit. */
export function piecesIn(unit: UnitLayout, start: number, end: number): Piece[] {
  return unit.slots.flatMap((slot) => {
    const from = Math.max(start, slot.offset)
    const to = Math.min(end, slot.offset + slot.count)
    return from < to ? [{ slot, start: from - slot.offset, count: to - from, offset: from }] : []
  })
}

// Parameters, gradients and optimizer states by name, whatever the stage has cut: whole (collective over the
// data-parallel ranks) or the part that this rank has.

import { nearest, ZeroshardError } from '../../binding/errors.js'
import type { Parameter } from '../../nn/parameter.js'
import { runsOf } from '../../nn/slice.js'
import { tidy, unscoped } from '../../tensor/scope.js'
import { countOf, empty, runOp, type Tensor, tensor } from '../../tensor/tensor.js'
import { joinParts } from '../tensor/cut-parameter.js'
import { type Flat, MemoryFlat } from './flat.js'
import { piecesIn, type Slot } from './layout.js'
import type { Unit } from './unit.js'
import type { Zero } from './zero.js'

/** 'parameter' is the f32 master, 'gradient' the reduced one (after backward, before step), else a state's name. */
export type Kind = 'parameter' | 'gradient' | (string & {})

export interface LocalPart {
  /** First element within the (model-parallel rank's part of the) parameter. */
  start: number
  values: Float32Array
}

export class Access {
  constructor(
    readonly zero: Zero,
    /** What stored gradients must be multiplied by: 1 / loss scale. */
    readonly gradientScale: () => number = () => 1,
  ) {}

  /** Names of all parameters of this rank's part of the model. */
  names(): string[] {
    return this.zero.units.flatMap((unit) => unit.layout.slots.map(({ parameter }) => parameter.name))
  }

  /** The whole values. Collective over the ranks that have parts of them: data-parallel and tensor-parallel ones. */
  async getFull(name: string, kind: Kind = 'parameter'): Promise<Float32Array> {
    const { unit, slot } = this.#find(name)
    const values = unscoped(() =>
      tidy(() => {
        const own = wholeOf(unit, this.#buffer(unit, kind, name), slot)
        const { partialOver } = unit.layout
        if (kind === 'gradient' && partialOver && partialOver.size > 1) partialOver.allReduce(own)
        return joinParts(own, slot.parameter)
      }),
    )
    const data = (await values.data()) as Float32Array
    values.dispose()
    return this.#scaled(data, kind)
  }

  /** Sets the whole values, the same on all ranks. Collective over the data-parallel ranks. */
  setFull(name: string, values: Float32Array, kind: Kind = 'parameter'): void {
    const { unit, slot } = this.#find(name)
    const { slice, wholeShape } = slot.parameter
    const size = countOf(wholeShape)
    if (values.length !== size)
      throw new ZeroshardError('SHAPE', `[setFull] ${name} has ${size} elements, ${values.length} were given`)
    for (const { start, count, offset } of piecesOf(unit, slot)) {
      const own = new Float32Array(count)
      for (const run of runsOf(slice, start, count))
        own.set(values.subarray(run.whole, run.whole + run.count), run.local - start)
      this.#write(unit, kind, name, offset, own)
    }
    if (kind === 'parameter') unscoped(() => unit.refresh())
  }

  /** This rank's part of the values; undefined where it has none of them. */
  async getLocal(name: string, kind: Kind = 'parameter'): Promise<LocalPart | undefined> {
    const { unit, slot } = this.#find(name)
    const [piece] = piecesOf(unit, slot)
    if (!piece) return undefined
    const view = unscoped(() =>
      tidy(() => f32(this.#buffer(unit, kind, name).read(piece.offset - unit.start, piece.count))),
    )
    const values = this.#scaled((await view.data()) as Float32Array, kind)
    view.dispose()
    return { start: piece.start, values }
  }

  /** Sets this rank's part. For parameters it is collective, as the others must see it. */
  setLocal(name: string, values: Float32Array, kind: Kind = 'parameter'): void {
    const { unit, slot } = this.#find(name)
    const [piece] = piecesOf(unit, slot)
    if ((piece?.count ?? 0) !== values.length) {
      throw new ZeroshardError(
        'SHAPE',
        `[setLocal] this rank has ${piece?.count ?? 0} elements of ${name}, ${values.length} were given`,
      )
    }
    if (piece) this.#write(unit, kind, name, piece.offset, values)
    if (kind === 'parameter') unscoped(() => unit.refresh())
  }

  #write(unit: Unit, kind: Kind, name: string, offset: number, values: Float32Array): void {
    const factor = kind === 'gradient' ? 1 / this.gradientScale() : 1
    unscoped(() =>
      tidy(() => {
        const source = tensor(factor === 1 ? values.slice() : values.map((value) => value * factor))
        this.#buffer(unit, kind, name).write(offset - unit.start, source)
      }),
    )
  }

  #scaled(values: Float32Array, kind: Kind): Float32Array {
    const factor = kind === 'gradient' ? this.gradientScale() : 1
    return factor === 1 ? values : values.map((value) => value * factor)
  }

  #find(name: string): { unit: Unit; slot: Slot } {
    for (const unit of this.zero.units) {
      const slot = unit.layout.slots.find(({ parameter }) => parameter.name === name)
      if (slot) return { unit, slot }
    }
    const near = nearest(name, this.names())
    throw new ZeroshardError('ARGUMENT', `there is no parameter '${name}'${near ? `; did you mean '${near}'?` : ''}`)
  }

  #buffer(unit: Unit, kind: Kind, name: string): Flat {
    if (kind === 'parameter') return unit.master
    if (kind === 'gradient' && unit.ownGradients) return new MemoryFlat(unit.ownGradients)
    const found = unit.states[kind]
    if (found) return found
    const has = ['parameter', ...(unit.ownGradients ? ['gradient'] : []), ...Object.keys(unit.states)]
    throw new ZeroshardError('ARGUMENT', `'${name}' has no '${kind}' here; it has ${has.join(', ')}`)
  }
}

const piecesOf = (unit: Unit, slot: Slot) =>
  piecesIn(unit.layout, unit.start, unit.end).filter((piece) => piece.slot === slot)

const f32 = (x: Tensor): Tensor => {
  const wide = empty(x.shape, { category: 'buffers' })
  runOp('cast', [wide], [x])
  return wide
}

/** A parameter's f32 values from the shards of its unit's buffer. */
function wholeOf(unit: Unit, buffer: Flat, slot: Slot): Tensor {
  const { layout, options } = unit
  if (buffer.count === layout.size) return f32(buffer.read(slot.offset, slot.count))
  const full = empty([layout.size], { dtype: buffer.dtype, category: 'buffers' })
  options.group.allGather(full, buffer.read(0, buffer.count), { tag: layout.index })
  return f32(full.view([slot.count], slot.offset))
}

export interface GatheredOptions {
  /** The data-parallel rank whose changes count; without it nothing may be changed. */
  modifierRank?: number
}

/**
 * Runs `fn` while the whole parameters exist on this rank; collective over the data-parallel ranks. With
 * `modifierRank` that rank's changes are everyone's afterwards; without it a change is an error on every rank.
 */
export async function gathered<T>(
  zero: Zero,
  parameters: readonly Parameter[],
  fn: () => T | Promise<T>,
  { modifierRank }: GatheredOptions = {},
): Promise<T> {
  const { group } = zero.options
  const units = zero.units.filter((unit) => unit.layout.slots.some(({ parameter }) => parameters.includes(parameter)))
  zero.fetcher?.begin('gathered')
  for (const unit of units) if (!unit.parameters) zero.fetcher?.use(unit)
  const before = units.map((unit) => unscoped(() => copyOf(unit.full as Tensor)))
  try {
    const result = await fn()
    if (modifierRank === undefined) await refuseChanges(zero, units, before)
    else {
      for (const unit of units) {
        group.broadcast(unit.full as Tensor, modifierRank)
        unscoped(() => unit.adopt())
      }
    }
    return result
  } finally {
    for (const copy of before) copy.dispose()
    zero.fetcher?.end()
  }
}

function copyOf(x: Tensor): Tensor {
  const copy = empty(x.shape, { dtype: x.dtype, category: 'buffers' })
  runOp('cast', [copy], [x])
  return copy
}

/** @throws ARGUMENT on every rank where any rank has changed a parameter. */
async function refuseChanges(zero: Zero, units: readonly Unit[], before: readonly Tensor[]): Promise<void> {
  const { group } = zero.options
  const changes = unscoped(() =>
    tidy(() => {
      const largest = empty([Math.max(units.length, 1)], { zero: true, shared: true })
      units.forEach((unit, index) => {
        const difference = empty([unit.layout.size], { dtype: unit.options.dtype, category: 'buffers' })
        runOp('binary', [difference], [unit.full, before[index]], [1])
        runOp('absmax', [largest.view([1], index)], [difference])
        difference.dispose()
      })
      return group.allReduce(largest)
    }),
  )
  const values = (await changes.data()) as Float32Array
  changes.dispose()
  const changed = units.filter((_, index) => values[index] !== 0).map((unit) => unit.layout.name)
  if (changed.length) {
    throw new ZeroshardError(
      'ARGUMENT',
      `[gathered] parameters of ${changed.join(', ')} were changed, but no modifierRank says whose values count; pass { modifierRank }`,
    )
  }
}

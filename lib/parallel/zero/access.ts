// Parameters, gradients and optimizer states by name, whatever the stage has cut: whole (collective over the
// data-parallel ranks) or the part that this rank has.

import { nearest, ZeroshardError } from '../../binding/errors.js'
import type { Parameter } from '../../nn/parameter.js'
import { joinParts, slicedOf } from '../../nn/parts.js'
import { runsOf } from '../../nn/slice.js'
import { tidy, unscoped } from '../../tensor/scope.js'
import { countOf, empty, runOp, type Tensor, tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { changesIn, writeChanges } from './changes.js'
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
        const sliced = slicedOf(slot.parameter)
        return sliced ? joinParts(own, sliced) : own
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

/** A parameter's f32 values from the shards of its unit's buffer: each rank gives what it has of them. */
function wholeOf({ layout, options: { group } }: Unit, buffer: Flat, slot: Slot): Tensor {
  if (buffer.count === layout.size) return f32(buffer.read(slot.offset, slot.count))
  const whole = empty([slot.count], { dtype: buffer.dtype, category: 'buffers' })
  for (let rank = 0; rank < group.size; rank++) {
    const first = rank * layout.shardSize
    const piece = piecesIn(layout, first, first + layout.shardSize).find((each) => each.slot === slot)
    if (!piece) continue
    const part = whole.view([piece.count], piece.start)
    if (rank === group.rank) runOp('cast', [part], [buffer.read(piece.offset - first, piece.count)])
    group.broadcast(part, rank)
  }
  return f32(whole)
}

export interface GatheredOptions {
  /** The data-parallel rank whose changes count; without it nothing may be changed. */
  modifierRank?: number
}

/** A unit that exists whole while `fn` runs. */
interface Loan {
  unit: Unit
  before: Tensor
}

/**
 * Runs `fn` while the whole parameters exist on this rank; collective over the data-parallel ranks. With
 * `modifierRank` that rank's changes of them are everyone's afterwards, and what it left alone keeps all bits of its
 * masters. Without it a change is an error on every rank, as are a change of other parameters and a failure of `fn`:
 * the values are then what they were.
 */
export async function gathered<T>(
  zero: Zero,
  parameters: readonly Parameter[],
  fn: () => T | Promise<T>,
  { modifierRank }: GatheredOptions = {},
): Promise<T> {
  const { group } = zero.options
  if (modifierRank !== undefined && !(Number.isInteger(modifierRank) && modifierRank >= 0 && modifierRank < group.size))
    throw new ZeroshardError(
      'ARGUMENT',
      `[gathered] modifierRank ${modifierRank} is not one of ${group.size} data-parallel ranks; give 0 to ${group.size - 1}`,
    )
  const units = zero.units.filter((unit) => unit.layout.slots.some(({ parameter }) => parameters.includes(parameter)))
  zero.fetcher?.begin('gathered')
  for (const unit of units) if (!unit.parameters) zero.fetcher?.use(unit)
  const loans = units.map((unit) => ({ unit, before: unscoped(() => copyOf(unit.full as Tensor)) }))
  try {
    const outcome = await outcomeOf(fn)
    const changed = await agreeOnChanges(group, loans, outcome)
    const wanted = modifierRank === undefined ? [] : parameters
    const refused = changed.filter(({ slot }) => !wanted.includes(slot.parameter))
    if (refused.length) throw refusal(refused, parameters)
    for (const { loan, slot } of changed) await adopt(group, loan, slot, modifierRank as number)
    return outcome.result as T
  } catch (error) {
    for (const { unit, before } of loans) unscoped(() => unit.putBack(before))
    throw error
  } finally {
    for (const { before } of loans) before.dispose()
    zero.fetcher?.end()
  }
}

interface Outcome<T> {
  result?: T
  error?: unknown
}

async function outcomeOf<T>(fn: () => T | Promise<T>): Promise<Outcome<T>> {
  try {
    return { result: await fn() }
  } catch (error) {
    return { error: error ?? new ZeroshardError('ARGUMENT', '[gathered] the callback threw nothing') }
  }
}

interface Change {
  loan: Loan
  slot: Slot
}

/** What any rank has changed. @throws on every rank where `fn` failed on any: there its own error. */
async function agreeOnChanges(group: ProcessGroup, loans: readonly Loan[], { error }: Outcome<unknown>) {
  const all = loans.flatMap((loan): Change[] => loan.unit.layout.slots.map((slot) => ({ loan, slot })))
  const told = new Float32Array(all.length + 1)
  let failure = error
  try {
    if (failure === undefined)
      for (const [at, { loan, slot }] of all.entries())
        told[at] = (await changesIn(fullOf(loan.unit), loan.before, slot.offset, slot.count)).length
  } catch (thrown) {
    failure = thrown
  }
  if (failure !== undefined) told[all.length] = 1
  const flags = unscoped(() => tensor(told, [told.length], { category: 'buffers' }))
  try {
    group.allReduce(flags)
    const sums = (await flags.data()) as Float32Array
    if (failure === undefined && sums[all.length])
      failure = new ZeroshardError('ARGUMENT', '[gathered] failed on another rank; the values are what they were')
    if (failure === undefined) return all.filter((_, at) => sums[at])
  } catch (thrown) {
    failure ??= thrown
  } finally {
    flags.dispose()
  }
  throw failure
}

function refusal(refused: readonly Change[], parameters: readonly Parameter[]): ZeroshardError {
  const names = (given: boolean): string =>
    refused
      .flatMap(({ slot: { parameter } }) => (parameters.includes(parameter) === given ? [parameter.name] : []))
      .join(', ')
  return new ZeroshardError(
    'ARGUMENT',
    names(false)
      ? `[gathered] ${names(false)} changed, but only ${parameters.map(({ name }) => name).join(', ')} may; gather what you change`
      : `[gathered] ${names(true)} changed, but no modifierRank says whose values count; pass { modifierRank }`,
  )
}

function fullOf({ full, layout }: Unit): Tensor {
  if (full) return full
  throw new ZeroshardError(
    'ARGUMENT',
    `[gathered] ${layout.name} was released by a forward in it; call the model outside`,
  )
}

/** The values of `modifierRank`, everywhere; of this rank's master the elements that they change. */
async function adopt(group: ProcessGroup, { unit, before }: Loan, slot: Slot, modifierRank: number): Promise<void> {
  const full = fullOf(unit)
  const whole = unscoped(() => full.view([slot.count], slot.offset))
  group.broadcast(whole, modifierRank)
  whole.dispose()
  slot.parameter.version++
  for (const { offset, count } of piecesOf(unit, slot)) {
    const changes = await changesIn(full, before, offset, count)
    if (unit.master !== unit.ownParameters) await writeChanges(unit.master, changes, unit.start)
    if (!unit.parameters)
      unscoped(() => tidy(() => unit.ownParameters.write(offset - unit.start, full.view([count], offset))))
  }
}

function copyOf(x: Tensor): Tensor {
  const copy = empty(x.shape, { dtype: x.dtype, category: 'buffers' })
  runOp('cast', [copy], [x])
  return copy
}

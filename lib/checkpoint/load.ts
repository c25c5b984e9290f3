// Loading on any number of ranks and any layout: each rank reads only the byte ranges that its own part needs.

import { nearest, ZeroshardError } from '../binding/errors.js'
import { binding } from '../binding/native.js'
import type { Parameter } from '../nn/parameter.js'
import type { Flat } from '../parallel/zero/flat.js'
import { type Piece, piecesIn } from '../parallel/zero/layout.js'
import type { Unit } from '../parallel/zero/unit.js'
import type { Zero } from '../parallel/zero/zero.js'
import { unscoped } from '../tensor/scope.js'
import { DISK, type Tensor } from '../tensor/tensor.js'
import type { Agreement } from './agreement.js'
import type { Kind, Manifest } from './manifest.js'
import { SliceReader } from './slices.js'

/** What of a checkpoint is loaded; by default all of it. */
export interface LoadOptions {
  /** False: weights alone; the training starts at step 0. */
  optimizer?: boolean
  /** False: optimizer states and the training's state alone. */
  weights?: boolean
  /** False: parameters and states that only one side has are left as they are. */
  strict?: boolean
}

/** @throws ARGUMENT naming an option that is none. */
export function checkLoadOptions(options: object): void {
  const known = ['optimizer', 'weights', 'strict']
  for (const [key, value] of Object.entries(options)) {
    const near = nearest(key, known)
    if (!known.includes(key))
      throw new ZeroshardError(
        'ARGUMENT',
        `[loadCheckpoint] has no option '${key}'; ${near ? `did you mean '${near}'?` : `it has ${known.join(', ')}`}`,
      )
    if (value !== undefined && typeof value !== 'boolean')
      throw new ZeroshardError('ARGUMENT', `[loadCheckpoint] ${key} is ${JSON.stringify(value)}; give true or false`)
  }
}

/** Collective. Fills this rank's part of weights and optimizer states, then the model's copies on all ranks. */
export async function loadCheckpoint(
  folder: string,
  manifest: Manifest,
  zero: Zero,
  agreement: Agreement,
  { strict = true, optimizer = true, weights = true }: LoadOptions = {},
): Promise<void> {
  checkParameters(folder, manifest, zero, strict)
  if (optimizer && strict) checkStates(folder, manifest, zero)
  const reader = new SliceReader(folder, manifest)
  const kindsOf = (unit: Unit): Kind[] => [
    ...(weights ? ['weight'] : []),
    ...(optimizer && unit.layout.trainable ? unit.options.optimizer.states : []),
  ]
  try {
    await agreement.all('values', async () => {
      for (const unit of zero.units) {
        const [from, to] = readBy(unit)
        for (const kind of kindsOf(unit))
          for (const piece of piecesIn(unit.layout, from, to)) await readPiece(unit, piece, kind, reader, strict)
        // So that what waits to be written does not pile up in memory.
        if (unit.onDisk) await binding().native.synchronize(DISK)
      }
    })
  } finally {
    await reader.close()
  }
  for (const unit of zero.units)
    if (unit.keeps.optimizer === 'full' && !unit.onDisk) for (const kind of kindsOf(unit)) share(unit, kind)
  if (weights) zero.refresh()
}

/** A unit's buffer, of elements [unit.start, unit.end). Nothing else here touches them. */
const bufferOf = ({ master, states }: Unit, kind: Kind): Flat => (kind === 'weight' ? master : (states[kind] as Flat))

/** What a rank reads: its shard, also where it has all of them in memory, as the others read the rest. */
function readBy({ layout: { shardSize }, options: { group }, start, end, onDisk }: Unit): [from: number, to: number] {
  return onDisk ? [start, end] : [group.rank * shardSize, (group.rank + 1) * shardSize]
}

function share(unit: Unit, kind: Kind): void {
  const buffer = bufferOf(unit, kind).resident as Tensor
  const own = unscoped(() => buffer.view([unit.layout.shardSize], readBy(unit)[0]))
  unit.options.group.allGather(buffer, own, { tag: unit.layout.index })
  own.dispose()
}

async function readPiece(unit: Unit, piece: Piece, kind: Kind, reader: SliceReader, strict: boolean): Promise<void> {
  const { start, count, offset } = piece
  const { parameter } = piece.slot
  if (reader.has(parameter.name, kind)) {
    const buffer = bufferOf(unit, kind)
    const base = offset - unit.start
    await reader.read(parameter, kind, start, count, (at, values) => unscoped(() => buffer.write(base + at, values)))
  } else if (strict) {
    throw new ZeroshardError(
      'CHECKPOINT',
      `${reader.folder}: has no ${kind} of ${parameter.name}; with { strict: false } it is left as it is`,
    )
  }
}

/** The same parameters, of the same shapes. A rank may have a part of them: they are the whole model's. */
function checkParameters(folder: string, manifest: Manifest, zero: Zero, strict: boolean): void {
  const own = new Map<string, Parameter>(zero.model.namedParameters())
  const missing = [...own.keys()].filter((name) => !(name in manifest.parameters))
  const unexpected = Object.keys(manifest.parameters).filter((name) => !own.has(name))
  if (strict && (missing.length || unexpected.length)) {
    throw new ZeroshardError(
      'CHECKPOINT',
      `${folder}: is of another model; it lacks ${list(missing)} and has besides ${list(unexpected)}`,
    )
  }
  const others = Object.entries(manifest.parameters).flatMap(([name, { shape }]) => {
    const wanted = own.get(name)?.wholeShape ?? shape
    return wanted.join() === shape.join()
      ? []
      : [`${name} is [${shape.join(', ')}], the model's [${wanted.join(', ')}]`]
  })
  if (others.length) throw new ZeroshardError('CHECKPOINT', `${folder}: is of another model; ${list(others, '; ')}`)
}

function checkStates(folder: string, manifest: Manifest, zero: Zero): void {
  const there = new Set(manifest.slices.map(({ kind }) => kind))
  there.delete('weight')
  const wanted = zero.options.optimizer.states
  const lacking = wanted.filter((kind) => !there.has(kind))
  if (lacking.length === 0) return
  throw new ZeroshardError(
    'CHECKPOINT',
    `${folder}: is of another optimizer; this one has the states ${list(wanted)}, the checkpoint ${list([...there])}; load it with { optimizer: false }, or { strict: false }`,
  )
}

const list = (names: readonly string[], separator = ', '): string =>
  names.length
    ? `${names.slice(0, 3).join(separator)}${names.length > 3 ? ` and ${names.length - 3} more` : ''}`
    : 'nothing'

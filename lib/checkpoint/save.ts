// Saving: every rank writes its own shard of weights and optimizer states, as it lies, in one file; rank 0 makes the
// manifest of all and commits. Ranks agree on each step, and a failure of one is a failure of all.

import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import type { ProcessGroup } from '../parallel/group.js'
import type { Flat } from '../parallel/zero/flat.js'
import { type Piece, piecesIn } from '../parallel/zero/layout.js'
import type { Unit } from '../parallel/zero/unit.js'
import type { Zero } from '../parallel/zero/zero.js'
import { unscoped } from '../tensor/scope.js'
import { COPY, type DType, empty, runOp, type Tensor } from '../tensor/tensor.js'
import type { Agreement } from './agreement.js'
import { beginSave, commitSave, dropSave, stepName, writeDurably } from './folder.js'
import { type FileEntry, type Kind, type Manifest, manifestText, type SliceEntry } from './manifest.js'
import { safetensorsHead, type TensorPlan } from './safetensors.js'
import type { ScalesCopy } from './scales.js'
import { FileStream } from './thread.js'

export interface SaveRequest {
  /** The folder of checkpoints. */
  folder: string
  zero: Zero
  group: ProcessGroup
  head: Omit<Manifest, 'format' | 'version' | 'files' | 'slices' | 'parameters'>
  /** Newest checkpoints to keep; 0: all. */
  retain: number
  /** Of 8-bit training, where this rank writes them; disposed with the save. */
  scales?: ScalesCopy | undefined
}

/** This rank's part of a unit: elements [offset, offset + count) of each of its tensors. */
interface Part {
  unit: Unit
  offset: number
  count: number
}

/** Where the values come from. */
interface Source {
  /** Elements [from, from + count) of a unit's buffer; the caller disposes them. */
  read(unit: Unit, kind: Kind, from: number, count: number): Tensor
  /** A part has been written. */
  done(unit: Unit): void
}

/** The model itself. Nothing else here touches a unit's buffers. */
const live: Source = {
  read: (unit, kind, from, count) =>
    unscoped(() => (kind === 'weight' ? unit.master : (unit.states[kind] as Flat)).read(from, count)),
  done: () => {},
}

/** Elements of a buffer that are asked for at a time: 8 MiB of f32. */
const CHUNK = 2 << 20

function* chunksOf(count: number): Generator<[from: number, count: number]> {
  for (let from = 0; from < count; from += CHUNK) yield [from, Math.min(CHUNK, count - from)]
}

/** What there is of a unit, in the order of the file. */
const kindsOf = ({ layout, options }: Unit): [Kind, DType][] =>
  layout.trainable
    ? ['weight', ...options.optimizer.states].map((kind): [Kind, DType] => [kind, 'f32'])
    : [['weight', options.dtype]]

interface Plan {
  parts: Part[]
  tensors: TensorPlan[]
  slices: Omit<SliceEntry, 'file'>[]
}

/** This rank's shard of every unit, at every stage; what model-parallel ranks share, one of them has. */
function plan(zero: Zero): Plan {
  const { rank } = zero.options.group
  const result: Plan = { parts: [], tensors: [], slices: [] }
  for (const unit of zero.units) {
    const { shardSize, replicas } = unit.layout
    if (replicas && replicas.rank > 0) continue
    const pieces = piecesIn(unit.layout, rank * shardSize, (rank + 1) * shardSize)
    const [first, last] = [pieces[0], pieces[pieces.length - 1]]
    if (!first || !last) continue
    const count = last.offset + last.count - first.offset // one follows the other: padding is at the end
    result.parts.push({ unit, offset: first.offset - unit.start, count })
    for (const [kind, dtype] of kindsOf(unit)) for (const piece of pieces) addSlice(result, piece, kind, dtype)
  }
  return result
}

function addSlice({ tensors, slices }: Plan, { slot, start, count }: Piece, kind: Kind, dtype: DType): void {
  const { name, shape, slice: part } = slot.parameter
  const key = kind === 'weight' ? name : `${name}.${kind}`
  const cut = part && { dim: part.dim, ranges: part.ranges.map(([from, to]): [number, number] => [from, to]) }
  tensors.push({ key, dtype, shape: count === slot.count ? shape : [count] })
  slices.push({ parameter: name, kind, key, start, count, ...(cut && { cut }) })
}

/** Copies of what a rank writes, in host memory, until it is written. */
export interface Snapshot {
  source: Source
  dispose(): void
}

/** Queued on the copy stream: the next step runs beside it, and only its update waits. */
export function takeSnapshot(zero: Zero): Snapshot {
  const copies = new Map<Unit, { offset: number; kinds: Map<Kind, Tensor> }>()
  const done = (unit: Unit): void => {
    for (const tensor of copies.get(unit)?.kinds.values() ?? []) tensor.dispose()
    copies.delete(unit)
  }
  const dispose = (): void => {
    for (const unit of [...copies.keys()]) done(unit)
  }
  try {
    for (const { unit, offset, count } of plan(zero).parts) {
      const kinds = new Map<Kind, Tensor>()
      copies.set(unit, { offset, kinds })
      for (const [kind, dtype] of kindsOf(unit)) {
        const copy = unscoped(() => empty([count], { dtype, category: 'host' }))
        kinds.set(kind, copy)
        for (const [from, length] of chunksOf(count)) copyTo(copy, from, live.read(unit, kind, offset + from, length))
      }
    }
  } catch (error) {
    dispose()
    throw error
  }
  const read: Source['read'] = (unit, kind, from, count) => {
    const { offset, kinds } = copies.get(unit) as { offset: number; kinds: Map<Kind, Tensor> }
    return unscoped(() => (kinds.get(kind) as Tensor).view([count], from - offset))
  }
  return { source: { read, done }, dispose }
}

/** Disposes the values. */
function copyTo(copy: Tensor, from: number, values: Tensor): void {
  const view = unscoped(() => copy.view([values.count], from))
  runOp('cast', [view], [values], [], COPY)
  view.dispose()
  values.dispose()
}

/** Collective. Resolves, on every rank, with the checkpoint's path when it is durable. */
export async function writeCheckpoint(
  request: SaveRequest,
  agreement: Agreement,
  source: Source = live,
): Promise<string> {
  const { folder, head } = request
  const { step } = head.state
  try {
    const temporary = join(folder, `tmp-${stepName(step)}`)
    await agreement.byFirst('folder', () => beginSave(folder, step))
    await agreement.all('files', () => writePart(request, temporary, source))
    return await agreement.byFirst('commit', async () => {
      await writeDurably(join(temporary, 'manifest.json'), manifestText(await assemble(temporary, request)))
      return commitSave(folder, temporary, step, request.retain)
    })
  } catch (error) {
    if (agreement.first) await dropSave(folder, step).catch(() => {})
    throw error
  } finally {
    request.scales?.dispose()
  }
}

/** What each rank tells of its file; in a file beside it, as it may be long. */
interface Told {
  files: FileEntry[]
  slices: SliceEntry[]
  parameters: Manifest['parameters']
}
const toldPath = (temporary: string, rank: number): string => join(temporary, `part-${rank}.json`)

async function writePart({ zero, group, scales }: SaveRequest, temporary: string, source: Source): Promise<void> {
  const { parts, tensors, slices } = plan(zero)
  const name = `rank-${String(group.rank).padStart(5, '0')}-of-${String(group.size).padStart(5, '0')}.safetensors`
  const file = new FileStream(join(temporary, name))
  try {
    await file.write(safetensorsHead(tensors))
    for (const part of parts) {
      for (const [kind, dtype] of kindsOf(part.unit)) await writeBuffer(file, part, kind, dtype, source)
      source.done(part.unit)
    }
    const entry = { name, ...(await file.finish()) }
    const told: Told = {
      files: [entry, ...(scales ? [{ name: scales.name, ...(await scales.write(temporary)) }] : [])],
      slices: slices.map((slice) => ({ ...slice, file: name })),
      parameters: parametersOf(zero),
    }
    await writeDurably(toldPath(temporary, group.rank), JSON.stringify(told))
  } catch (error) {
    await file.abandon()
    throw error
  }
}

async function writeBuffer(
  file: FileStream,
  { unit, offset, count }: Part,
  kind: Kind,
  dtype: DType,
  source: Source,
): Promise<void> {
  for (const [from, length] of chunksOf(count)) {
    const values = source.read(unit, kind, offset + from, length)
    try {
      if (values.dtype !== dtype)
        throw new ZeroshardError('INTERNAL', `[saveCheckpoint] ${kind} is ${values.dtype}, not ${dtype}`)
      await file.writeTensor(values)
    } finally {
      values.dispose()
    }
  }
}

const parametersOf = (zero: Zero): Manifest['parameters'] =>
  Object.fromEntries(
    zero.units.flatMap((unit) =>
      unit.layout.slots.map(({ parameter }) => [
        parameter.name,
        { shape: [...parameter.wholeShape], dtype: unit.options.dtype },
      ]),
    ),
  )

async function assemble(temporary: string, { group, head }: SaveRequest): Promise<Manifest> {
  const files: FileEntry[] = []
  const slices: SliceEntry[] = []
  const parameters: Manifest['parameters'] = {}
  for (let rank = 0; rank < group.size; rank++) {
    const path = toldPath(temporary, rank)
    const told = JSON.parse(await readFile(path, 'utf8')) as Told
    files.push(...told.files)
    for (const slice of told.slices) slices.push(slice)
    Object.assign(parameters, told.parameters)
    await rm(path)
  }
  return { format: 'zeroshard-checkpoint', version: 1, ...head, parameters, files, slices }
}

// Saving: every rank writes its own shard of weights and optimizer states, as it lies, in one file; rank 0 makes the
// manifest of all and commits. Ranks agree on each step, and a failure of one is a failure of all.

import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import type { ProcessGroup } from '../parallel/group.js'
import { type Piece, piecesIn } from '../parallel/zero/layout.js'
import type { Unit } from '../parallel/zero/unit.js'
import type { Zero } from '../parallel/zero/zero.js'
import { unscoped } from '../tensor/scope.js'
import { COPY, type DType, empty, runOp, type Tensor } from '../tensor/tensor.js'
import type { Agreement } from './agreement.js'
import { beginSave, commitSave, dropSave, stepName, writeDurably } from './folder.js'
import { type FileEntry, type Kind, type Manifest, manifestText, type SliceEntry } from './manifest.js'
import { safetensorsHead, type TensorPlan } from './safetensors.js'
import { FileStream } from './thread.js'

export interface SaveRequest {
  /** The folder of checkpoints. */
  folder: string
  zero: Zero
  group: ProcessGroup
  head: Omit<Manifest, 'format' | 'version' | 'files' | 'slices' | 'parameters'>
  /** Newest checkpoints to keep; 0: all. */
  retain: number
}

/** This rank's part of a unit: elements [offset, offset + count) of each of its tensors. */
interface Part {
  unit: Unit
  offset: number
  count: number
}
type Tensors = Readonly<Record<Kind, Tensor>>
/** Runs `use` with a part's tensors, of `count` elements each. */
type Source = (part: Part, use: (tensors: Tensors) => Promise<void>) => Promise<void>

/** The model's own. The one place that reads a unit's tensors. */
const live: Source = async ({ unit, offset, count }, use) => {
  const view = (tensor: Tensor): Tensor => unscoped(() => tensor.view([count], offset))
  const tensors = mapped({ weight: unit.master, ...unit.states }, view)
  try {
    await use(tensors)
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

/** What there is of a unit, in the order of the file. */
const kindsOf = ({ layout, options }: Unit): [Kind, DType][] =>
  layout.trainable
    ? ['weight', ...options.optimizer.states].map((kind): [Kind, DType] => [kind, 'f32'])
    : [['weight', options.dtype]]

const mapped = (tensors: Tensors, to: (tensor: Tensor) => Tensor): Tensors =>
  Object.fromEntries(Object.entries(tensors).map(([kind, tensor]) => [kind, to(tensor)]))

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

/** Copies of what a rank writes, in host memory. */
export interface Snapshot {
  source: Source
  dispose(): void
}

/** Queued on the copy stream: the next step runs beside it, and only its update waits. */
export async function takeSnapshot(zero: Zero): Promise<Snapshot> {
  const copies = new Map<Unit, Tensors>()
  const copy = (tensor: Tensor): Tensor =>
    unscoped(() => {
      const target = empty(tensor.shape, { dtype: tensor.dtype, category: 'host' })
      runOp('cast', [target], [tensor], [], COPY)
      return target
    })
  const drop = (unit: Unit): void => {
    for (const tensor of Object.values(copies.get(unit) ?? {})) tensor.dispose()
    copies.delete(unit)
  }
  const dispose = (): void => {
    for (const unit of [...copies.keys()]) drop(unit)
  }
  try {
    for (const part of plan(zero).parts)
      await live(part, async (tensors) => {
        copies.set(part.unit, mapped(tensors, copy))
      })
  } catch (error) {
    dispose()
    throw error
  }
  // what is in the file needs no copy any more
  const source: Source = ({ unit }, use) => use(copies.get(unit) as Tensors).finally(() => drop(unit))
  return { source, dispose }
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
  }
}

/** What each rank tells of its file; in a file beside it, as it may be long. */
interface Told {
  file: FileEntry
  slices: SliceEntry[]
  parameters: Manifest['parameters']
}
const toldPath = (temporary: string, rank: number): string => join(temporary, `part-${rank}.json`)

async function writePart({ zero, group }: SaveRequest, temporary: string, source: Source): Promise<void> {
  const { parts, tensors, slices } = plan(zero)
  const name = `rank-${String(group.rank).padStart(5, '0')}-of-${String(group.size).padStart(5, '0')}.safetensors`
  const file = new FileStream(join(temporary, name))
  try {
    await file.write(safetensorsHead(tensors))
    for (const part of parts) {
      await source(part, async (values) => {
        for (const [kind, dtype] of kindsOf(part.unit)) await file.writeTensor(expected(values[kind], kind, dtype))
      })
    }
    const entry = { name, ...(await file.finish()) }
    const told: Told = {
      file: entry,
      slices: slices.map((slice) => ({ ...slice, file: name })),
      parameters: parametersOf(zero),
    }
    await writeDurably(toldPath(temporary, group.rank), JSON.stringify(told))
  } catch (error) {
    await file.abandon()
    throw error
  }
}

function expected(tensor: Tensor | undefined, kind: Kind, dtype: DType): Tensor {
  if (tensor?.dtype === dtype) return tensor
  throw new ZeroshardError('INTERNAL', `[saveCheckpoint] ${kind} is ${tensor?.describe()}, not ${dtype}`)
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
    files.push(told.file)
    for (const slice of told.slices) slices.push(slice)
    Object.assign(parameters, told.parameters)
    await rm(path)
  }
  return { format: 'zeroshard-checkpoint', version: 1, ...head, parameters, files, slices }
}

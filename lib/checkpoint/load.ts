// Loading on any number of ranks and any layout: each rank reads only the byte ranges that its own part needs.

import { join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { binding } from '../binding/native.js'
import type { Parameter } from '../nn/parameter.js'
import { type Run, runsOf } from '../nn/slice.js'
import type { Flat } from '../parallel/zero/flat.js'
import { piecesIn } from '../parallel/zero/layout.js'
import type { Zero } from '../parallel/zero/zero.js'
import { unscoped } from '../tensor/scope.js'
import { bytesPerElement, DISK, type DType, type NumericArray, tensor } from '../tensor/tensor.js'
import type { Kind, Manifest, SliceEntry } from './manifest.js'
import { SafetensorsFile } from './safetensors.js'

export interface LoadOptions {
  /** False: weights alone. */
  optimizer?: boolean
  /** False: optimizer states alone. */
  weights?: boolean
  /** False: parameters that only one side has are left as they are. */
  strict?: boolean
}

/** Fills this rank's part of weights and optimizer states, then the model's copies on all ranks. */
export async function loadCheckpoint(
  folder: string,
  manifest: Manifest,
  zero: Zero,
  options: LoadOptions = {},
): Promise<void> {
  const { strict = true, optimizer = true, weights = true } = options
  checkParameters(folder, manifest, zero, strict)
  const reader = new SliceReader(folder, manifest)
  try {
    for (const unit of zero.units) {
      const targets: [Kind, Flat][] = []
      if (weights) targets.push(['weight', unit.master])
      if (optimizer) targets.push(...Object.entries(unit.states))
      for (const [kind, target] of targets) {
        for (const piece of piecesIn(unit.layout, unit.start, unit.end)) {
          const { parameter } = piece.slot
          if (!(parameter.name in manifest.parameters)) continue
          writeValues(target, piece.offset - unit.start, await reader.read(parameter, kind, piece.start, piece.count))
        }
      }
      // So that what waits to be written does not pile up in memory.
      if (unit.onDisk) await binding().native.synchronize(DISK)
    }
  } finally {
    await reader.close()
  }
  zero.refresh()
}

function checkParameters(folder: string, manifest: Manifest, zero: Zero, strict: boolean): void {
  const own = new Map<string, Parameter>(
    zero.units.flatMap((unit) => unit.layout.slots.map(({ parameter }) => [parameter.name, parameter] as const)),
  )
  const missing = [...own.keys()].filter((name) => !(name in manifest.parameters))
  // A pipeline stage has only a part of the parameters: what it lacks is another's.
  const unexpected = Object.keys(manifest.parameters).filter((name) => !own.has(name))
  const partial = zero.options.world.size > zero.options.group.size
  if (strict && (missing.length || (unexpected.length && !partial))) {
    throw new ZeroshardError(
      'CHECKPOINT',
      `${folder}: is of another model; it lacks ${list(missing)} and has besides ${list(unexpected)}`,
    )
  }
  for (const [name, { shape }] of Object.entries(manifest.parameters)) {
    const parameter = own.get(name)
    if (parameter && parameter.wholeShape.join() !== shape.join()) {
      throw new ZeroshardError(
        'CHECKPOINT',
        `${folder}: ${name} is [${shape.join(', ')}], the model's is [${parameter.wholeShape.join(', ')}]`,
      )
    }
  }
}

const list = (names: readonly string[]): string =>
  names.length ? `${names.slice(0, 3).join(', ')}${names.length > 3 ? ` and ${names.length - 3} more` : ''}` : 'nothing'

export interface Values {
  dtype: DType
  array: NumericArray
}

/** Copies values to a flat buffer's elements from `offset`, in its dtype. */
export function writeValues(target: Flat, offset: number, { dtype, array }: Values): void {
  unscoped(() => {
    const source = tensor(array, [array.length], { dtype, category: 'buffers' })
    target.write(offset, source)
    source.dispose()
  })
}

/** Reads parts of parameters from a checkpoint's files, however they were cut when it was written. */
export class SliceReader {
  readonly #files = new Map<string, SafetensorsFile>()
  readonly #index = new Map<string, SliceEntry[]>()

  constructor(
    readonly folder: string,
    readonly manifest: Manifest,
  ) {
    for (const slice of manifest.slices) {
      const key = `${slice.kind} ${slice.parameter}`
      const known = this.#index.get(key)
      if (known) known.push(slice)
      else this.#index.set(key, [slice])
    }
  }

  /** The values of a piece of a parameter. @throws CHECKPOINT where the checkpoint lacks some. */
  async read(parameter: Parameter, kind: Kind, start = 0, count = parameter.count): Promise<Values> {
    const { name } = parameter
    const wanted = [...runsOf(parameter.slice, start, count)]
    let values: Values | undefined
    let covered = 0
    for (const slice of this.#index.get(`${kind} ${name}`) ?? []) {
      const shape = this.manifest.parameters[name]?.shape as number[]
      const there = [...runsOf(slice.cut && { ...slice.cut, wholeShape: shape }, slice.start, slice.count)]
      const common = intersect(wanted, there)
      if (common.length === 0) continue
      const last = common[common.length - 1] as (typeof common)[number]
      const first = common[0]?.theirs as number
      const end = last.theirs + last.count
      const { bytes, dtype } = await this.#bytes(slice, first - slice.start, end - first)
      values ??= { dtype, array: arrayOf(dtype, count) }
      if (values.dtype !== dtype)
        throw new ZeroshardError(
          'CHECKPOINT',
          `${this.folder}: ${kind} ${name} is ${dtype} here and ${values.dtype} there`,
        )
      const source = arrayOf(dtype, end - first, bytes)
      for (const { mine, theirs, count: n } of common) {
        values.array.set(source.subarray(theirs - first, theirs - first + n) as never, mine - start)
        covered += n
      }
    }
    if (covered !== count || !values) {
      throw new ZeroshardError(
        'CHECKPOINT',
        `${this.folder}: holds ${covered} of ${count} elements of ${kind} ${name} from ${start}; it is incomplete`,
      )
    }
    return values
  }

  async #bytes(slice: SliceEntry, start: number, count: number): Promise<{ bytes: Uint8Array; dtype: DType }> {
    let file = this.#files.get(slice.file)
    if (!file) this.#files.set(slice.file, (file = await SafetensorsFile.open(join(this.folder, slice.file))))
    return { bytes: await file.read(slice.key, start, count), dtype: file.entry(slice.key).dtype }
  }

  async close(): Promise<void> {
    for (const file of this.#files.values()) await file.close()
  }
}

function arrayOf(dtype: DType, count: number, bytes?: Uint8Array): NumericArray {
  const buffer = (bytes?.buffer as ArrayBuffer | undefined) ?? new ArrayBuffer(count * bytesPerElement[dtype])
  return dtype === 'f32' ? new Float32Array(buffer, 0, count) : new Uint16Array(buffer, 0, count)
}

/** What two ascending lists of runs have in common, in the coordinates of both parts. */
function intersect(wanted: readonly Run[], there: readonly Run[]): { mine: number; theirs: number; count: number }[] {
  const common: { mine: number; theirs: number; count: number }[] = []
  for (let i = 0, j = 0; i < wanted.length && j < there.length; ) {
    const [a, b] = [wanted[i] as Run, there[j] as Run]
    const from = Math.max(a.whole, b.whole)
    const to = Math.min(a.whole + a.count, b.whole + b.count)
    if (from < to) common.push({ mine: a.local + from - a.whole, theirs: b.local + from - b.whole, count: to - from })
    if (a.whole + a.count < b.whole + b.count) i++
    else j++
  }
  return common
}

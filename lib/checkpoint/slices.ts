// Reads parts of parameters from a checkpoint's files, however they were cut when it was written. Whatever is read,
// BUCKET bytes of it, twice as many in tensors, and SPAN bytes of files are in memory at once.

import { join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { binding } from '../binding/native.js'
import type { Parameter } from '../nn/parameter.js'
import { type Run, runsOf, type Slice, sliceShape } from '../nn/slice.js'
import { unscoped } from '../tensor/scope.js'
import { bytesPerElement, countOf, type DType, type NumericArray, type Tensor, tensor } from '../tensor/tensor.js'
import type { Kind, Manifest, SliceEntry } from './manifest.js'
import { SafetensorsFile } from './safetensors.js'

const [BUCKET, SPAN] = [8 << 20, 8 << 20]
/** Most runs of one read: their records are memory too. */
const MAX_RUNS = 4096

/** Elements that lie together in both: from `mine` of the part that is wanted, from `theirs` of a slice. */
interface Common {
  mine: number
  theirs: number
  count: number
}

interface Open {
  file: SafetensorsFile
  dtype: DType
}

export class SliceReader {
  readonly #files = new Map<string, SafetensorsFile>()
  readonly #index = new Map<string, SliceEntry[]>()
  /** Made at first use, as large as is needed. */
  #values = new ArrayBuffer(0)
  #span = new Uint8Array(0)
  /** Bytes that were given since all before them were known to be used. */
  #queued = 0

  constructor(
    readonly folder: string,
    readonly manifest: Manifest,
    readonly limits = { bucket: BUCKET, span: SPAN },
  ) {
    for (const slice of manifest.slices) {
      const key = keyOf(slice.parameter, slice.kind)
      const known = this.#index.get(key)
      if (known) known.push(slice)
      else this.#index.set(key, [slice])
    }
  }

  has(parameter: string, kind: Kind): boolean {
    return this.#index.has(keyOf(parameter, kind))
  }

  /**
   * Gives elements [start, start + count) of a parameter's part to `put`, piece by piece: `at` counts from `start`; the
   * tensor is freed afterwards. @throws CHECKPOINT where the checkpoint lacks some.
   */
  async read(
    parameter: Parameter,
    kind: Kind,
    start: number,
    count: number,
    put: (at: number, values: Tensor) => void,
  ): Promise<void> {
    const { native } = binding()
    const most = this.limits.bucket / 4
    for (let at = 0; at < count; at += most) {
      const length = Math.min(most, count - at)
      const dtype = await this.#read(parameter, kind, start + at, length)
      const values = arrayOf(dtype, this.#values, length)
      const piece = unscoped(() => tensor(values, [length], { dtype, category: 'buffers' }))
      put(at, piece)
      piece.dispose()
      this.#queued += piece.bytes
      if (this.#queued < this.limits.bucket) continue
      await native.synchronize(-1) // else pieces would pile up behind work that is slower than the reading
      this.#queued = 0
    }
  }

  /** Puts the values together in #values. */
  async #read(parameter: Parameter, kind: Kind, start: number, count: number): Promise<DType> {
    const { name, slice: part } = parameter
    let dtype: DType | undefined
    let covered = 0
    const from = [...runsOf(part, start, 1)][0]?.whole ?? 0
    const to = ([...runsOf(part, start + count - 1, 1)][0]?.whole ?? 0) + 1
    for (const slice of this.#index.get(keyOf(name, kind)) ?? []) {
      const cut = slice.cut && { ...slice.cut, wholeShape: this.manifest.parameters[name]?.shape as number[] }
      const common = intersect(runsOf(part, start, count), runsWithin(cut, slice.start, slice.count, from, to))
      let open: Open | undefined
      for (const group of grouped(common, this.limits.span / 4)) {
        open ??= await this.#open(slice)
        dtype ??= open.dtype
        if (open.dtype !== dtype) {
          throw new ZeroshardError(
            'CHECKPOINT',
            `${this.folder}: ${kind} ${name} is ${dtype} in one file and ${open.dtype} in ${slice.file}`,
          )
        }
        covered += await this.#readGroup(open, slice, group, start, count)
      }
    }
    if (covered !== count || !dtype) {
      throw new ZeroshardError(
        'CHECKPOINT',
        `${this.folder}: holds ${covered} of ${count} elements of ${kind} ${name} from ${start}; it is incomplete`,
      )
    }
    return dtype
  }

  async #open(slice: SliceEntry): Promise<Open> {
    let file = this.#files.get(slice.file)
    if (!file) this.#files.set(slice.file, (file = await SafetensorsFile.open(join(this.folder, slice.file))))
    return { file, dtype: file.entry(slice.key).dtype }
  }

  /** One read of the file; straight to its place where the elements lie together there too. */
  async #readGroup(
    { file, dtype }: Open,
    { key, start: base }: SliceEntry,
    group: Common[],
    start: number,
    count: number,
  ): Promise<number> {
    const [first, last] = [group[0] as Common, group[group.length - 1] as Common]
    const size = bytesPerElement[dtype]
    if (this.#values.byteLength < count * size) this.#values = new ArrayBuffer(count * size)
    const values = arrayOf(dtype, this.#values, count)
    const span = last.theirs + last.count - first.theirs
    if (group.length === 1) {
      const place = new Uint8Array(this.#values, (first.mine - start) * size, span * size)
      await file.read(key, first.theirs - base, span, place)
      return span
    }
    if (this.#span.length < span * size) this.#span = new Uint8Array(span * size)
    await file.read(key, first.theirs - base, span, this.#span)
    const source = arrayOf(dtype, this.#span.buffer as ArrayBuffer, span)
    let covered = 0
    for (const { mine, theirs, count: length } of group) {
      const from = theirs - first.theirs
      values.set(source.subarray(from, from + length) as never, mine - start)
      covered += length
    }
    return covered
  }

  async close(): Promise<void> {
    for (const file of this.#files.values()) await file.close()
    this.#files.clear()
  }
}

const keyOf = (parameter: string, kind: Kind): string => `${kind} ${parameter}`

function arrayOf(dtype: DType, buffer: ArrayBuffer, count: number): NumericArray {
  const Values = bytesPerElement[dtype] === 1 ? Uint8Array : dtype === 'f32' ? Float32Array : Uint16Array
  return new Values(buffer, 0, count)
}

/** Of the runs of elements [start, start + count) of a part, those that can lie in [from, to) of the whole. */
function runsWithin(cut: Slice | undefined, start: number, count: number, from: number, to: number): Generator<Run> {
  let [first, end] = [from, to]
  if (cut) {
    const [whole, part] = [cut.wholeShape, sliceShape(cut)].map((shape) => countOf(shape.slice(cut.dim))) as [
      number,
      number,
    ]
    first = Math.floor(from / whole) * part
    end = Math.ceil(to / whole) * part
  }
  first = Math.max(first, start)
  return runsOf(cut, first, Math.min(end, start + count) - first)
}

/** What two ascending lists of runs have in common, in the coordinates of both parts. */
function* intersect(mine: Generator<Run>, theirs: Generator<Run>): Generator<Common> {
  let [a, b] = [mine.next(), theirs.next()]
  while (!a.done && !b.done) {
    const [x, y] = [a.value, b.value]
    const from = Math.max(x.whole, y.whole)
    const [xEnd, yEnd] = [x.whole + x.count, y.whole + y.count]
    const to = Math.min(xEnd, yEnd)
    if (from < to) yield { mine: x.local + from - x.whole, theirs: y.local + from - y.whole, count: to - from }
    if (xEnd < yEnd) a = mine.next()
    else b = theirs.next()
  }
}

/** Runs that are read together: what lies between the first and the last is at most `span` elements. */
function* grouped(runs: Generator<Common>, span: number): Generator<Common[]> {
  let group: Common[] = []
  for (const run of runs) {
    const first = group[0]
    if (first && (run.theirs + run.count - first.theirs > span || group.length === MAX_RUNS)) {
      yield group
      group = []
    }
    group.push(run)
  }
  if (group.length) yield group
}

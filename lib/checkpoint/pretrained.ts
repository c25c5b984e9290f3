// Initial weights from a Hugging Face folder: one model.safetensors, or shards with an index. Each rank reads the byte
// ranges of its own part. Names are Hugging Face's, which are our models' own.

import { readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import type { Module } from '../nn/module.js'
import type { Parameter } from '../nn/parameter.js'
import { type Run, runsOf } from '../nn/slice.js'
import type { Flat } from '../parallel/zero/flat.js'
import { piecesIn, type UnitLayout } from '../parallel/zero/layout.js'
import { unscoped } from '../tensor/scope.js'
import { tensor } from '../tensor/tensor.js'
import { SafetensorsFile } from './safetensors.js'

/** Elements that are in memory at once while reading: 16 MiB of f32. */
const CHUNK = 4 * 2 ** 20

/** What the loader needs of ZeRO: units whose master holds elements [start, end). */
export interface WeightTarget {
  readonly units: Iterable<{ layout: UnitLayout; start: number; end: number; master: Flat }>
  /** Makes the model's copies from the masters, on every rank. */
  refresh(): void
}

/** Fills this rank's part of the weights from `folder`. Collective. */
export async function loadPretrained(folder: string, model: Module, target: WeightTarget): Promise<void> {
  const weights = await PretrainedWeights.open(folder, model)
  try {
    for (const unit of target.units)
      for (const { slot, start, count, offset } of piecesIn(unit.layout, unit.start, unit.end))
        await weights.copy(slot.parameter, start, count, unit.master, offset - unit.start)
  } finally {
    await weights.close()
  }
  target.refresh()
}

/** The weights of a Hugging Face folder, checked against a model: every parameter is there, with its shape. */
export class PretrainedWeights {
  private constructor(
    private readonly files: readonly SafetensorsFile[],
    /** By parameter: the file and the name there. */
    private readonly places: ReadonlyMap<string, { file: SafetensorsFile; key: string }>,
  ) {}

  /** @throws CHECKPOINT naming what is missing, unexpected or of another shape. */
  static async open(folder: string, model: Module): Promise<PretrainedWeights> {
    const files: SafetensorsFile[] = []
    try {
      for (const name of await weightFiles(folder)) files.push(await SafetensorsFile.open(join(folder, name)))
      return new PretrainedWeights(files, match(folder, files, model))
    } catch (error) {
      for (const file of files) await file.close()
      throw error
    }
  }

  /** Elements [start, start + count) of this process's part of a parameter into `target` from `offset` on. */
  async copy(parameter: Parameter, start: number, count: number, target: Flat, offset: number): Promise<void> {
    const { file, key } = this.places.get(parameter.name) as { file: SafetensorsFile; key: string }
    const { dtype } = file.entry(key)
    for (const batch of batches(runsOf(parameter.slice, start, count))) {
      const { buffer } = await file.read(key, batch.whole, batch.span)
      const span = dtype === 'f32' ? new Float32Array(buffer) : new Uint16Array(buffer)
      unscoped(() => {
        const source = tensor(pick(span, batch), [batch.length], { dtype, category: 'buffers' })
        target.write(offset + batch.local - start, source)
        source.dispose()
      })
    }
  }

  async close(): Promise<void> {
    for (const file of this.files) await file.close()
  }
}

/** Runs that are read at once: in the part they lie together, in the file from `whole` on within `span` elements. */
interface Batch {
  local: number
  whole: number
  length: number
  span: number
  runs: Run[]
}

/** A part that is cut along an inner dim is many short runs: a span of at most a chunk is read for many of them. */
function* batches(runs: Iterable<Run>): Generator<Batch> {
  let open: Batch | undefined
  for (const { local, whole, count } of runs) {
    for (let done = 0; done < count; done += CHUNK) {
      const run = { local: local + done, whole: whole + done, count: Math.min(CHUNK, count - done) }
      const span = open ? run.whole + run.count - open.whole : 0
      if (open && run.whole >= open.whole && span <= CHUNK) {
        open.runs.push(run)
        open.length += run.count
        open.span = span
        continue
      }
      if (open) yield open
      open = { local: run.local, whole: run.whole, length: run.count, span: run.count, runs: [run] }
    }
  }
  if (open) yield open
}

function pick<A extends Float32Array | Uint16Array>(span: A, { local, whole, length, runs }: Batch): A {
  if (length === span.length) return span
  const part = span.slice(0, length) as A
  for (const run of runs) part.set(span.subarray(run.whole - whole, run.whole - whole + run.count), run.local - local)
  return part
}

/** As transformers looks for them: one file, else an index; else every *.safetensors there is. */
async function weightFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch((cause: Error) => {
    throw new ZeroshardError('CHECKPOINT', `${folder}: ${cause.message}`, { cause })
  })
  if (names.includes('model.safetensors')) return ['model.safetensors']
  const index = 'model.safetensors.index.json'
  if (names.includes(index)) return indexedFiles(join(folder, index))
  const all = names.filter((name) => name.endsWith('.safetensors')).sort()
  if (all.length) return all
  throw new ZeroshardError(
    'CHECKPOINT',
    `${folder}: has no *.safetensors${names.some((name) => /\.(bin|pt|pth)$/.test(name)) ? '; save the model again with transformers, which writes them' : ''}`,
  )
}

async function indexedFiles(path: string): Promise<string[]> {
  const bad = (why: string): never => {
    throw new ZeroshardError('CHECKPOINT', `${path}: ${why}`)
  }
  let map: unknown
  try {
    map = (JSON.parse(await readFile(path, 'utf8')) as { weight_map?: unknown } | null)?.weight_map
  } catch (cause) {
    return bad(`cannot be read: ${(cause as Error).message}`)
  }
  if (!map || typeof map !== 'object') return bad('has no weight_map')
  const files = [...new Set(Object.values(map) as unknown[])]
  for (const name of files) {
    if (typeof name !== 'string' || basename(name) !== name || !name.endsWith('.safetensors'))
      return bad(`names a file outside its folder: ${JSON.stringify(name)}`)
  }
  return files as string[]
}

/** Buffers that older files hold beside the weights: GPT-2's causal mask, Llama's frequencies. */
const buffers = [/(^|\.)h\.\d+\.attn\.(bias|masked_bias)$/, /(^|\.)rotary_emb\.inv_freq$/]
/** What a file of the model without its head leaves out in front of names. */
const bases = ['transformer.', 'model.']

function match(
  folder: string,
  files: readonly SafetensorsFile[],
  model: Module,
): Map<string, { file: SafetensorsFile; key: string }> {
  const found = keysOf(folder, files)
  const left = new Set(found.keys())
  const bare = bases.filter((base) => ![...left].some((key) => key.startsWith(base)))
  const written = (name: string): string => {
    const base = bare.find((prefix) => name.startsWith(prefix))
    return base ? name.slice(base.length) : name
  }
  const places = new Map<string, { file: SafetensorsFile; key: string }>()
  const missing: string[] = []
  model.namedParameters()
  for (const [parameter, names] of model.parameterPlaces()) {
    const keys = names.map(written)
    const key = keys.find((name) => left.has(name))
    for (const name of keys) left.delete(name)
    if (key === undefined) {
      missing.push(parameter.name)
      continue
    }
    const file = found.get(key) as SafetensorsFile
    checkEntry(file, key, parameter)
    places.set(parameter.name, { file, key })
  }
  const unexpected = [...left].filter((key) => !buffers.some((pattern) => pattern.test(key)))
  if (missing.length || unexpected.length) {
    throw new ZeroshardError(
      'CHECKPOINT',
      `${folder}: its weights are of another model than its config.json; missing: ${list(missing)}; unexpected: ${list(unexpected)}`,
    )
  }
  return places
}

function keysOf(folder: string, files: readonly SafetensorsFile[]): Map<string, SafetensorsFile> {
  const found = new Map<string, SafetensorsFile>()
  for (const file of files) {
    for (const key of [...file.entries.keys(), ...file.foreign.keys()]) {
      const other = found.get(key)
      if (other) {
        throw new ZeroshardError(
          'CHECKPOINT',
          `${folder}: '${key}' is in ${basename(other.path)} and in ${basename(file.path)}; keep one, or add model.safetensors.index.json`,
        )
      }
      found.set(key, file)
    }
  }
  return found
}

function checkEntry(file: SafetensorsFile, key: string, parameter: Parameter): void {
  const { dtype, shape } = file.entry(key)
  if (!['f32', 'bf16', 'f16'].includes(dtype))
    throw new ZeroshardError('CHECKPOINT', `${file.path}: '${key}' is ${dtype}; weights are f32, bf16 or f16`)
  if (shape.join() !== parameter.wholeShape.join()) {
    throw new ZeroshardError(
      'CHECKPOINT',
      `${file.path}: '${key}' is [${shape.join(', ')}], the model's ${parameter.name} is [${parameter.wholeShape.join(', ')}]`,
    )
  }
}

const list = (names: readonly string[]): string =>
  names.length ? `${names.slice(0, 3).join(', ')}${names.length > 3 ? ` and ${names.length - 3} more` : ''}` : 'nothing'

// What a checkpoint's manifest.json says, and the checks that a manifest from outside must pass.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { lstat, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { sliceShape } from '../nn/slice.js'
import { countOf } from '../tensor/tensor.js'

/** 'weight', or the name of an optimizer state. */
export type Kind = string

/** Elements [start, start + count) of a parameter's part, flattened, in `file` under `key`. */
export interface SliceEntry {
  parameter: string
  kind: Kind
  file: string
  key: string
  start: number
  count: number
  /** Which part of the whole parameter they are counted in; absent: the whole. */
  cut?: { dim: number; ranges: [number, number][] }
}
export interface FileEntry {
  name: string
  bytes: number
  sha256: string
}

/** All that a resumed run needs besides tensors. */
export interface TrainingState {
  step: number
  /** Updates that were applied (steps less skipped ones). */
  updates: number
  skippedSteps: number
  /** Samples consumed since the very first step. */
  samples: number
  seed: number
  /** Of the loss scaler, where there is one. */
  scaler?: Record<string, number>
}

export interface Manifest {
  format: 'zeroshard-checkpoint'
  version: 1
  state: TrainingState
  parameters: Record<string, { shape: number[]; dtype: string }>
  layout: { world: number; mesh: Record<string, number>; stage: number }
  model?: Record<string, unknown>
  tokenizer?: string
  client: Record<string, unknown>
  files: FileEntry[]
  slices: SliceEntry[]
}

/** Reads and checks a manifest. */
export async function readManifest(folder: string): Promise<Manifest> {
  const path = join(folder, 'manifest.json')
  const text = await readFile(path, 'utf8').catch((cause: Error) => {
    throw new ZeroshardError('CHECKPOINT', `${path}: ${cause.message}; this is no whole checkpoint`, { cause })
  })
  return parseManifest(path, text)
}

export function parseManifest(path: string, text: string): Manifest {
  const bad = (why: string): never => {
    throw new ZeroshardError('CHECKPOINT', `${path}: ${why}`)
  }
  let value: Manifest
  try {
    value = JSON.parse(text) as Manifest
  } catch {
    return bad('is not JSON; it is torn or altered')
  }
  if (value?.format !== 'zeroshard-checkpoint') return bad('is not a zeroshard checkpoint')
  if (value.version !== 1) return bad(`has version ${String(value.version)}, this program reads 1`)
  if (!Array.isArray(value.files) || !Array.isArray(value.slices) || typeof value.parameters !== 'object')
    return bad('lacks files, slices or parameters')
  const files = new Set<string>()
  for (const { name, bytes, sha256 } of value.files) {
    if (typeof name !== 'string' || !/^[A-Za-z0-9._-]+$/.test(name) || name.startsWith('.'))
      return bad(`names a file outside its folder: ${JSON.stringify(name)}`)
    if (!Number.isSafeInteger(bytes) || bytes < 0 || !/^[0-9a-f]{64}$/.test(sha256))
      return bad(`has no valid size and checksum of ${name}`)
    files.add(name)
  }
  for (const slice of value.slices) {
    const shape = value.parameters[slice.parameter]?.shape
    const natural =
      Number.isSafeInteger(slice.start) && Number.isSafeInteger(slice.count) && slice.start >= 0 && slice.count >= 0
    if (!shape || !natural || !files.has(slice.file) || !/^[a-z_]+$/.test(slice.kind) || !validCut(slice.cut, shape))
      return bad(`has a bad slice ${JSON.stringify(slice).slice(0, 200)}`)
    if (slice.start + slice.count > countOf(slice.cut ? sliceShape({ ...slice.cut, wholeShape: shape }) : shape))
      return bad(`has a slice beyond the end of ${slice.parameter}`)
  }
  const { step, updates, samples } = value.state ?? {}
  if (![step, updates, samples].every((n) => Number.isSafeInteger(n) && (n as number) >= 0))
    return bad('has no valid training state')
  return value
}

/** Ranges of one dim, ascending, inside the shape. */
function validCut(cut: SliceEntry['cut'], shape: readonly number[]): boolean {
  if (cut === undefined) return true
  const size = shape[cut.dim]
  let last = 0
  return (
    size !== undefined &&
    Array.isArray(cut.ranges) &&
    cut.ranges.every((range) => {
      const [from, to] = range
      const fits = Number.isSafeInteger(from) && Number.isSafeInteger(to) && from >= last && to >= from && to <= size
      last = to
      return fits
    })
  )
}

/** Checks that every file has the size and checksum of the manifest; throws naming the first that has not. */
export async function verifyFiles(folder: string, manifest: Manifest): Promise<void> {
  for (const { name, bytes, sha256 } of manifest.files) {
    const path = join(folder, name)
    const stat = await lstat(path).catch((cause: Error) => {
      throw new ZeroshardError('CHECKPOINT', `${path}: ${cause.message}`, { cause })
    })
    if (!stat.isFile()) throw new ZeroshardError('CHECKPOINT', `${path}: is not a plain file`)
    if (stat.size !== bytes)
      throw new ZeroshardError('CHECKPOINT', `${path}: has ${stat.size} bytes, ${bytes} were written`)
    const hash = createHash('sha256')
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer)
    if (hash.digest('hex') !== sha256)
      throw new ZeroshardError('CHECKPOINT', `${path}: its bytes are not those that were written (checksum differs)`)
  }
}

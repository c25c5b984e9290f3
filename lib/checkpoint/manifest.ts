// What a checkpoint's manifest.json says, and the checks that a manifest from outside must pass before anything in it
// is believed. Its last key is a checksum of all before it.

import { createHash } from 'node:crypto'
import { lstat, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { sliceShape } from '../nn/slice.js'
import type { LossScaleState } from '../optim/loss-scale.js'
import { countOf } from '../tensor/tensor.js'
import { hashFile } from './thread.js'

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
  scaler?: LossScaleState
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
  const cannot = (cause: Error): never => {
    throw new ZeroshardError('CHECKPOINT', `${path}: ${cause.message}; this is no whole checkpoint`, { cause })
  }
  const stat = await lstat(path).catch(cannot)
  if (!stat.isFile()) throw new ZeroshardError('CHECKPOINT', `${path}: is not a plain file`)
  return parseManifest(path, await readFile(path, 'utf8').catch(cannot))
}

const digest = (text: string): string => createHash('sha256').update(text).digest('hex')

/** The text of manifest.json: the manifest with its checksum as the last key. */
export function manifestText(manifest: Manifest): string {
  const body = JSON.stringify(manifest)
  return `${body.slice(0, -1)},"checksum":"${digest(body)}"}\n`
}

const SEAL = /,"checksum":"([0-9a-f]{64})"\}\s*$/

/** @throws CHECKPOINT for anything that a save would not have written. */
export function parseManifest(path: string, text: string): Manifest {
  const bad: Bad = (why) => {
    throw new ZeroshardError('CHECKPOINT', `${path}: ${why}`)
  }
  const seal = SEAL.exec(text.slice(-200))
  if (!seal) return bad('does not end with a checksum; it is torn or no checkpoint of this program')
  const body = `${text.slice(0, text.length - (seal[0] as string).length)}}`
  if (digest(body) !== seal[1]) return bad('its bytes are not those that were written (checksum differs)')
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch {
    return bad('is not JSON; it is torn or altered')
  }
  if (!isRecord(value) || value.format !== 'zeroshard-checkpoint') return bad('is not a zeroshard checkpoint')
  if (value.version !== 1) return bad(`has version ${show(value.version)}, this program reads 1`)
  checkHead(value, bad)
  const files = checkFiles(value.files, bad)
  const parameters = checkParameters(value.parameters, bad)
  checkSlices(value.slices, files, parameters, bad)
  return { ...value, parameters } as unknown as Manifest
}

type Bad = (why: string) => never
type Parameters = Manifest['parameters']

const isRecord = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v)
const isNatural = (v: unknown): v is number => typeof v === 'number' && Number.isSafeInteger(v) && v >= 0

/** A value in a message; what nests too deep for the stack is not written out. */
function show(value: unknown): string {
  try {
    return (JSON.stringify(value) ?? String(value)).slice(0, 200)
  } catch {
    return 'something nested very deep'
  }
}

/** Everything but files, parameters and slices. */
function checkHead({ state, layout, client, model, tokenizer }: Record<string, unknown>, bad: Bad): void {
  const counts = ['step', 'updates', 'skippedSteps', 'samples', 'seed']
  if (!isRecord(state) || !counts.every((key) => isNatural(state[key]))) bad('has no valid training state')
  const { scaler = {} } = state
  if (!isRecord(scaler) || !Object.values(scaler).every(Number.isFinite)) bad('has no valid loss scale')
  if (!isRecord(layout) || !isNatural(layout.world) || layout.world < 1 || !isRecord(layout.mesh))
    bad('has no valid layout')
  if (![0, 1, 2, 3].includes(layout.stage as number)) bad(`has the ZeRO stage ${show(layout.stage)}`)
  if (!Object.values(layout.mesh).every((size) => isNatural(size) && size >= 1)) bad('has no valid mesh')
  if (!isRecord(client)) bad('has no valid client state')
  if (model !== undefined && !isRecord(model)) bad('has no valid model configuration')
  if (tokenizer !== undefined && typeof tokenizer !== 'string') bad('has no valid tokenizer')
}

/** Names to bytes. */
function checkFiles(given: unknown, bad: Bad): Map<string, number> {
  if (!Array.isArray(given)) return bad('lacks files')
  const files = new Map<string, number>()
  for (const file of given) {
    const { name, bytes, sha256 } = isRecord(file) ? file : ({} as Record<string, unknown>)
    if (typeof name !== 'string' || !/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}$/.test(name) || name === 'manifest.json')
      return bad(`names a file outside its folder: ${show(name)}`)
    if (!isNatural(bytes) || typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256))
      return bad(`has no valid size and checksum of ${name}`)
    if (files.has(name)) return bad(`names ${name} twice`)
    files.set(name, bytes)
  }
  return files
}

/** A copy without a prototype: no name finds what was not written. */
function checkParameters(given: unknown, bad: Bad): Parameters {
  if (!isRecord(given)) return bad('lacks parameters')
  const parameters: Parameters = Object.create(null)
  for (const [name, parameter] of Object.entries(given)) {
    const { shape, dtype } = isRecord(parameter) ? parameter : ({} as Record<string, unknown>)
    const fits = Array.isArray(shape) && shape.length <= 16 && shape.every(isNatural)
    if (name === '__proto__' || !fits || !Number.isSafeInteger(countOf(shape)) || typeof dtype !== 'string')
      return bad(`has no valid shape and type of ${show(name)}`)
    parameters[name] = { shape, dtype }
  }
  return parameters
}

/** Every slice lies in its parameter and its file, and those of a parameter cover it once, without gaps. */
function checkSlices(given: unknown, files: Map<string, number>, parameters: Parameters, bad: Bad): void {
  if (!Array.isArray(given)) bad('lacks slices')
  const room = new Map(files)
  const keys = new Set<string>()
  const groups = new Map<string, SliceEntry[]>()
  for (const value of given) {
    const slice = checkSlice(value, parameters, bad)
    const { file, key, kind, parameter, count } = slice
    // an element takes a byte at least: no slice can claim more than its file holds
    const left = (room.get(file) ?? -1) - count
    if (left < 0) bad(`has a slice beyond the end of ${show(file)}, or of a file it does not name`)
    room.set(file, left)
    const place = JSON.stringify([file, key])
    if (keys.has(place)) bad(`has ${show(key)} of ${file} twice`)
    keys.add(place)
    const group = JSON.stringify([parameter, kind])
    const others = groups.get(group)
    if (others) others.push(slice)
    else groups.set(group, [slice])
  }
  for (const slices of groups.values()) checkCover(slices, parameters, bad)
  for (const [name, { shape }] of Object.entries(parameters)) {
    if (countOf(shape) > 0 && !groups.has(JSON.stringify([name, 'weight']))) bad(`lacks the weights of ${show(name)}`)
  }
}

function checkSlice(value: unknown, parameters: Parameters, bad: Bad): SliceEntry {
  const wrong = (): never => bad(`has a bad slice ${show(value)}`)
  if (!isRecord(value)) return wrong()
  const { parameter, kind, file, key, start, count, cut } = value
  const shape = typeof parameter === 'string' ? parameters[parameter]?.shape : undefined
  if (!shape || typeof kind !== 'string' || !/^[a-z0-9_]{1,64}$/.test(kind)) return wrong()
  if (typeof file !== 'string' || typeof key !== 'string' || !isNatural(start) || !isNatural(count)) return wrong()
  if (cut !== undefined && !isCut(cut, shape)) return wrong()
  const part = cut ? sliceShape({ ...(cut as Cut), wholeShape: shape }) : shape
  if (start + count > countOf(part)) return bad(`has a slice beyond the end of ${show(parameter)}`)
  return value as unknown as SliceEntry
}

type Cut = NonNullable<SliceEntry['cut']>

/** Ranges of one dim, ascending, inside the shape. */
function isCut(cut: unknown, shape: readonly number[]): cut is Cut {
  if (!isRecord(cut) || !isNatural(cut.dim) || !Array.isArray(cut.ranges)) return false
  const size = shape[cut.dim]
  let last = 0
  return (
    size !== undefined &&
    cut.ranges.every((range: unknown) => {
      if (!Array.isArray(range) || range.length !== 2 || !range.every(isNatural)) return false
      const [from, to] = range as [number, number]
      const fits = from >= last && to >= from && to <= size
      last = to
      return fits
    })
  )
}

/** The slices of one parameter and kind: of each part they follow one another, and the parts make up the whole. */
function checkCover(slices: readonly SliceEntry[], parameters: Parameters, bad: Bad): void {
  const { parameter, kind, cut: firstCut } = slices[0] as SliceEntry
  const { shape } = parameters[parameter] as Parameters[string]
  const what = `${kind} of ${parameter.slice(0, 200)}`
  const parts = new Map<string, SliceEntry[]>()
  for (const slice of slices) {
    if (slice.cut?.dim !== firstCut?.dim) bad(`has the ${what} cut in two ways`)
    const part = JSON.stringify(slice.cut?.ranges ?? null)
    const others = parts.get(part)
    if (others) others.push(slice)
    else parts.set(part, [slice])
  }
  for (const part of parts.values()) {
    const { cut } = part[0] as SliceEntry
    const end = countOf(cut ? sliceShape({ ...cut, wholeShape: shape }) : shape)
    const spans = part.map(({ start, count }): Span => [start, start + count])
    if (!follows(spans, end)) bad(`has gaps or overlaps in the ${what}`)
  }
  if (!firstCut) return
  const ranges = [...parts.values()].flatMap(([slice]) => (slice as SliceEntry).cut?.ranges ?? [])
  if (!follows(ranges, shape[firstCut.dim] as number)) bad(`has gaps or overlaps between parts of the ${what}`)
}

type Span = [from: number, to: number]

/** Whether spans, in any order, make up [0, end) exactly once. */
function follows(spans: readonly Span[], end: number): boolean {
  let last = 0
  for (const [from, to] of [...spans].sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
    if (from !== last) return false
    last = to
  }
  return last === end
}

/** Checks that files (by default all) have the size and checksum of the manifest; throws naming the first that has not. */
export async function verifyFiles(
  folder: string,
  manifest: Manifest,
  files: readonly FileEntry[] = manifest.files,
): Promise<void> {
  for (const { name, bytes, sha256 } of files) {
    const path = join(folder, name)
    const stat = await lstat(path).catch((cause: Error) => {
      throw new ZeroshardError('CHECKPOINT', `${path}: ${cause.message}`, { cause })
    })
    if (!stat.isFile()) throw new ZeroshardError('CHECKPOINT', `${path}: is not a plain file`)
    if (stat.size !== bytes)
      throw new ZeroshardError('CHECKPOINT', `${path}: has ${stat.size} bytes, ${bytes} were written`)
    if ((await hashFile(path)).sha256 !== sha256)
      throw new ZeroshardError('CHECKPOINT', `${path}: its bytes are not those that were written (checksum differs)`)
  }
}

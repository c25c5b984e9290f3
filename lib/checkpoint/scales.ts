// The scales of 8-bit training in a checkpoint: one file for each pipeline stage, found by the names of its slots, so
// that any layout finds its own.

import { join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import type { Fp8 } from '../parallel/fp8/layers.js'
import { unscoped } from '../tensor/scope.js'
import { COPY, empty, runOp, type Tensor } from '../tensor/tensor.js'
import type { Manifest } from './manifest.js'
import { SafetensorsFile, safetensorsHead } from './safetensors.js'
import { FileStream, type Written } from './thread.js'

const NAME = /^fp8-\d{5}-of-\d{5}\.safetensors$/
const keys = ['scale', 'history'] as const

/** A copy of the scales, to be written in its own time. */
export class ScalesCopy {
  readonly name: string
  readonly #tensors: Tensor[]
  readonly #slots: string

  /** Of pipeline stage `stage` of `stages`. */
  constructor({ scales }: Fp8, stage: number, stages: number) {
    const padded = (index: number): string => String(index).padStart(5, '0')
    this.name = `fp8-${padded(stage)}-of-${padded(stages)}.safetensors`
    this.#slots = JSON.stringify(scales.slots.map(({ name }) => name))
    this.#tensors = [scales.scale, scales.history as Tensor].map((from) => {
      const copy = unscoped(() => empty(from.shape, { category: 'host' }))
      runOp('cast', [copy], [from], [], COPY)
      return copy
    })
  }

  async write(folder: string): Promise<Written> {
    const file = new FileStream(join(folder, this.name))
    try {
      const plans = this.#tensors.map(({ dtype, shape }, index) => ({ key: keys[index] as string, dtype, shape }))
      await file.write(safetensorsHead(plans, { slots: this.#slots }))
      for (const tensor of this.#tensors) await file.writeTensor(tensor)
      return await file.finish()
    } catch (error) {
      await file.abandon()
      throw error
    }
  }

  dispose(): void {
    for (const tensor of this.#tensors) tensor.dispose()
  }
}

/** The copy that this rank is to write: the first rank of each stage has one, once there is a history. */
export function copyOfScales(fp8: Fp8 | undefined, place: { stage: number; stages: number }): ScalesCopy | undefined {
  if (!fp8?.scales.known || !fp8.scales.history || fp8.scales.group.rank > 0 || fp8.scales.slots.length === 0)
    return undefined
  return new ScalesCopy(fp8, place.stage, place.stages)
}

/** Fills in what the checkpoint has; without any, a history begins. */
export async function loadScales(folder: string, manifest: Manifest, fp8: Fp8): Promise<void> {
  const { slots, history, scale, inverse, amax } = fp8.scales
  if (!history || slots.length === 0) return fp8.reloaded(false)
  const length = fp8.scales.recipe.amax_history_len
  const values = { scale: new Float32Array(slots.length).fill(1), history: new Float32Array(slots.length * length) }
  const own = new Map(slots.map(({ name }, index) => [name, index]))
  let found = 0
  for (const { name } of manifest.files.filter((file) => NAME.test(file.name))) {
    const file = await readFile(join(folder, name))
    for (const [row, slot] of file.slots.entries()) {
      const index = own.get(slot)
      if (index === undefined) continue
      found++
      values.scale[index] = file.scale[row] as number
      const newest = file.history.subarray(row * file.length, row * file.length + Math.min(length, file.length))
      values.history.set(newest, index * length)
    }
  }
  scale.write(values.scale)
  inverse.write(values.scale.map((value) => 1 / value))
  fp8.scales.spread()
  history.write(values.history)
  runOp('fill', [amax], [], [0])
  fp8.reloaded(found > 0)
}

interface Stored {
  slots: string[]
  length: number
  scale: Float32Array
  history: Float32Array
}

/** @throws CHECKPOINT for anything that a save would not have written. */
async function readFile(path: string): Promise<Stored> {
  const file = await SafetensorsFile.open(path)
  try {
    const slots = namesIn(file.metadata.slots ?? '')
    const [scale, history] = keys.map((key) => file.entry(key))
    const [n, length] = history?.shape ?? []
    const fits = slots && scale?.dtype === 'f32' && history?.dtype === 'f32' && scale.shape.join() === `${slots.length}`
    if (!slots || !fits || n !== slots.length || !length || history.shape.length !== 2)
      throw new ZeroshardError('CHECKPOINT', `${path}: holds no scales with their histories; it was altered`)
    const [scales, rows] = await Promise.all(keys.map(async (key) => floats(await file.read(key))))
    if (!scales?.every((value) => value > 0 && Number.isFinite(value)) || !rows?.every((value) => value >= 0))
      throw new ZeroshardError('CHECKPOINT', `${path}: has a scale or a largest value that is none; it was altered`)
    return { slots, length, scale: scales, history: rows }
  } finally {
    await file.close()
  }
}

const floats = (bytes: Uint8Array): Float32Array => new Float32Array(Uint8Array.from(bytes).buffer)

function namesIn(text: string): string[] | undefined {
  try {
    const names: unknown = JSON.parse(text)
    return Array.isArray(names) && names.every((name) => typeof name === 'string') ? names : undefined
  } catch {
    return undefined
  }
}

// Loading on any number of ranks and any stage: each rank reads only the byte ranges of its own part.

import { join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { piecesIn } from '../parallel/zero/layout.js'
import type { Zero } from '../parallel/zero/zero.js'
import { unscoped } from '../tensor/scope.js'
import { countOf, runOp, type Tensor, tensor } from '../tensor/tensor.js'
import type { Kind, Manifest, SliceEntry } from './manifest.js'
import { SafetensorsFile } from './safetensors.js'

export interface LoadOptions {
  /** False: weights alone. */
  optimizer?: boolean
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
  checkParameters(folder, manifest, zero, options.strict ?? true)
  const files = new Map<string, SafetensorsFile>()
  const index = new Map<string, SliceEntry[]>()
  for (const slice of manifest.slices) {
    const key = `${slice.kind} ${slice.parameter}`
    index.set(key, [...(index.get(key) ?? []), slice])
  }
  const read = async (
    slice: SliceEntry,
    start: number,
    count: number,
  ): Promise<{ bytes: Uint8Array; dtype: 'f32' | 'bf16' | 'f16' }> => {
    let file = files.get(slice.file)
    if (!file) files.set(slice.file, (file = await SafetensorsFile.open(join(folder, slice.file))))
    return {
      bytes: await file.read(slice.key, start - slice.start, count),
      dtype: file.entry(slice.key).dtype as 'f32',
    }
  }
  try {
    for (const unit of zero.units) {
      const targets: [Kind, Tensor | undefined][] = [['weight', unit.master]]
      if (options.optimizer ?? true) targets.push(['exp_avg', unit.m], ['exp_avg_sq', unit.v])
      for (const [kind, target] of targets) {
        if (!target) continue
        for (const piece of piecesIn(unit.layout, unit.start, unit.end)) {
          const { name } = piece.slot.parameter
          const slices = index.get(`${kind} ${name}`)
          if (!slices && !(name in manifest.parameters)) continue
          await fill(
            target,
            piece.offset - unit.start,
            { name, kind, start: piece.start, count: piece.count },
            slices ?? [],
            read,
          )
        }
      }
    }
  } finally {
    for (const file of files.values()) await file.close()
  }
  zero.refresh()
}

function checkParameters(folder: string, manifest: Manifest, zero: Zero, strict: boolean): void {
  const own = new Map(
    zero.units.flatMap((unit) => unit.layout.slots.map(({ parameter }) => [parameter.name, parameter] as const)),
  )
  const missing = [...own.keys()].filter((name) => !(name in manifest.parameters))
  const unexpected = Object.keys(manifest.parameters).filter((name) => !own.has(name))
  if (strict && (missing.length || unexpected.length)) {
    throw new ZeroshardError(
      'CHECKPOINT',
      `${folder}: is of another model; it lacks ${list(missing)} and has besides ${list(unexpected)}`,
    )
  }
  for (const [name, { shape }] of Object.entries(manifest.parameters)) {
    const parameter = own.get(name)
    if (parameter && (parameter.shape.join() !== shape.join() || parameter.count !== countOf(shape))) {
      throw new ZeroshardError(
        'CHECKPOINT',
        `${folder}: ${name} is [${shape.join(', ')}], the model's is [${parameter.shape.join(', ')}]`,
      )
    }
  }
}

const list = (names: readonly string[]): string =>
  names.length ? `${names.slice(0, 3).join(', ')}${names.length > 3 ? ` and ${names.length - 3} more` : ''}` : 'nothing'

interface Wanted {
  name: string
  kind: Kind
  start: number
  count: number
}

async function fill(
  target: Tensor,
  offset: number,
  wanted: Wanted,
  slices: readonly SliceEntry[],
  read: (
    slice: SliceEntry,
    start: number,
    count: number,
  ) => Promise<{ bytes: Uint8Array; dtype: 'f32' | 'bf16' | 'f16' }>,
): Promise<void> {
  const end = wanted.start + wanted.count
  let covered = 0
  for (const slice of slices) {
    const from = Math.max(slice.start, wanted.start)
    const to = Math.min(slice.start + slice.count, end)
    if (from >= to) continue
    const { bytes, dtype } = await read(slice, from, to - from)
    const values = dtype === 'f32' ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer)
    unscoped(() => {
      const source = tensor(values, [to - from], { dtype, category: 'buffers' })
      const view = target.view([to - from], offset + from - wanted.start)
      runOp('cast', [view], [source])
      view.dispose()
      source.dispose()
    })
    covered += to - from
  }
  if (covered !== wanted.count) {
    throw new ZeroshardError(
      'CHECKPOINT',
      `the checkpoint holds ${covered} of ${wanted.count} elements of ${wanted.kind} ${wanted.name} from ${wanted.start}; it is incomplete`,
    )
  }
}

// What of the units lies where: on the device, in host memory, on disk. Decided before any of it has memory, so that
// the disk's room is asked for at once. A unit's states go together; `ratio` goes by whole units.

import { ZeroshardError } from '../../binding/errors.js'
import type { SwapOptions } from '../../binding/native.js'
import type { Optimizer } from '../../optim/optimizer.js'
import type { DType } from '../../tensor/tensor.js'
import { bytesPerElement } from '../../tensor/tensor.js'
import type { UnitLayout } from './layout.js'
import { padded, SwapFile } from './swap-file.js'
import type { Lifetimes } from './unit.js'

export interface OffloadTarget {
  device: 'cpu' | 'nvme'
  /** Folder on the disk, of 'nvme'. */
  path?: string
}

/** Undefined parts stay on the device. */
export interface OffloadOptions {
  /** States, and the f32 master values of 16-bit training. */
  optimizer?: OffloadTarget & {
    /** Of nvme: parts that are in memory at a time; from 2 on the disk works beside the update. */
    bufferCount: number
    /** The part of them that is offloaded; the rest stays on the device. */
    ratio: number
  }
  /** Shards of parameters. Stage 3 only. */
  parameters?: OffloadTarget & {
    /** Of nvme: elements of this rank's shards that stay in host memory, the first ones. */
    maxInMemory: number
  }
  io?: Partial<SwapOptions>
}

export type Place = 'device' | 'host' | 'disk'

export interface UnitPlaces {
  optimizer: Place
  parameters: Place
}

/** The files of this rank, where there are any. */
export interface SwapFiles {
  optimizer?: SwapFile | undefined
  parameters?: SwapFile | undefined
}

export const filesOf = ({ optimizer, parameters }: SwapFiles): SwapFile[] =>
  [optimizer, parameters].filter((file) => file !== undefined)

/** Why disks are used in a slower way than they could be. */
export const notesOf = (files: SwapFiles): string[] => [
  ...new Set(filesOf(files).flatMap(({ native }) => (native.note ? [`nvme_path: ${native.note}`] : []))),
]

/** The same on every rank, also on one that has nothing to put there. */
export const usesDisk = ({ optimizer, parameters }: OffloadOptions = {}): boolean =>
  optimizer?.device === 'nvme' || parameters?.device === 'nvme'

interface PlanRequest {
  lifetimes: Lifetimes
  dtype: DType
  optimizer: Optimizer
  offload: OffloadOptions
}

const placeOf = (target: OffloadTarget | undefined): Place =>
  !target ? 'device' : target.device === 'cpu' ? 'host' : 'disk'

/** Places of the units' buffers. `layouts` are in their own order, which is the reverse of the updates'. */
export function planPlaces(layouts: readonly UnitLayout[], request: PlanRequest): UnitPlaces[] {
  const { lifetimes, offload } = request
  const places = layouts.map((): UnitPlaces => ({ optimizer: 'device', parameters: 'device' }))
  let [seen, moved] = [0, 0]
  for (const index of [...layouts.keys()].reverse()) {
    const { size, trainable } = layouts[index] as UnitLayout
    if (!trainable) continue
    seen += size
    // The nearest to the ratio among those seen so far: what stays lies between what is fetched.
    if (moved + size / 2 > seen * (offload.optimizer?.ratio ?? 1)) continue
    moved += size
    ;(places[index] as UnitPlaces).optimizer = placeOf(offload.optimizer)
  }
  let inMemory = 0
  for (const [index, { persistent, shardSize }] of layouts.entries()) {
    if (persistent || lifetimes.parameters !== 'shard') continue
    let place = placeOf(offload.parameters)
    if (place === 'disk' && inMemory + shardSize <= (offload.parameters?.maxInMemory ?? 0)) {
      inMemory += shardSize
      place = 'host'
    }
    ;(places[index] as UnitPlaces).parameters = place
  }
  return places
}

/** Bytes on disk, by what they are. */
export function planBytes(
  layouts: readonly UnitLayout[],
  places: readonly UnitPlaces[],
  { lifetimes, dtype, optimizer }: PlanRequest,
): { optimizer: number; parameters: number } {
  const sum = { optimizer: 0, parameters: 0 }
  for (const [index, { size, shardSize, trainable }] of layouts.entries()) {
    const own = lifetimes.optimizer === 'shard' ? shardSize : size
    const place = places[index] as UnitPlaces
    const buffers = optimizer.states.length + (dtype === 'f32' ? 0 : 1)
    if (trainable && place.optimizer === 'disk') sum.optimizer += buffers * padded(own * 4)
    if (place.parameters === 'disk') sum.parameters += padded(own * bytesPerElement[dtype])
  }
  return sum
}

const ioDefaults: SwapOptions = {
  blockSize: 2 ** 20,
  queueDepth: 8,
  threads: 1,
  singleSubmit: false,
  overlapEvents: true,
}

/** Opens what is needed. @throws IO where a disk has no room for it. */
export function planOffload(
  layouts: readonly UnitLayout[],
  request: PlanRequest,
  rank: number,
): { places: UnitPlaces[]; files: SwapFiles } {
  const { optimizer, parameters, io = {} } = request.offload
  const places = planPlaces(layouts, request)
  const bytes = planBytes(layouts, places, request)
  const open = (target: OffloadTarget | undefined, size: number): SwapFile | undefined =>
    target && size > 0 ? new SwapFile(target.path as string, rank, size, { ...ioDefaults, ...io }) : undefined
  const files: SwapFiles = { optimizer: open(optimizer, bytes.optimizer) }
  try {
    files.parameters = open(parameters, bytes.parameters)
  } catch (error) {
    files.optimizer?.close()
    throw error
  }
  return { places, files }
}

/** @throws CONFIG where the parts do not fit each other. */
export function checkOffload(stage: number, { optimizer, parameters }: OffloadOptions): void {
  const wrong = (message: string): never => {
    throw new ZeroshardError('CONFIG', `[offload] ${message}`)
  }
  if (parameters && stage !== 3)
    wrong(`parameters are whole on every rank at stage ${stage}; offload them at stage 3, or only the optimizer`)
  for (const [name, target] of Object.entries({ optimizer, parameters }))
    if (target?.device === 'nvme' && !target.path) wrong(`${name} on nvme need a path: a folder on the disk`)
  const { ratio = 1, bufferCount = 1 } = optimizer ?? {}
  if (!(ratio >= 0 && ratio <= 1)) wrong(`ratio ${ratio} is not from 0 to 1`)
  if (!(Number.isInteger(bufferCount) && bufferCount >= 1))
    wrong(`bufferCount ${bufferCount} is not a positive integer`)
}

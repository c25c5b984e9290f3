// Updates of what lies on disk: part by part it is brought into a ring of buffers, updated, and written back. Reads of
// the next parts are queued before the write of this one, so that the disk works beside the update.

import { tidy, unscoped } from '../../tensor/scope.js'
import { bytesPerElement, empty, runOp, type Tensor } from '../../tensor/tensor.js'
import { CHUNK, DiskFlat, type Flat } from './flat.js'
import { type Holding, type Span, spansIn } from './spans.js'
import { padded, type SwapFile, type SwapRange } from './swap-file.js'
import type { Unit } from './unit.js'

/** Elements; below it a disk is slow. */
const SMALLEST = 2 ** 12
/** The ring is at most this part of what lies on disk (unless that is small). */
const RING_SHARE = 1 / 4

/** A buffer on disk, and where it is in a part's buffer. */
interface Piece {
  flat: DiskFlat
  place: number
}

/** Elements [from, to) of a unit: what is in memory at a time. */
interface Part {
  unit: Unit
  from: number
  to: number
  pieces: Piece[]
}

export class Swapper {
  readonly #parts: readonly Part[]
  readonly #ring: Tensor[] = []
  #numRead = 0
  #numUpdated = 0

  /** `units` in the order of their updates. */
  constructor(units: readonly Unit[], numBuffers: number) {
    const onDisk = units.filter((unit) => unit.onDisk)
    const total = onDisk.reduce((sum, { start, end }) => sum + end - start, 0)
    const share = Math.ceil((total * RING_SHARE) / numBuffers / SMALLEST) * SMALLEST
    this.#parts = onDisk.flatMap((unit) => partsOf(unit, Math.min(share, CHUNK)))
    const bytes = Math.max(0, ...this.#parts.map(bytesOf))
    unscoped(() => {
      while (this.#ring.length < Math.min(numBuffers, this.#parts.length))
        this.#ring.push(empty([bytes / 4], { category: 'host' }))
    })
  }

  /** Updates all of a unit; units come in the constructor's order. */
  update(unit: Unit, apply: (span: Span) => void): void {
    for (let part = this.#parts[this.#numUpdated]; part?.unit === unit; part = this.#parts[this.#numUpdated]) {
      const { from, to } = part
      const index = this.#numUpdated++
      const ahead = Math.min(index + this.#ring.length, this.#parts.length)
      while (this.#numRead < ahead) this.#transfer('read', this.#numRead++)
      tidy(() => {
        const holding = this.#holding(index)
        for (const span of spansIn(unit, from, to, holding)) apply(span)
        this.#narrow(index, holding.param)
      })
      this.#transfer('write', index)
    }
    if (this.#numUpdated === this.#parts.length) this.#numRead = this.#numUpdated = 0
  }

  #transfer(direction: 'read' | 'write', index: number): void {
    const { unit, from, pieces } = this.#parts[index] as Part
    const ranges = new Map<SwapFile, SwapRange[]>()
    tidy(() => {
      for (const piece of pieces) {
        const { flat } = piece
        if (direction === 'read' && isNarrow(unit, flat)) continue
        const range = { offset: flat.at(from - unit.start), tensor: this.#staged(index, piece) }
        ranges.set(flat.file, [...(ranges.get(flat.file) ?? []), range])
      }
      for (const [file, list] of ranges) file.transfer(direction, list)
    })
  }

  #staged(index: number, { flat, place }: Piece): Tensor {
    const { from, to } = this.#parts[index] as Part
    const buffer = this.#ring[index % this.#ring.length] as Tensor
    return buffer.view([to - from], place / bytesPerElement[flat.dtype], flat.dtype)
  }

  #holding(index: number): Holding {
    const { unit, from, to, pieces } = this.#parts[index] as Part
    const { master, states, ownParameters } = unit
    const get = (flat: Flat): Tensor => {
      const piece = pieces.find((piece) => piece.flat === flat)
      return piece ? this.#staged(index, piece) : (flat.resident as Tensor).view([to - from], from - unit.start)
    }
    return {
      param: get(master),
      states: Object.fromEntries(Object.entries(states).map(([name, flat]) => [name, get(flat)])),
      ...(master !== ownParameters && ownParameters.resident && { out: get(ownParameters) }),
    }
  }

  /** A 16-bit copy on disk is made anew and never read: an update that is left out would not write all of it. */
  #narrow(index: number, param: Tensor): void {
    const { unit, pieces } = this.#parts[index] as Part
    const piece = pieces.find(({ flat }) => isNarrow(unit, flat))
    if (piece) runOp('cast', [this.#staged(index, piece)], [param])
  }

  dispose(): void {
    for (const buffer of this.#ring) buffer.dispose()
  }
}

const isNarrow = ({ master, ownParameters }: Unit, flat: Flat): boolean => flat === ownParameters && flat !== master

/** What looks at whole parameters is brought in whole. */
function partsOf(unit: Unit, size: number): Part[] {
  const { master, states, ownParameters, options, start, end } = unit
  const flats = new Set([master, ...Object.values(states), ownParameters])
  const step = options.optimizer.needsWholeParameters ? end - start : size
  const parts: Part[] = []
  for (let from = start; from < end; from += step) {
    const part: Part = { unit, from, to: Math.min(from + step, end), pieces: [] }
    for (const flat of flats) if (flat instanceof DiskFlat) part.pieces.push({ flat, place: bytesOf(part) })
    parts.push(part)
  }
  return parts
}

const bytesOf = ({ from, to, pieces }: Part): number =>
  pieces.reduce((sum, { flat }) => sum + padded((to - from) * bytesPerElement[flat.dtype]), 0)

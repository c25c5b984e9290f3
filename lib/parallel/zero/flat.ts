// One flat buffer of this rank's part of a unit: in memory, or in a swap file and in memory only while it is used.
// Whoever goes through read() and write() need not know which; nothing here waits, hazards keep the order.

import { tidy } from '../../tensor/scope.js'
import { bytesPerElement, type DType, empty, runOp, type Tensor } from '../../tensor/tensor.js'
import type { SwapFile } from './swap-file.js'

/** Elements that are brought in at a time where a whole buffer is gone through: 4 MiB of f32. */
export const CHUNK = 2 ** 20

export interface Flat {
  readonly count: number
  readonly dtype: DType
  /** The buffer, where it is in memory. */
  readonly resident: Tensor | undefined
  /** Elements [start, start + count): a view, or a copy from disk. The caller's; only for reading. */
  read(start: number, count: number): Tensor
  /** Sets the elements from `start` on, in the buffer's dtype. */
  write(start: number, values: Tensor): void
}

export class MemoryFlat implements Flat {
  constructor(readonly resident: Tensor) {}

  get count(): number {
    return this.resident.count
  }
  get dtype(): DType {
    return this.resident.dtype
  }

  read(start: number, count: number): Tensor {
    return this.resident.view([count], start)
  }

  write(start: number, values: Tensor): void {
    const view = this.resident.view([values.count], start)
    runOp('cast', [view], [values])
    view.dispose()
  }
}

export class DiskFlat implements Flat {
  readonly resident = undefined

  /** `offset`: where it begins in the file, a multiple of a page. */
  constructor(
    readonly file: SwapFile,
    readonly offset: number,
    readonly count: number,
    readonly dtype: DType,
  ) {}

  /** Where element `start` lies in the file. */
  at(start: number): number {
    return this.offset + start * bytesPerElement[this.dtype]
  }

  read(start: number, count: number): Tensor {
    const copy = empty([count], { category: 'host', dtype: this.dtype })
    this.file.transfer('read', [{ offset: this.at(start), tensor: copy }])
    return copy
  }

  write(start: number, values: Tensor): void {
    if (values.dtype === this.dtype) {
      this.file.transfer('write', [{ offset: this.at(start), tensor: values }])
      return
    }
    for (const [from, count] of chunksOf(values.count)) {
      tidy(() => {
        const part = empty([count], { category: 'host', dtype: this.dtype })
        runOp('cast', [part], [values.view([count], from)])
        this.file.transfer('write', [{ offset: this.at(start + from), tensor: part }])
      })
    }
  }
}

/** [first element, elements] of the parts in which `count` elements are gone through. */
export function* chunksOf(count: number, size = CHUNK): Generator<[number, number]> {
  for (let from = 0; from < count; from += size) yield [from, Math.min(size, count - from)]
}

/** Copies a buffer to one of as many elements, in its dtype. */
export function copyFlat(to: Flat, from: Flat): void {
  const size = to.resident && from.resident ? from.count : CHUNK
  for (const [start, count] of chunksOf(from.count, size)) tidy(() => to.write(start, from.read(start, count)))
}

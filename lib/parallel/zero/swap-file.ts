// A file on a fast disk in which a rank keeps what does not fit into memory. Space is given out once, never back. Its
// name is gone as soon as it is open, so that nothing stays behind; errors name it nevertheless.

import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { ZeroshardError } from '../../binding/errors.js'
import { binding, type NativeSwap, type SwapOptions, throwNative } from '../../binding/native.js'
import { bytesPerElement, type DType, type Tensor } from '../../tensor/tensor.js'
import { DiskFlat } from './flat.js'

/** What direct I/O is done in. */
export const PAGE = 4096

export const padded = (bytes: number): number => Math.ceil(bytes / PAGE) * PAGE

export interface SwapRange {
  /** Bytes, from the file's beginning. */
  offset: number
  tensor: Tensor
}

export class SwapFile {
  readonly native: NativeSwap
  #used = 0

  /** @throws IO where the folder is none, or its disk has no room for `bytes`. */
  constructor(
    folder: string,
    rank: number,
    readonly bytes: number,
    options: SwapOptions,
  ) {
    const path = join(folder, `zeroshard-${randomBytes(6).toString('hex')}-rank-${rank}.swap`)
    this.native = binding().native.openSwap(path, bytes, options)
  }

  reserve(count: number, dtype: DType): DiskFlat {
    const bytes = padded(count * bytesPerElement[dtype])
    if (this.#used + bytes > this.bytes)
      throw new ZeroshardError('INTERNAL', `[swap] ${this.#used} + ${bytes} bytes in a file of ${this.bytes}`)
    const flat = new DiskFlat(this, this.#used, count, dtype)
    this.#used += bytes
    return flat
  }

  /** Queues it on the disk's stream; a page must not be written twice in one call. */
  transfer(direction: 'read' | 'write', ranges: readonly SwapRange[]): void {
    const { native, packet } = binding()
    for (const { tensor } of ranges) tensor.ensure()
    packet[0] = direction === 'write' ? 1 : 0
    packet[1] = this.native.id
    packet[2] = ranges.length
    let at = 3
    for (const { offset, tensor } of ranges) {
      packet[at++] = offset
      packet[at++] = tensor.handle
    }
    if (native.transfer() < 0) throwNative('transfer')
  }

  close(): void {
    binding().native.closeSwap(this.native.id)
  }
}

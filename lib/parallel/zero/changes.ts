// Which elements of a buffer were changed since a copy of it was made, and those alone in another buffer.

import { tidy, unscoped } from '../../tensor/scope.js'
import { empty, runOp, type Tensor, tensor } from '../../tensor/tensor.js'
import { CHUNK, chunksOf, type Flat } from './flat.js'

/** A part of a buffer in which something changed. */
export interface Changes {
  /** Its first element. */
  offset: number
  values: Float32Array
  changed: Uint8Array
}

/**
 * The parts of elements [offset, offset + count) that differ from `before` in any bit. The device looks which may; the
 * host reads those.
 */
export async function changesIn(x: Tensor, before: Tensor, offset: number, count: number): Promise<Changes[]> {
  if (count === 0) return []
  const parts = [...chunksOf(count)].map(([from, length]): [number, number] => [offset + from, length])
  const largest = unscoped(() => tidy(() => largestDifferences(x, before, parts)))
  const differences = (await largest.data()) as Float32Array
  largest.dispose()
  const found: Changes[] = []
  for (const [at, [from, length]] of parts.entries()) {
    if (differences[at] === 0) continue
    const [values, old] = (await Promise.all([valuesOf(x, from, length), valuesOf(before, from, length)])) as [
      Float32Array,
      Float32Array,
    ]
    // Bits, for a NaN that was there before is none.
    const [now, then] = [values, old].map(({ buffer }) => new Uint32Array(buffer)) as [Uint32Array, Uint32Array]
    const changed = Uint8Array.from(now, (bits, i) => (bits === then[i] ? 0 : 1))
    if (changed.includes(1)) found.push({ offset: from, values, changed })
  }
  return found
}

function largestDifferences(x: Tensor, before: Tensor, parts: readonly (readonly [number, number])[]): Tensor {
  const largest = empty([parts.length], { category: 'buffers', zero: true })
  const difference = empty([Math.min(CHUNK, x.count)], { dtype: x.dtype, category: 'buffers' })
  for (const [at, [from, length]] of parts.entries()) {
    const own = difference.view([length])
    runOp('binary', [own], [x.view([length], from), before.view([length], from)], [1])
    runOp('absmax', [largest.view([1], at)], [own])
  }
  return largest
}

async function valuesOf(x: Tensor, from: number, count: number): Promise<Float32Array> {
  const wide = unscoped(() =>
    tidy(() => {
      const copy = empty([count], { category: 'buffers' })
      runOp('cast', [copy], [x.view([count], from)])
      return copy
    }),
  )
  const values = (await wide.data()) as Float32Array
  wide.dispose()
  return values
}

/** Sets what changed; all other elements keep their bits. `start`: the element with which `to` begins. */
export async function writeChanges(to: Flat, changes: readonly Changes[], start: number): Promise<void> {
  for (const { offset, values, changed } of changes) {
    const old = unscoped(() => to.read(offset - start, values.length))
    const merged = ((await old.data()) as Float32Array).map((value, i) => (changed[i] ? (values[i] as number) : value))
    old.dispose()
    unscoped(() => tidy(() => to.write(offset - start, tensor(merged))))
  }
}

// Exact memory counts, in bytes, by what the memory is for. Counted when work is queued, so they don't
// depend on how far the streams are.

import { binding, categories } from '../binding/native.js'
import type { Category } from './tensor.js'

/** Bytes by what they are for, and their sum. */
export type MemoryByCategory = Record<Category | 'total', number>

const named = (bytes: readonly number[]): MemoryByCategory => {
  const entries = categories.map((name, index) => [name, bytes[index] ?? 0] as const)
  return Object.fromEntries([...entries, ['total', bytes.reduce((sum, value) => sum + value, 0)]]) as MemoryByCategory
}

/**
 * Exact counts of native memory.
 *
 * @example
 * const x = empty([1000], { category: 'buffers' })
 * memory.stats().live.buffers >= x.bytes // true
 */
export const memory = {
  /** Live bytes and their peak by category, bytes reserved from the system, live tensors. */
  stats(): { live: MemoryByCategory; peak: MemoryByCategory; reserved: number; tensors: number } {
    const { live, peak, reserved, tensors } = binding().native.memoryStats()
    return { live: named(live), peak: named(peak), reserved, tensors }
  },
  /** Peaks start again from what is live. */
  resetPeak(): void {
    binding().native.resetPeak()
  },
}

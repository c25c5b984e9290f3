// What the machine can do at best, as far as our kernels reach it: products of large matrices, memory bandwidth.

import { type Benchmark, inChild, median, timeSync, type Work } from '../harness.js'
import { binding, empty, runOp } from '../library.js'

interface Ceilings {
  f32: number
  bf16: number
  triad: number
  copy: number
}

/** Operations per second, bytes per second. */
export const work: Work<object, Ceilings> = async () => {
  const { native } = binding()
  const settled = (fn: () => void) => () => {
    fn()
    native.synchronizeSync(0)
  }
  const size = 2048
  const product = (dtype: 'f32' | 'bf16'): number => {
    const [a, b, y] = [0, 1, 2].map(() => empty([size, size], { dtype, zero: true }))
    for (const [site, x] of [a, b].entries()) runOp('random_fill', [x], [], [1, 0, 1, 1, site, 0])
    const inputs = [a, b, undefined, undefined, undefined]
    const run = settled(() => runOp('matmul', [y, undefined], inputs, [1, size, size, size, 0, 0, 0, 0]))
    return (2 * size ** 3) / median(timeSync(run))
  }
  const count = 1 << 25
  const [a, b, y] = [0, 1, 2].map(() => empty([count], { zero: true }))
  const add = settled(() => runOp('binary', [y], [a, b], [0]))
  const copy = settled(() => runOp('cast', [y], [a]))
  return {
    f32: product('f32'),
    bf16: product('bf16'),
    triad: (12 * count) / median(timeSync(add)),
    copy: (8 * count) / median(timeSync(copy)),
  }
}

export const ceilings = (): Promise<Ceilings> => inChild(import.meta.url, {})

export default {
  title: 'Ceilings: all threads, matrices of 2048, vectors of 128 MiB',
  async run() {
    const { f32, bf16, triad, copy } = await ceilings()
    return [
      { name: 'matrix product f32', value: f32 / 1e9, unit: 'GFLOP/s' },
      { name: 'matrix product bf16', value: bf16 / 1e9, unit: 'GFLOP/s' },
      { name: 'triad (a = b + c)', value: triad / 1e9, unit: 'GB/s', note: '12 bytes per element, as STREAM counts' },
      { name: 'copy', value: copy / 1e9, unit: 'GB/s', note: '8 bytes per element' },
    ]
  },
} satisfies Benchmark

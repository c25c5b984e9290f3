// What the device can do at best: copies of memory, large matrix products. All other figures are shares of these.

import { inChild, type Row, type Work } from '../harness.js'
import { binding, deviceState, runOp } from '../library.js'
import { deviceSeconds, onDevice, random } from './measure.js'
import { type Ceilings, linkRate, type SuiteBenchmark, type SuiteOptions } from './suite.js'

export const work: Work<{ dry: boolean }, Ceilings> = ({ dry }) =>
  onDevice(() => {
    const count = dry ? 1 << 22 : 1 << 28
    const [x, y] = [random([count], 'f32'), random([count], 'f32')]
    const seconds = deviceSeconds(() => runOp('copy_2d', [y], [x], [1, count, 0, count, 0, count]), dry)
    for (const z of [x, y]) z.dispose()
    const size = dry ? 256 : 8192
    const product = (dtype: 'bf16' | 'f32'): number => {
      const [a, b, c] = [0, 1, 2].map(() => random([size, size], dtype))
      const inputs = [a, b, undefined, undefined, undefined]
      const rate =
        (2 * size ** 3) /
        deviceSeconds(() => runOp('matmul', [c, undefined], inputs, [1, size, size, size, 0, 0, 0, 0]), dry)
      for (const z of [a, b, c]) z?.dispose()
      return rate
    }
    const cuda = binding().native.device() === 'cuda'
    const state = cuda ? deviceState() : undefined
    const copy = (8 * count) / seconds
    return {
      copy,
      bf16: product('bf16'),
      f32: product('f32'),
      name: cuda ? (binding().native.devices().devices[0]?.name ?? '') : '',
      link: cuda ? linkRate(state ?? {}) : copy,
    }
  })

export const measureCeilings = ({ dry }: SuiteOptions): Promise<Ceilings> =>
  inChild<{ dry: boolean }, Ceilings>(import.meta.url, { dry })

export function ceilingRows({ copy, bf16, f32, link }: Ceilings): Row[] {
  return [
    { name: 'copy, 8 bytes per element', value: copy / 1e9, unit: 'GB/s' },
    { name: 'matrix product bf16', value: bf16 / 1e12, unit: 'TFLOP/s' },
    { name: 'matrix product f32', value: f32 / 1e12, unit: 'TFLOP/s', note: 'without TF32' },
    ...(link ? [{ name: 'links to peers, one way', value: link / 1e9, unit: 'GB/s', note: 'by data sheet' }] : []),
  ]
}

export default {
  title: 'Ceilings',
  run: async (options) => ceilingRows(options.ceilings ?? (await measureCeilings(options))),
} satisfies SuiteBenchmark

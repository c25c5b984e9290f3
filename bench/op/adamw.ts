// AdamW is memory-bound: its share of the triad's bandwidth, both measured in turn in one process.

import { type Benchmark, inChild, median, timeSync, type Work } from '../harness.js'
import { binding, empty, runOp, type tensor } from '../library.js'

type Buffers = Record<'p' | 'm' | 'v' | 'g' | 'out' | 'norm', ReturnType<typeof tensor>>
interface Rates {
  f32: number
  bf16: number
  triad: number
}

const count = 1 << 25

function makeBuffers(): Buffers {
  const flat = (dtype: 'f32' | 'bf16') => empty([count], { dtype, zero: true })
  const made = { p: flat('f32'), m: flat('f32'), v: flat('f32'), g: flat('f32'), out: flat('bf16'), norm: empty([1]) }
  runOp('random_fill', [made.p], [], [1, 0, 0.02, 1, 1, 0])
  runOp('random_fill', [made.g], [], [1, 0, 0.01, 1, 2, 0])
  runOp('fill', [made.v], [], [1e-4])
  runOp('fill', [made.norm], [], [1])
  return made
}

/** Bytes per second; rounds of the three in turn. */
export const work: Work<object, Rates> = async () => {
  const { native } = binding()
  const { p, m, v, g, out, norm } = makeBuffers()
  const scalars = [1e-4, 0.9, 0.999, 1e-8, 0.01, 0.1, 0.001, 1, 1, 1, 1]
  const [x, y, z] = [0, 1, 2].map(() => empty([count], { zero: true }))
  const once = (bytes: number, fn: () => void): number => {
    const [seconds] = timeSync(
      () => {
        fn()
        native.synchronizeSync(0)
      },
      1,
      0,
    )
    return (bytes * count) / (seconds as number)
  }
  const rounds = Array.from({ length: 12 }, () => ({
    triad: once(12, () => runOp('binary', [z], [x, y], [0])),
    f32: once(32, () => runOp('adamw', [p, m, v, undefined, g], [norm], scalars)),
    bf16: once(34, () => runOp('adamw', [p, m, v, out, g], [norm], scalars)),
  })).slice(2)
  const of = (key: keyof Rates): number => median(rounds.map((round) => round[key]))
  return { f32: of('f32'), bf16: of('bf16'), triad: of('triad') }
}

export default {
  title: 'AdamW over 33.5 million parameters (gradients zeroed in the same pass), all threads',
  async run() {
    const { f32, bf16, triad } = await inChild<object, Rates>(import.meta.url, {})
    const note = `${(triad / 1e9).toFixed(1)} GB/s triad; written lines are fetched first: with them the triad moves 4/3`
    return [
      { name: 'f32, 32 bytes per parameter', value: f32 / 1e9, unit: 'GB/s' },
      { name: 'bf16 model, 34 bytes per parameter', value: bf16 / 1e9, unit: 'GB/s' },
      { name: 'share of the triad, f32', value: f32 / triad, unit: '', target: '>= 0.9', note },
      { name: 'share of the triad, bf16', value: bf16 / triad, unit: '', target: '>= 0.9' },
    ]
  },
} satisfies Benchmark

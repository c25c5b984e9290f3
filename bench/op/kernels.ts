// Single kernels at the shapes of GPT-2 124M with 256 tokens; data stay in the caches where they fit.

import { type Benchmark, inChild, median, timeSync, type Work } from '../harness.js'
import { binding, empty, runOp } from '../library.js'

type Times = Record<string, number>
const [rows, cols, vocabulary] = [256, 768, 50257]

/** Seconds by name. */
export const work: Work<{ dtype: 'f32' | 'bf16' }, Times> = async ({ dtype }) => {
  const { native } = binding()
  const make = (count: number, type: 'f32' | 'bf16' | 'i32' = dtype) => empty([count], { dtype: type, zero: true })
  const random = (count: number) => {
    const x = make(count)
    runOp('random_fill', [x], [], [1, 0, 1, 1, count, 0])
    return x
  }
  const times: Times = {}
  const measure = (name: string, fn: () => void, calls = 20): void => {
    const run = (): void => {
      for (let i = 0; i < calls; i++) fn()
      native.synchronizeSync(0)
    }
    times[name] = median(timeSync(run, 7)) / calls
  }
  const [x, y, dx, w, b] = [random(rows * cols), make(rows * cols), make(rows * cols), random(cols), random(cols)]
  const [mean, rstd, dw, db] = [make(rows, 'f32'), make(rows, 'f32'), make(cols, 'f32'), make(cols, 'f32')]
  measure('layer norm', () =>
    runOp('layer_norm_forward', [y, mean, rstd, undefined], [x, w, b, undefined], [rows, cols, 1e-5]),
  )
  measure('layer norm, backward', () =>
    runOp('layer_norm_backward', [dx, dw, db], [y, x, w, mean, rstd, undefined], [rows, cols]),
  )
  measure('dropout', () => runOp('dropout', [y], [x], [0.1, 1, 2, rows, cols, cols, 0, 0, cols, 0]))
  measure('residual add', () => runOp('binary', [y], [x, dx], [0]))
  const [wide, slope] = [random(rows * cols * 4), make(rows * cols * 4)]
  measure('GELU, backward', () => runOp('unary_backward', [slope], [wide, wide, undefined], [0]))
  const [qkv, dqkv, lse] = [random(rows * cols * 3), make(rows * cols * 3), make(12 * rows, 'f32')]
  const [step, heads] = [3 * cols, 12]
  const packed = [0, 1, 2].flatMap((part) => [part * cols, step, 64 * step])
  const noDropoutWhole = [0, 0, 0, 0, 0, heads, 0, 0, 64, 0, 0, 64]
  const attention = [4, 64, 64, heads, heads, 64, 0.125, 1, 0, ...packed, ...noDropoutWhole]
  measure('attention', () => runOp('attention_forward', [y, lse], [qkv, qkv, qkv], attention))
  measure('attention, backward', () =>
    runOp('attention_backward', [dqkv, dqkv, dqkv], [x, qkv, qkv, qkv, y, lse], attention),
  )
  const [logits, losses, targets] = [random(rows * vocabulary), make(rows, 'f32'), make(rows, 'i32')]
  measure(
    'cross entropy',
    () =>
      runOp('classifier', [logits, losses, undefined], [targets], [rows, vocabulary, vocabulary, -100, 1, 1 / rows]),
    1,
  )
  const table = make(vocabulary * cols, 'f32')
  measure('embedding, backward', () => runOp('embedding_backward', [table], [x, targets], [rows, cols, 0, vocabulary]))
  measure('initial values of the embedding', () => runOp('random_fill', [table], [], [1, 0, 0.02, 1, 7, 0]), 1)
  return times
}

export default {
  title: 'Kernels at the shapes of GPT-2 124M, 256 tokens, all threads',
  async run() {
    const f32 = await inChild<object, Times>(import.meta.url, { dtype: 'f32' })
    const bf16 = await inChild<object, Times>(import.meta.url, { dtype: 'bf16' })
    return Object.entries(f32).map(([name, seconds]) => ({
      name,
      value: seconds * 1e6,
      unit: 'µs',
      note: `bf16 ${((bf16[name] as number) * 1e6).toFixed(1)} µs`,
    }))
  },
} satisfies Benchmark

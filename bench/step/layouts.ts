// GPT-2 124M on two ranks of one thread, cut in every way: ZeRO stages, tensor, pipeline, context. Each against data
// parallelism at stage 0 in the same run. The pipeline's bubble is the share of a step in which a rank's compute stream
// is idle, against the formula's (s - 1) / (m + s - 1).

import { availableParallelism } from 'node:os'
import { type Benchmark, inChild, median, type Row, type Work } from '../harness.js'
import { binding, createModel, initialize, tensor } from '../library.js'

interface Cut {
  micro: number
  config: Record<string, unknown>
}
interface Result {
  seconds: number[]
  /** Of the compute stream, over all steps after the first. */
  busy: number
  /** Peak of activations, bytes. */
  activations: number
}

const [samples, tokens, steps] = [8, 64, 3]

export const work: Work<Cut, Result> = async ({ micro, config }) => {
  const model = createModel({ model_type: 'gpt2', resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 })
  const engine = await initialize({
    model,
    config: {
      train_batch_size: samples,
      train_micro_batch_size_per_gpu: micro,
      optimizer: { type: 'AdamW', params: { lr: 1e-4 } },
      ...config,
    },
  })
  let seed = 7
  const next = (): number => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648
  const part = tokens / engine.parts.mesh.sizes.cp
  const ids = () =>
    tensor(
      Int32Array.from({ length: micro * part }, () => next() * model.vocabSize),
      [micro, part],
    )
  const seconds: number[] = []
  let [activations, busy] = [0, 0]
  for (let i = 0; i <= steps; i++) {
    const before = binding().native.streamStats().busySeconds[0] as number
    const start = performance.now()
    const result = await engine.trainBatch(() => [ids(), ids()])
    await binding().native.synchronize(-1)
    if (i === 0) continue
    seconds.push((performance.now() - start) / 1000)
    busy += (binding().native.streamStats().busySeconds[0] as number) - before
    activations = Math.max(activations, result.memoryPeak.activations)
  }
  await engine.close()
  return { seconds, busy: busy / seconds.reduce((sum, value) => sum + value, 0), activations }
}

const on = (cut: Cut, ranks: number): Promise<Result> => inChild(import.meta.url, cut, { ranks, threads: 1 })
const stage = (n: number): Record<string, unknown> => ({ zero_optimization: { stage: n } })

export default {
  title: `GPT-2 124M on 2 ranks of one thread: ${samples} samples of ${tokens} tokens in a step, f32`,
  async run() {
    if (availableParallelism() < 2) return []
    const rows: Row[] = []
    const base = await on({ micro: 4, config: stage(0) }, 2)
    const speed = (result: Result): number => (samples * tokens) / median(result.seconds)
    rows.push({ name: 'dp 2, stage 0', value: speed(base), unit: 'tokens/s' })
    const against = (name: string, result: Result, target: `>= ${number}`): void => {
      rows.push({ name, value: speed(result), unit: 'tokens/s' })
      rows.push({ name: `${name}, over dp 2`, value: speed(result) / speed(base), unit: '×', target })
    }
    for (const n of [1, 2, 3]) against(`dp 2, stage ${n}`, await on({ micro: 4, config: stage(n) }, 2), '>= 0.85')
    against('tp 2', await on({ micro: 8, config: { mesh: { tensor: 2 } } }, 2), '>= 0.8')
    const pipeline = (schedule: string): Cut => ({
      micro: 1,
      config: { mesh: { pipeline: 2 }, pipeline: { schedule } },
    })
    const oneF1B = await on(pipeline('1f1b'), 2)
    against('pp 2, 8 micro-batches', oneF1B, '>= 0.8')
    rows.push({
      name: 'pp 2, idle share of rank 0',
      value: 1 - oneF1B.busy,
      unit: '',
      note: `formula ${(1 / (samples + 1)).toFixed(3)}; the optimizer's step and unequal stages besides`,
    })
    const gpipe = await on(pipeline('gpipe'), 2)
    rows.push({
      name: 'pp 2, peak activations of 1F1B over GPipe',
      value: oneF1B.activations / gpipe.activations,
      unit: '×',
      note: `formula ${(2 / samples).toFixed(2)} on the first stage, and what one micro-batch needs while it runs`,
    })
    return rows
  },
} satisfies Benchmark

// Tokens per second of two ranks that share their sequences (Ulysses, ring) beside two that have some each, in turn; the
// same tokens in every step. And the activations of one rank where both have one long sequence.

import { type Benchmark, inChild, median, type Row, type Work } from '../harness.js'
import { createModel, initialize, tensor, unscoped } from '../library.js'

type Layout = 'data' | 'ulysses' | 'ring'

interface Options {
  layout: Layout
  /** Samples of a step, over all ranks. */
  samples: number
  tokens: number
  steps: number
}

interface Result {
  seconds: number[]
  /** Of processor time of one rank, over all these steps: says more than the clock where the machine is shared. */
  busy: number
  activations: number
}

const [samples, tokens, steps, rounds] = [4, 512, 4, 3]
const layouts: Layout[] = ['data', 'ulysses', 'ring']
const config = { n_layer: 4, n_head: 8, n_embd: 384, n_positions: 4096, vocab_size: 4096 }
const noDropout = { resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 }

export const work: Work<Options, Result> = async (options) => {
  const engine = await initialize({
    model: createModel({ model_type: 'gpt2', ...config, ...noDropout }),
    config: {
      train_batch_size: options.samples,
      optimizer: { type: 'AdamW', params: { lr: 1e-4 } },
      ...(options.layout === 'data' ? {} : { mesh: { context: 2 }, context_parallel: { type: options.layout } }),
    },
  })
  const { microBatchSize } = engine.parts
  const ids = (first: number) =>
    tensor(
      Int32Array.from({ length: microBatchSize * options.tokens }, (_, i) => ((first + 1) * 7919 + i * i) % 4096),
      [microBatchSize, options.tokens],
    )
  const result: Result = { seconds: [], busy: 0, activations: 0 }
  let used = process.cpuUsage()
  for (let step = 0; step <= options.steps; step++) {
    const start = performance.now()
    const { memoryPeak } = await engine.trainBatch((first) => unscoped(() => [ids(first), ids(first + 1)]))
    if (step > 0) result.seconds.push((performance.now() - start) / 1000)
    else used = process.cpuUsage()
    result.activations = memoryPeak.activations
  }
  const { user, system } = process.cpuUsage(used)
  result.busy = (user + system) / 1e6
  await engine.close()
  return result
}

const measure = (options: Options): Promise<Result> =>
  inChild<Options, Result>(import.meta.url, options, { ranks: 2, threads: 1 })

async function speeds(): Promise<Row[]> {
  const results = new Map<Layout, Result[]>(layouts.map((layout) => [layout, []]))
  for (let round = 0; round < rounds; round++) {
    for (const layout of layouts) results.get(layout)?.push(await measure({ layout, samples, tokens, steps }))
  }
  const of = (layout: Layout): Result[] => results.get(layout) as Result[]
  const speed = (layout: Layout): number => (samples * tokens) / median(of(layout).flatMap(({ seconds }) => seconds))
  const busy = (layout: Layout): number => median(of(layout).map((result) => result.busy))
  const note = (layout: Layout): string =>
    `${(speed(layout) / speed('data')).toFixed(2)} of data 2, with ${(busy(layout) / busy('data')).toFixed(2)} of its processor time`
  return layouts.map((layout) => ({
    name: layout === 'data' ? 'data 2' : `context 2, ${layout}`,
    value: speed(layout),
    unit: 'tokens/s',
    ...(layout !== 'data' && { note: note(layout) }),
  }))
}

/** Two sequences for two ranks, or one for both. */
async function long(): Promise<Row[]> {
  const length = 2048
  const rows: Row[] = []
  for (const layout of layouts) {
    const { activations } = await measure({ layout, samples: layout === 'data' ? 2 : 1, tokens: length, steps: 1 })
    const name = layout === 'data' ? `one sequence of ${length} on a rank` : `${layout}: one of ${length} on two ranks`
    rows.push({ name: `activations, ${name}`, value: activations / 2 ** 20, unit: 'MiB' })
  }
  return rows
}

export default {
  title: `Context parallelism, GPT-2 of 4 layers and 384 channels, f32, ${samples} samples of ${tokens} tokens, 2 ranks of one thread`,
  run: async () => [...(await speeds()), ...(await long())],
} satisfies Benchmark

// Does memory.stats() tell the truth? What the process grows by, from before initialize() to after one step of a model of
// 26 million parameters, beside the most that the library says it held (what is freed stays cached for the next step).

import { readFileSync } from 'node:fs'
import { type Benchmark, inChild, median, type Row } from '../harness.js'
import { createModel, initialize, memory, tensor } from '../library.js'

interface Options {
  stage: number
  bf16: boolean
}

interface Result {
  growth: number
  peak: number
  parameters: number
}

/** Bytes of this process; of pages that ranks share, its share. */
const resident = (): number => {
  const alone = (process.env.WORLD_SIZE ?? '1') === '1'
  const [file, name] = alone ? ['status', 'VmRSS'] : ['smaps_rollup', 'Pss']
  const [, kilobytes] = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/self/${file}`, 'utf8')) ?? []
  return 1024 * Number(kilobytes)
}

/** One step of a model of `n_embd`, then `seen` while it is there. */
async function step({ stage, bf16 }: Options, n_embd: number, seen: (parameters: number) => void): Promise<void> {
  const model = createModel({ model_type: 'gpt2', n_layer: 8, n_head: 4, n_embd, n_positions: 16, vocab_size: 512 })
  const engine = await initialize({
    model: model as never,
    config: {
      train_micro_batch_size_per_gpu: 1,
      bf16: { enabled: bf16 },
      optimizer: { type: 'AdamW', params: { lr: 1e-4 } },
      zero_optimization: { stage, stage3_prefetch_bucket_size: 0 },
    },
  })
  const ids = (): ReturnType<typeof tensor> =>
    tensor(
      Int32Array.from({ length: 16 }, (_, i) => i),
      [1, 16],
    )
  await engine.trainBatch(() => [ids(), ids()] as never)
  seen(model.parameters().reduce((sum, { count }) => sum + count, 0))
  await engine.close()
}

/** In a child: code, threads and work space are there before anything is measured. */
export async function work(options: Options): Promise<Result> {
  await step(options, 64, () => {})
  globalThis.gc?.()
  const before = resident()
  let result = { growth: 0, peak: 0, parameters: 0 }
  await step(options, 512, (parameters) => {
    globalThis.gc?.()
    result = { growth: resident() - before, peak: memory.stats().peak.total, parameters }
  })
  return result
}

async function row(name: string, options: Options, ranks: number): Promise<Row> {
  const results: Result[] = []
  for (let i = 0; i < 3; i++) results.push(await inChild(import.meta.url, options, { ranks }))
  const { peak, parameters } = results[0] as Result
  const growth = median(results.map((result) => result.growth))
  return {
    name: `${name}: resident growth beside memory.stats()`,
    value: 100 * Math.abs(growth / peak - 1),
    unit: '% apart',
    target: '<= 10',
    note: `${(growth / 1e6).toFixed(1)} MB grown, ${(peak / 1e6).toFixed(1)} MB counted; ${(parameters / 1e6).toFixed(1)} M parameters`,
  }
}

export default {
  title: 'Resident memory and what is counted',
  run: async () => [
    await row('f32, 1 rank', { stage: 0, bf16: false }, 1),
    await row('bf16, 1 rank', { stage: 0, bf16: true }, 1),
    await row('f32, stage 3 on 2 ranks', { stage: 3, bf16: false }, 2),
  ],
} satisfies Benchmark

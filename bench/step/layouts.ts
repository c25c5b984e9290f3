// GPT-2 124M on two ranks of one thread, cut in every way: ZeRO stages in f32 and bf16, tensor, pipeline. In f32 each
// against data parallelism at stage 0 in the same run; in bf16 against what DeepSpeed 0.19 gave on such a machine. From the
// trace: how much of the communication ran under computation, and the pipeline's bubble: the share in which rank 0 is
// idle between its first and its last matrix product, against the formula's (s - 1) / (m + s - 1).

import { availableParallelism } from 'node:os'
import { type Benchmark, inChild, median, type Row, type Work } from '../harness.js'
import { binding, busyIntervals, createModel, initialize, lengthOf, overlapShare, tensor, trace } from '../library.js'

interface Cut {
  micro: number
  config: Record<string, unknown>
}
interface Result {
  seconds: number[]
  /** Of rank 0, medians over the steps after the first. */
  idle: number
  overlap: number
  /** Peak of activations, bytes. */
  activations: number
}

const [samples, tokens, steps] = [8, 64, 4]

/** Idle share of the compute stream between the first and the last matrix product. */
function idleShare(records: ReturnType<typeof trace.take>['records']): number {
  const products = Array.from(records.flops.keys()).filter((i) => (records.flops[i] as number) > 0)
  const begin = Math.min(...products.map((i) => records.start[i] as number))
  const end = Math.max(...products.map((i) => records.end[i] as number))
  const inside = (i: number): boolean =>
    records.stream[i] === 0 && (records.start[i] as number) >= begin && (records.end[i] as number) <= end
  return 1 - lengthOf(busyIntervals(records, inside)) / (end - begin)
}

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
  const [seconds, idle, overlap]: [number[], number[], number[]] = [[], [], []]
  let activations = 0
  trace.start()
  for (let i = 0; i <= steps; i++) {
    const start = performance.now()
    const result = await engine.trainBatch(() => [ids(), ids()])
    await binding().native.synchronize(-1)
    const { records } = trace.take()
    if (i === 0) continue
    seconds.push((performance.now() - start) / 1000)
    idle.push(idleShare(records))
    overlap.push(overlapShare(records).share)
    activations = Math.max(activations, result.memoryPeak.activations)
  }
  trace.stop()
  await engine.close()
  return { seconds, idle: median(idle), overlap: median(overlap), activations }
}

const on = (cut: Cut): Promise<Result> => inChild(import.meta.url, cut, { ranks: 2, threads: 1 })
const speed = (result: Result): number => (samples * tokens) / median(result.seconds)
const atStage = (stage: number, bf16 = false): Cut => ({
  micro: samples / 2,
  config: { zero_optimization: { stage }, bf16: { enabled: bf16 } },
})
const hidden = (name: string, { overlap }: Result): Row => ({
  name: `${name}, communication under computation`,
  value: 100 * overlap,
  unit: '%',
})

async function stages(base: Result): Promise<Row[]> {
  const rows: Row[] = [{ name: 'dp 2, stage 0', value: speed(base), unit: 'tokens/s' }, hidden('dp 2, stage 0', base)]
  for (const stage of [1, 2, 3]) {
    const name = `dp 2, stage ${stage}`
    const result = await on(atStage(stage))
    rows.push({ name, value: speed(result), unit: 'tokens/s' }, hidden(name, result))
    rows.push({ name: `${name}, over stage 0`, value: speed(result) / speed(base), unit: '×', target: '>= 0.85' })
  }
  for (const [stage, theirs] of [
    [1, 165],
    [2, 188],
    [3, 175],
  ] as const) {
    const name = `bf16, dp 2, stage ${stage}`
    const result = await on(atStage(stage, true))
    rows.push({ name, value: speed(result), unit: 'tokens/s' }, hidden(name, result))
    const note = `DeepSpeed: ${theirs} tokens/s`
    rows.push({ name: `${name}, over DeepSpeed`, value: speed(result) / theirs, unit: '×', target: '>= 1.5', note })
  }
  return rows
}

async function pipelines(base: Result): Promise<Row[]> {
  const cut = (schedule: string, partition: string): Promise<Result> =>
    on({ micro: 1, config: { mesh: { pipeline: 2 }, pipeline: { schedule, partition } } })
  const byTime = await cut('1f1b', 'time')
  const byParameters = await cut('1f1b', 'parameters')
  const gpipe = await cut('gpipe', 'time')
  const formula = 1 / (samples + 1)
  const name = `pp 2, ${samples} micro-batches`
  return [
    { name: `${name}, cut by time`, value: speed(byTime), unit: 'tokens/s' },
    { name: `${name}, over dp 2`, value: speed(byTime) / speed(base), unit: '×', target: '>= 0.8' },
    { name: `${name}, cut by parameters`, value: speed(byParameters), unit: 'tokens/s' },
    { name: 'pp 2, bubble', value: byTime.idle, unit: '', note: `formula ${formula.toFixed(3)}` },
    { name: 'pp 2, bubble against the formula', value: Math.abs(byTime.idle - formula), unit: '', target: '<= 0.03' },
    {
      name: 'pp 2, peak activations of 1F1B over GPipe',
      value: byTime.activations / gpipe.activations,
      unit: '×',
      note: `formula ${(2 / samples).toFixed(2)} on the first stage, and what one micro-batch needs while it runs`,
    },
  ]
}

export default {
  title: `GPT-2 124M on 2 ranks of one thread: ${samples} samples of ${tokens} tokens in a step, f32 where not said`,
  async run() {
    if (availableParallelism() < 2) return []
    const base = await on(atStage(0))
    const rows = await stages(base)
    const tensor = await on({ micro: samples, config: { mesh: { tensor: 2 } } })
    rows.push({ name: 'tp 2', value: speed(tensor), unit: 'tokens/s' })
    rows.push({ name: 'tp 2, over dp 2', value: speed(tensor) / speed(base), unit: '×', target: '>= 0.8' })
    rows.push(hidden('tp 2', tensor))
    return [...rows, ...(await pipelines(base))]
  },
} satisfies Benchmark

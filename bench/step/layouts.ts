// GPT-2 124M on two ranks of one thread, cut in every way: ZeRO stages in f32 and bf16, tensor, pipeline. In f32 each
// against data parallelism at stage 0 in the same run; in bf16 against what DeepSpeed 0.19 gave on such a machine. From the
// trace: how much of the communication ran under computation, and the pipeline's bubble: the share in which rank 0 is
// idle between its first and its last matrix product, against the formula's (s - 1) / (m + s - 1).

import { availableParallelism } from 'node:os'
import { type Benchmark, inChild, median, type Row, type Work } from '../harness.js'
import { binding, busyIntervals, createModel, initialize, lengthOf, overlapShare, tensor, trace } from '../library.js'

interface Cut {
  /** Samples of a micro-batch, and of a step. */
  micro: number
  samples?: number
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

const [tokens, steps, rounds] = [64, 3, 2]

/** Idle share of the compute stream between the first and the last matrix product. */
function idleShare(records: ReturnType<typeof trace.take>['records']): number {
  const products = Array.from(records.flops.keys()).filter((i) => (records.flops[i] as number) > 0)
  const begin = Math.min(...products.map((i) => records.start[i] as number))
  const end = Math.max(...products.map((i) => records.end[i] as number))
  const inside = (i: number): boolean =>
    records.stream[i] === 0 && (records.start[i] as number) >= begin && (records.end[i] as number) <= end
  return 1 - lengthOf(busyIntervals(records, inside)) / (end - begin)
}

export const work: Work<Cut, Result> = async ({ micro, samples = 8, config }) => {
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
const speed = ({ samples = 8 }: Cut, { seconds }: Result): number => (samples * tokens) / median(seconds)
const atStage = (stage: number, bf16 = false): Cut => ({
  micro: 4,
  config: { zero_optimization: { stage }, bf16: { enabled: bf16 } },
})
const hidden = (name: string, { overlap }: Result): Row => ({
  name: `${name}, communication under computation`,
  value: 100 * overlap,
  unit: '%',
})

/** The cut against stage 0 on as many samples, in turn, so that a machine's moods meet both. */
async function beside(name: string, cut: Cut, target: `>= ${number}`): Promise<{ rows: Row[]; last: Result }> {
  const base: Cut = { ...atStage(0), ...(cut.samples && { samples: cut.samples }) }
  const [theirs, ours]: [number[], number[]] = [[], []]
  let last: Result | undefined
  for (let round = 0; round < rounds; round++) {
    theirs.push(...(await on(base)).seconds)
    last = await on(cut)
    ours.push(...last.seconds)
  }
  const found = last as Result
  const [value, other] = [speed(cut, { ...found, seconds: ours }), speed(base, { ...found, seconds: theirs })]
  const rows: Row[] = [
    { name, value, unit: 'tokens/s', note: `stage 0 beside it: ${other.toFixed(0)}` },
    { name: `${name}, over stage 0`, value: value / other, unit: '×', target },
  ]
  return { rows, last: found }
}

async function stages(): Promise<Row[]> {
  const rows = [hidden('dp 2, stage 0', await on(atStage(0)))]
  for (const stage of [1, 2, 3]) {
    const name = `dp 2, stage ${stage}`
    const { rows: found, last } = await beside(name, atStage(stage), '>= 0.85')
    rows.push(...found, hidden(name, last))
  }
  for (const [stage, theirs] of [
    [1, 165],
    [2, 188],
    [3, 175],
  ] as const) {
    const name = `bf16, dp 2, stage ${stage}`
    const cut = atStage(stage, true)
    const result = await on(cut)
    const value = speed(cut, result)
    rows.push({ name, value, unit: 'tokens/s' }, hidden(name, result))
    const note = `DeepSpeed: ${theirs} tokens/s`
    rows.push({ name: `${name}, over DeepSpeed`, value: value / theirs, unit: '×', target: '>= 1.5', note })
  }
  return rows
}

/** 8 micro-batches of 4 samples. */
async function pipelines(): Promise<Row[]> {
  const cut = (schedule: string, partition: string): Cut => ({
    micro: 4,
    samples: 32,
    config: { mesh: { pipeline: 2 }, pipeline: { schedule, partition } },
  })
  const { rows, last } = await beside('pp 2, 8 micro-batches, cut by time', cut('1f1b', 'time'), '>= 0.8')
  const byParameters = cut('1f1b', 'parameters')
  const value = speed(byParameters, await on(byParameters))
  const gpipe = await on(cut('gpipe', 'time'))
  const formula = 1 / 9
  return [
    ...rows,
    { name: 'pp 2, 8 micro-batches, cut by parameters', value, unit: 'tokens/s' },
    { name: 'pp 2, bubble', value: last.idle, unit: '', note: `formula ${formula.toFixed(3)}` },
    { name: 'pp 2, bubble against the formula', value: Math.abs(last.idle - formula), unit: '', target: '<= 0.03' },
    {
      name: 'pp 2, peak activations of 1F1B over GPipe',
      value: last.activations / gpipe.activations,
      unit: '×',
      note: 'formula 0.25 on the first stage, and what one micro-batch needs while it runs',
    },
  ]
}

export default {
  title:
    'GPT-2 124M on 2 ranks of one thread: 64 tokens a sample, 8 samples a step (pipelines: 32), f32 where not said',
  async run() {
    if (availableParallelism() < 2) return []
    const rows = await stages()
    const { rows: found, last } = await beside('tp 2', { micro: 8, config: { mesh: { tensor: 2 } } }, '>= 0.8')
    return [...rows, ...found, hidden('tp 2', last), ...(await pipelines())]
  },
} satisfies Benchmark

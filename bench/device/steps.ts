// Whole training steps: tokens per second and MFU of each model in every layout that the ranks and their memory allow, with
// what the trace tells (does the device wait for JavaScript, is communication hidden) and what NVML tells (clocks, power).

import { inChild, median, type Row, type Work } from '../harness.js'
import {
  binding,
  createModel,
  deviceState,
  idleOf,
  initialize,
  memory,
  modelFlops,
  overlapShare,
  tensor,
  trace,
} from '../library.js'
import { type Layout, layoutName, layoutsOf, microBatchOf } from './layouts.js'
import { onDevice } from './measure.js'
import { type BenchModel, models } from './models.js'
import { peerRows } from './peers.js'
import { type Ceilings, peakOf, type SuiteBenchmark, type SuiteOptions, spread } from './suite.js'

export interface StepCase {
  layout: Layout
  /** Samples at once on a rank, and how often before an update. */
  micro: number
  accumulation: number
  /** As one graph. */
  graphs?: boolean
}

export interface StepOptions {
  model: BenchModel
  cases: StepCase[]
  dry: boolean
}

export interface StepResult {
  /** Why there is nothing else. */
  error?: string
  seconds: number
  tokens: number
  loss: number
  /** Shares of the compute stream's time of a step. */
  javascript: number
  others: number
  /** Of communication under computation. */
  hidden: number
  /** ns: how long before it began a task was queued at most. */
  runAhead: number
  /** Bytes, by category. */
  peak: Record<string, number>
  /** Of rank 0's device while it computed. */
  clock?: number
  power?: number
  throttle?: string[]
}

const configOf = ({ layout: { pp, tp, cp, kind, stage }, micro, accumulation, graphs }: StepCase) => ({
  ...(graphs && { cuda_graphs: true }),
  train_micro_batch_size_per_gpu: micro,
  gradient_accumulation_steps: accumulation,
  gradient_clipping: 1,
  bf16: { enabled: true },
  optimizer: { type: 'AdamW', params: { lr: 1e-4, betas: [0.9, 0.95], weight_decay: 0.1 } },
  zero_optimization: { stage },
  mesh: { pipeline: pp, tensor: tp, context: cp },
  ...(kind && { context_parallel: { type: kind } }),
})

/** Steps without a trace for the time, then with one for the shares. */
async function measure(model: BenchModel, one: StepCase, dry: boolean): Promise<StepResult> {
  const { native } = binding()
  const engine = await initialize({ model: createModel(model.config), config: configOf(one) })
  const { parts } = engine
  const length = model.sizes.sequence / one.layout.cp
  const { vocabulary, sequence } = model.sizes
  // Ranks that share samples (stages, tensor ranks) must draw the same ones.
  const { dp, cp } = parts.mesh.place
  let seed = 1 + 131 * dp + 17 * cp
  const next = (): number => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648
  // Drawn before, and taken by turns: what draws them is no part of a step.
  const drawn = Array.from({ length: 4 * one.accumulation }, () =>
    Int32Array.from({ length: one.micro * length }, () => next() * vocabulary),
  )
  let used = 0
  const ids = () => tensor(drawn[used++ % drawn.length] as Int32Array, [one.micro, length])
  const [warmup, timed, traced] = dry ? [1, 1, 1] : [3, 8, 3]
  const seconds: number[] = []
  let loss = Number.NaN
  let peak: Record<string, number> = {}
  const step = async (): Promise<number> => {
    const start = performance.now()
    const result = await engine.trainBatch(() => [ids(), ids()])
    loss = result.loss
    peak = result.memoryPeak
    return (performance.now() - start) / 1000
  }
  for (let i = 0; i < warmup; i++) await step()
  await native.synchronize(-1)
  for (let i = 0; i < timed; i++) seconds.push(await step())
  trace.start(1 << 18)
  for (let i = 0; i < traced; i++) await step()
  const state = native.device() === 'cuda' ? deviceState(Number(process.env.LOCAL_RANK ?? 0)) : undefined
  await native.synchronize(-1)
  const { records } = trace.take()
  trace.stop()
  const { total, javascript, others, runAhead } = idleOf(records)
  await engine.close()
  return {
    seconds: median(seconds),
    tokens: one.micro * one.accumulation * parts.mesh.sizes.dp * sequence,
    loss,
    javascript: javascript / total,
    others: others / total,
    hidden: overlapShare(records).share,
    runAhead,
    peak: { ...peak, reserved: memory.stats().reserved },
    ...(state?.smClock !== undefined && { clock: state.smClock }),
    ...(state?.power !== undefined && { power: state.power }),
    ...(state?.throttle && { throttle: state.throttle }),
  }
}

/** All cases of a model, on one world of ranks. */
export const work: Work<StepOptions, StepResult[]> = ({ model, cases, dry }) =>
  onDevice(async () => {
    const results: StepResult[] = []
    for (const one of cases) results.push(await measure(model, one, dry))
    return results
  })

/** Dry, one world does all cases; else each has processes of its own, and one that fails (no memory) takes no other along. */
export async function measureCases(
  model: BenchModel,
  cases: StepCase[],
  ranks: number,
  dry: boolean,
): Promise<StepResult[]> {
  const run = (some: StepCase[]): Promise<StepResult[]> =>
    inChild<StepOptions, StepResult[]>(
      import.meta.url,
      { model, cases: some, dry },
      { ranks, ...(dry && { threads: 1 }) },
    )
  if (dry) return cases.length > 0 ? run(cases) : []
  const results: StepResult[] = []
  for (const one of cases)
    results.push(...(await run([one]).catch((error: Error): StepResult[] => [{ ...failed, error: error.message }])))
  return results
}

const failed: StepResult = {
  seconds: Number.NaN,
  tokens: 0,
  loss: Number.NaN,
  javascript: 0,
  others: 0,
  hidden: 0,
  runAhead: 0,
  peak: {},
}

export function stepRow(model: BenchModel, one: StepCase, result: StepResult, ranks: number, ceilings: Ceilings): Row {
  const speed = result.tokens / result.seconds
  const flops = modelFlops(model.config, model.sizes.sequence)?.training ?? 0
  const achieved = (flops * speed) / ranks
  const { peak } = peakOf(ceilings)
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`
  const states = Object.values({ ...result.peak, reserved: 0, total: 0 }).reduce((a, b) => a + b, 0)
  const note = result.error
    ? [result.error.split('\n')[0]]
    : [
        `loss ${result.loss.toFixed(3)}`,
        `waits for JavaScript ${percent(result.javascript)}, for other streams ${percent(result.others)}`,
        `JavaScript at most ${(result.runAhead / 1e6).toFixed(1)} ms ahead`,
        ...(ranks > 1 ? [`communication hidden ${percent(result.hidden)}`] : []),
        `peak ${(states / 2 ** 30).toPrecision(3)} GiB`,
        ...(result.clock ? [`${result.clock} MHz, ${Math.round(result.power ?? 0)} W`] : []),
        ...(result.throttle?.length ? [`slowed by ${result.throttle.join(', ')}`] : []),
      ]
  const times = one.accumulation > 1 ? ` x ${one.accumulation}` : ''
  const batch = `micro-batch ${one.micro}${times}${one.graphs ? ', as graphs' : ''}`
  return {
    name: `${model.name}, ${layoutName(one.layout)}, ${batch}`,
    value: speed,
    unit: 'tokens/s',
    share: achieved / ceilings.bf16,
    mfu: achieved / peak,
    note: note.join('; '),
  }
}

/** Pipelines get four micro-batches a stage. */
const caseOf = (layout: Layout, micro: number): StepCase => ({
  layout,
  micro,
  accumulation: layout.pp > 1 ? 4 * layout.pp : 1,
})

export function casesOf(model: BenchModel, ranks: number, bytes: number, options: SuiteOptions): StepCase[] {
  const { dry, allLayouts } = options
  return layoutsOf(ranks, model.sizes, !allLayouts).flatMap((layout) => {
    const micro = dry ? 1 : microBatchOf(model.sizes, layout, bytes)
    return micro > 0 ? [caseOf(layout, micro)] : []
  })
}

/** One rank: the batch at which a model is fastest. */
function batches(model: BenchModel, bytes: number): StepCase[] {
  const layout: Layout = { pp: 1, tp: 1, cp: 1, dp: 1, kind: '', stage: 0 }
  const most = microBatchOf(model.sizes, layout, bytes, 128)
  return [4, 8, 16, 32, 64, 128].filter((micro) => micro <= most).map((micro) => caseOf(layout, micro))
}

const fastest = (results: StepResult[]): number => {
  const speeds = results.map(({ tokens, seconds }) => (tokens > 0 ? tokens / seconds : 0))
  return speeds.indexOf(Math.max(...speeds))
}

export default {
  title: 'Training steps: bf16, f32 master and moments, AdamW, clipping 1.0',
  async run(options) {
    const { dry, ranks, every, ceilings } = options
    const bytes = dry ? 1e9 : (binding().native.devices().devices[0]?.totalBytes ?? 0)
    const rows: Row[] = []
    for (const [index, model] of models(dry).entries()) {
      if (!model.name.includes(options.models)) continue
      let micro = 1
      const single = index === 0 && !dry ? batches(model, bytes) : casesOf(model, 1, bytes, options)
      const many = ranks > 1 ? spread(casesOf(model, ranks, bytes, options), every, 5 * index) : []
      for (const [count, cases] of [
        [1, single],
        [ranks, many],
      ] as const) {
        const results = await measureCases(model, cases, count, dry)
        if (cases === single && index === 0 && !dry) {
          const asGraph = { ...(cases[fastest(results)] as StepCase), graphs: true }
          cases.push(asGraph)
          results.push(...(await measureCases(model, [asGraph], 1, dry)))
        }
        if (cases === single) micro = cases[fastest(results)]?.micro ?? 1
        rows.push(...cases.map((one, i) => stepRow(model, one, results[i] as StepResult, count, ceilings as Ceilings)))
      }
      rows.push(...(await peerRows(model, micro, options)))
    }
    return rows
  },
} satisfies SuiteBenchmark

// What the step benchmarks share: a GPT-2 124M (or a small one) trained on random tokens, measured in its process.

import { readFileSync } from 'node:fs'
import { inChild, type Work } from './harness.js'
import { binding, createModel, initialize, memory, tensor, unscoped } from './library.js'

export interface TrainOptions {
  dtype: 'f32' | 'bf16'
  steps: number
  /** Samples of a step on each rank. */
  batch: number
  tokens: number
  stage?: 0 | 1
  model?: Record<string, unknown>
  /** Collect garbage and note the heap every 50 steps. */
  watchHeap?: boolean
}

export interface TrainResult {
  parameters: number
  /** Per step after the first: all of it, and what was spent inside forward, backward and step. */
  seconds: number[]
  javascript: number[]
  /** Busy share of the event loop over all steps after the first. */
  loopBusy: number
  firstSeconds: number
  loss: number
  /** Bytes: the peak of the process. */
  peakResident: number
  /** memory.stats() of the last step: live by category, peak of activations and buffers. */
  live: Record<string, number>
  peak: Record<string, number>
  /** After each step. */
  native: { live: number; reserved: number; tensors: number; resident: number }[]
  heap: number[]
}

const random = (seed: number) => (): number => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648

/** The peak of the process's resident memory, as Linux counts it. */
const peakResident = (): number => {
  const [, kilobytes] = /VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8')) ?? []
  return Number(kilobytes) * 1024
}

export const work: Work<TrainOptions, TrainResult> = async (options) => {
  const { dtype, steps, batch, tokens, stage = 0, model: config = {} } = options
  const model = createModel({ model_type: 'gpt2', resid_pdrop: 0, embd_pdrop: 0, ...config })
  const ranks = Number(process.env.WORLD_SIZE ?? 1)
  const engine = await initialize({
    model,
    config: {
      train_batch_size: batch * ranks,
      gradient_clipping: 1,
      optimizer: { type: 'AdamW', params: { lr: 1e-4 } },
      bf16: { enabled: dtype === 'bf16' },
      zero_optimization: { stage },
    },
  })
  const parameters = model.parameters().reduce((sum, { count }) => sum + count, 0)
  const next = random(engine.group.rank + 1)
  const ids = () =>
    tensor(
      Int32Array.from({ length: batch * tokens }, () => next() * model.vocabSize),
      [batch, tokens],
    )
  const rows: { seconds: number; javascript: number; loss: number }[] = []
  const [native, heap]: [TrainResult['native'], number[]] = [[], []]
  let loop = performance.eventLoopUtilization()
  for (let i = 0; i <= steps; i++) {
    if (i === 1) loop = performance.eventLoopUtilization()
    const start = performance.now()
    const inputs = unscoped(() => [ids(), ids()] as const)
    const loss = unscoped(() => engine.forward(...inputs))
    engine.backward(loss)
    for (const input of inputs) input.dispose()
    const update = engine.step()
    const javascript = (performance.now() - start) / 1000
    const result = await update
    const seconds = (performance.now() - start) / 1000
    rows.push({ seconds, javascript, loss: result?.loss ?? Number.NaN })
    const { live, reserved, tensors } = memory.stats()
    native.push({ live: live.total, reserved, tensors, resident: process.memoryUsage.rss() })
    if (options.watchHeap && i % 50 === 0) {
      globalThis.gc?.()
      heap.push(process.memoryUsage().heapUsed)
    }
  }
  const { utilization } = performance.eventLoopUtilization(loop)
  const { live, peak } = memory.stats()
  await binding().native.synchronize(-1)
  await engine.close()
  const later = rows.slice(1)
  return {
    parameters,
    seconds: later.map((row) => row.seconds),
    javascript: later.map((row) => row.javascript),
    loopBusy: utilization,
    firstSeconds: rows[0]?.seconds as number,
    loss: rows.at(-1)?.loss as number,
    peakResident: peakResident(),
    live,
    peak,
    native,
    heap,
  }
}

/** Trains on `ranks` processes that share the machine's threads; rank 0's result. */
export const train = (options: TrainOptions, ranks = 1): Promise<TrainResult> =>
  inChild(import.meta.url, options, { ranks })

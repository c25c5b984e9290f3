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
  /** Collect garbage and note memory every 50 steps, and keep nothing else that grows. */
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
  /** After each step, or every 50. */
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
  const [seconds, javascript] = [new Float64Array(steps + 1), new Float64Array(steps + 1)]
  const [native, heap]: [TrainResult['native'], number[]] = [[], []]
  let loss = Number.NaN
  let loop = performance.eventLoopUtilization()
  for (let i = 0; i <= steps; i++) {
    if (i === 1) loop = performance.eventLoopUtilization()
    const start = performance.now()
    const inputs = unscoped(() => [ids(), ids()] as const)
    const output = unscoped(() => engine.forward(...inputs))
    engine.backward(output)
    for (const input of inputs) input.dispose()
    const update = engine.step()
    javascript[i] = (performance.now() - start) / 1000
    loss = (await update)?.loss ?? Number.NaN
    seconds[i] = (performance.now() - start) / 1000
    if (options.watchHeap && i % 50 > 0) continue
    const { live, reserved, tensors } = memory.stats()
    native.push({ live: live.total, reserved, tensors, resident: process.memoryUsage.rss() })
    if (!options.watchHeap) continue
    globalThis.gc?.()
    heap.push(process.memoryUsage().heapUsed)
  }
  const { utilization } = performance.eventLoopUtilization(loop)
  const { live, peak } = memory.stats()
  await binding().native.synchronize(-1)
  await engine.close()
  return {
    parameters,
    seconds: [...seconds.subarray(1)],
    javascript: [...javascript.subarray(1)],
    loopBusy: utilization,
    firstSeconds: seconds[0] as number,
    loss,
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

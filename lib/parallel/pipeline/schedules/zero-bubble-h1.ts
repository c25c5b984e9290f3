// ZB-H1 (Qi et al. 2023, "Zero Bubble Pipeline Parallelism"): 1F1B with the backward in two parts. Only the input
// gradient is on the path to the stage before; stage s keeps its weight gradients back by s micro-batches and fills
// with them what would be idle at the end. With equal forward, input and weight gradient the bubble is a third of
// 1F1B's: idle time (stages - 1)·(forward + input - weight) per stage.

import type { Computation } from '../instruction.js'
import { defineSchedule } from '../schedule.js'

/** Forwards before the first backward. */
export const numWarmup = (stages: number, microBatches: number, stage: number): number =>
  Math.min(stages - stage, microBatches)

/** Weight gradients that wait while the pipeline is full. */
export const numDelayed = (stage: number): number => stage

export const zeroBubbleH1 = defineSchedule({
  name: 'zb-h1',
  numChunks: 1,
  layout: 'loop',
  forwardOnly: false,
  order(stages, microBatches, stage) {
    const order: Computation[] = []
    const push = (op: Computation['op'], microBatch: number): void => {
      if (microBatch >= 0 && microBatch < microBatches) order.push({ op, chunk: 0, microBatch })
    }
    const warmup = numWarmup(stages, microBatches, stage)
    for (let i = -warmup; i < microBatches + numDelayed(stage); i++) {
      push('backwardInput', i)
      push('backwardWeight', i - numDelayed(stage))
      push('forward', i + warmup)
    }
    return order
  },
  // What a later stage saves in micro-batches in flight it spends on weight gradients that wait: no stage holds more
  // than 1F1B's first one.
  maxActivations: (stages, microBatches) => Math.min(stages, microBatches),
})

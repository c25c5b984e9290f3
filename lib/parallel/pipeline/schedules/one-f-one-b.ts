// 1F1B (PipeDream-flush, Narayanan et al. 2021): GPipe's bubble with fewer activations. A stage runs ahead by as many
// forwards as there are stages behind it, then one forward and one backward in turn, then the backwards left over.

import type { Computation } from '../instruction.js'
import { defineSchedule } from '../schedule.js'

/** Forwards before the first pair: the stages behind. */
export const numWarmup = (stages: number, microBatches: number, stage: number): number =>
  Math.min(stages - stage - 1, microBatches)

export const oneF1B = defineSchedule({
  name: '1f1b',
  numChunks: 1,
  layout: 'loop',
  forwardOnly: false,
  order(stages, microBatches, stage) {
    const order: Computation[] = []
    const warmup = numWarmup(stages, microBatches, stage)
    for (let i = 0; i < microBatches + warmup; i++) {
      if (i < microBatches) order.push({ op: 'forward', chunk: 0, microBatch: i })
      if (i >= warmup) order.push({ op: 'backward', chunk: 0, microBatch: i - warmup })
    }
    return order
  },
  maxActivations: (stages, microBatches, stage) => Math.min(stages - stage, microBatches),
})

// GPipe (Huang et al. 2019): all forwards, then all backwards. The simplest schedule and the hungriest: every
// micro-batch's activations are held. Bubble (stages - 1) / (microBatches + stages - 1).

import type { Computation } from '../instruction.js'
import { defineSchedule } from '../schedule.js'

export const gpipe = defineSchedule({
  name: 'gpipe',
  numChunks: 1,
  layout: 'loop',
  forwardOnly: false,
  order(_stages, microBatches) {
    const all = (op: Computation['op']): Computation[] =>
      Array.from({ length: microBatches }, (_, microBatch) => ({ op, chunk: 0, microBatch }))
    return [...all('forward'), ...all('backward')]
  },
  maxActivations: (_stages, microBatches) => microBatches,
})

// ZB-V (Qi et al. 2024, "Pipeline Parallelism with Controllable Memory"): two chunks per stage, down and back up, so
// that the first stage also computes the loss, and the backward in two parts. With equal forward, input and weight
// gradient a stage never idles between its first and its last instruction: all that is lost is the way of the first
// micro-batch down, stages - 1 forwards of half a stage. Holds at most what 1F1B's first stage holds: 2·stages halves.

import type { Computation } from '../instruction.js'
import { defineSchedule } from '../schedule.js'

/** Micro-batches of chunk 0 before the first of chunk 1 comes back: the way down and up. */
export const numWarmup = (stages: number, microBatches: number, stage: number): number =>
  Math.min(2 * (stages - stage) - 1, microBatches)

// The six kinds of work: forward, input gradient and weight gradient of chunk 0 (down) and chunk 1 (back up).
const [F0, F1, B0, B1, W0, W1] = [0, 1, 2, 3, 4, 5]
const OPS = ['forward', 'backwardInput', 'backwardWeight'] as const

export const zeroBubbleV = defineSchedule({
  name: 'zb-v',
  numChunks: 2,
  layout: 'vee',
  forwardOnly: false,
  order(stages, microBatches, stage) {
    // The pattern needs 2·stages - 1 micro-batches. With fewer, it is the pattern for that many with some left out,
    // which cannot make it deadlock or hold more. Leaving out the first ones as well keeps the better end of it
    // (simulated for 2 to 16 stages: 38 instead of 46 units idle for 8 micro-batches on 16 stages).
    const total = Math.max(microBatches, 2 * stages - 1)
    const leftOut = total === microBatches ? 0 : Math.max(0, Math.floor(1.5 * stages) - microBatches)
    const order: Computation[] = []
    const done = [0, 0, 0, 0, 0, 0]
    const repeat = (times: number, ...kinds: number[]): void => {
      for (let i = 0; i < times; i++) {
        for (const kind of kinds) {
          const count = done[kind] as number
          if (count === total) continue
          done[kind] = count + 1
          const microBatch = count - leftOut
          if (microBatch < 0 || microBatch >= microBatches) continue
          order.push({ op: OPS[kind >> 1] as Computation['op'], chunk: kind & 1, microBatch })
        }
      }
    }
    const behind = stages - stage
    // Fill: 2·stages - 1 halves in flight at the end of it, on every stage.
    repeat(2 * behind - 1, F0)
    repeat(stage, F1, F0)
    repeat(behind, F1, B1, W1)
    // Steady; the forwards of chunk 0 run out first.
    repeat(total - stages, F0, B0, W0, F1, B1, W1)
    // Drain: input gradients first, since the stages before wait for them.
    repeat(stage, B0, B1)
    repeat(behind, B0, W0)
    repeat(stage, W1)
    repeat(stage, W0)
    return order
  },
  maxActivations: (stages, microBatches) => 2 * Math.min(stages, microBatches),
})

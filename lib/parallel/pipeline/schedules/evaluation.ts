// Forward only, for a model that lies where a training schedule put it. Nothing is held for a backward.

import type { Computation } from '../instruction.js'
import { defineSchedule, type Schedule } from '../schedule.js'
import { groupedTurns } from './interleaved.js'
import { numWarmup } from './zero-bubble-v.js'

/** The forwards for the placement of `training`; without it, one chunk per stage. */
export function evaluation({ numChunks, layout }: Pick<Schedule, 'numChunks' | 'layout'> = ONE_CHUNK): Schedule {
  return defineSchedule({
    name: 'evaluation',
    numChunks,
    layout,
    forwardOnly: true,
    order(stages, microBatches, stage) {
      const forward = (chunk: number, microBatch: number): Computation => ({ op: 'forward', chunk, microBatch })
      if (layout === 'loop') {
        const turns = [...groupedTurns(stages, microBatches, numChunks)]
        return turns.map((turn) => forward(Math.floor(turn / microBatches), turn % microBatches))
      }
      const order: Computation[] = []
      const warmup = numWarmup(stages, microBatches, stage)
      for (let i = 0; i < microBatches + warmup; i++) {
        if (i >= warmup) order.push(forward(1, i - warmup))
        if (i < microBatches) order.push(forward(0, i))
      }
      return order
    },
    maxActivations: () => 0,
  })
}

const ONE_CHUNK = { numChunks: 1, layout: 'loop' } as const

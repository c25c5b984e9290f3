// Interleaved 1F1B (Narayanan et al. 2021): a stage holds several chunks of the model, a turn apart, so that the
// pipeline fills numChunks times sooner. Bubble (stages - 1) / (numChunks · microBatches + stages - 1), for
// numChunks times the transfers and more activations.

import { ZeroshardError } from '../../../binding/errors.js'
import type { Computation } from '../instruction.js'
import { defineSchedule, type Schedule } from '../schedule.js'

/**
 * Micro-batches go through the chunks in groups: a group through chunk 0, then through chunk 1, …, then the next group.
 * A group shorter than the pipeline would make every turn of it wait, so the remainder is spread over
 * floor(microBatches / stages) groups: `stages` micro-batches each where it divides, else a few more. Fewer
 * micro-batches than stages are one group.
 */
function groupSizes(stages: number, microBatches: number): number[] {
  const numGroups = Math.max(1, Math.floor(microBatches / stages))
  const size = Math.floor(microBatches / numGroups)
  return Array.from({ length: numGroups }, (_, group) => size + (group < microBatches % numGroups ? 1 : 0))
}

/**
 * The order of the forwards, each as turn · microBatches + micro-batch; turn t is chunk t, in the backward the t-th from
 * the end.
 */
export function groupedTurns(stages: number, microBatches: number, numChunks: number): Int32Array {
  const order = new Int32Array(numChunks * microBatches)
  let first = 0
  let at = 0
  for (const size of groupSizes(stages, microBatches)) {
    for (let turn = 0; turn < numChunks; turn++) {
      for (let i = 0; i < size; i++) order[at++] = turn * microBatches + first + i
    }
    first += size
  }
  return order
}

/** Forwards before the first pair: two for each stage behind, and a group for each chunk but the last. */
export function numWarmup(stages: number, microBatches: number, numChunks: number, stage: number): number {
  const longest = groupSizes(stages, microBatches)[0] as number
  return Math.min(2 * (stages - stage - 1) + (numChunks - 1) * longest, numChunks * microBatches)
}

export function interleaved1F1B(numChunks: number): Schedule {
  if (!Number.isSafeInteger(numChunks) || numChunks < 1) {
    throw new ZeroshardError('ARGUMENT', `[interleaved] chunks must be a whole number above 0, not ${numChunks}`)
  }
  return defineSchedule({
    name: 'interleaved',
    numChunks,
    layout: 'loop',
    forwardOnly: false,
    order(stages, microBatches, stage) {
      const order: Computation[] = []
      const turns = groupedTurns(stages, microBatches, numChunks)
      const warmup = numWarmup(stages, microBatches, numChunks, stage)
      const push = (op: 'forward' | 'backward', i: number): void => {
        const turn = Math.floor((turns[i] as number) / microBatches)
        const chunk = op === 'forward' ? turn : numChunks - 1 - turn
        order.push({ op, chunk, microBatch: (turns[i] as number) % microBatches })
      }
      for (let i = 0; i < turns.length + warmup; i++) {
        if (i < turns.length) push('forward', i)
        if (i >= warmup) push('backward', i - warmup)
      }
      return order
    },
    maxActivations: (stages, microBatches, stage) =>
      Math.min(numWarmup(stages, microBatches, numChunks, stage) + 1, numChunks * microBatches),
  })
}

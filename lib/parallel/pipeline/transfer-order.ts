// For communication where a send waits for its receive and a stage does one transfer after the other (one NCCL stream
// for all peers). There the lists of a schedule can stop: two stages that send to each other wait for ever. Here every
// list follows one order of all events of the pipeline, that of a run with equal times, so that nobody waits for
// something later in it.

import { isSend } from './instruction.js'
import { messageOf } from './placement.js'
import type { Pipeline } from './schedule.js'
import { simulate } from './simulator.js'

/** The same computations in the same order, with the transfers where `rendezvous` sends cannot deadlock either. */
export function orderTransfers(pipeline: Pipeline): Pipeline {
  const { starts } = simulate(pipeline, { forward: 1 })
  const sentAt = new Map<number, number>()
  for (const [stage, list] of pipeline.lists.entries()) {
    for (const [i, instruction] of list.entries()) {
      if (!('peer' in instruction) || !isSend(instruction)) continue
      sentAt.set(messageOf(pipeline, pipeline.microBatches, stage, instruction), starts[stage]?.[i] as number)
    }
  }
  const lists = pipeline.lists.map((list, stage) => {
    const events = list.map((instruction, i) => {
      // A transfer is one event on both sides: when its content exists. It comes before what starts then.
      const message =
        'peer' in instruction
          ? messageOf(pipeline, pipeline.microBatches, stage, instruction)
          : Number.POSITIVE_INFINITY
      const time = sentAt.get(message) ?? (starts[stage]?.[i] as number)
      return { instruction, time, message, i }
    })
    events.sort((a, b) => a.time - b.time || (a.message === b.message ? a.i - b.i : a.message - b.message))
    return events.map(({ instruction }) => instruction)
  })
  return { ...pipeline, lists }
}

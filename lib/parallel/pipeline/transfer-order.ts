// For communication where a send waits for its receive and a stage does one transfer after the other (one NCCL stream
// for all peers). There the lists of a schedule can stop: two stages that send to each other wait for ever. Here every
// list follows one order of all events of the pipeline, that of a run with equal times, so that nobody waits for
// something later in it.

import type { Transfer } from './instruction.js'
import { virtualStageOf } from './placement.js'
import type { Pipeline } from './schedule.js'
import { simulate } from './simulator.js'

/** The same computations in the same order, with the transfers where `rendezvous` sends cannot deadlock either. */
export function orderTransfers(pipeline: Pipeline): Pipeline {
  const { starts } = simulate(pipeline, { forward: 1 })
  const sentAt = new Map<number, number>()
  for (const [stage, list] of pipeline.lists.entries()) {
    for (const [i, instruction] of list.entries()) {
      if (instruction.op !== 'sendForward' && instruction.op !== 'sendBackward') continue
      sentAt.set(messageOf(pipeline, stage, instruction), starts[stage]?.[i] as number)
    }
  }
  const lists = pipeline.lists.map((list, stage) => {
    const events = list.map((instruction, i) => {
      // A transfer is one event on both sides: when its content exists. It comes before what starts then.
      const message = 'peer' in instruction ? messageOf(pipeline, stage, instruction) : Number.POSITIVE_INFINITY
      const time = sentAt.get(message) ?? (starts[stage]?.[i] as number)
      return { instruction, time, message, i }
    })
    events.sort((a, b) => a.time - b.time || (a.message === b.message ? a.i - b.i : a.message - b.message))
    return events.map(({ instruction }) => instruction)
  })
  return { ...pipeline, lists }
}

/** A number for each message, the same for its sender and its receiver. */
function messageOf(pipeline: Pipeline, stage: number, { op, chunk, microBatch }: Transfer): number {
  const own = virtualStageOf(pipeline, chunk, stage)
  const forward = op === 'sendForward' || op === 'recvForward'
  const sender = op === 'recvForward' ? own - 1 : op === 'recvBackward' ? own + 1 : own
  return (sender * pipeline.microBatches + microBatch) * 2 + Number(forward)
}

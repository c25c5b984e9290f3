// A simulated pipeline as trace events, for https://ui.perfetto.dev: a track per stage, an arrow per transfer, and a
// track for the reductions, since they overlap with computing.

import { isSend } from './instruction.js'
import { messageOf, virtualStageOf } from './placement.js'
import type { Pipeline } from './schedule.js'
import type { Simulation } from './simulator.js'

/** One event of the Trace Event Format; `ts` and `dur` in microseconds. */
export interface TraceEvent {
  name: string
  ph: 'X' | 'M' | 's' | 'f'
  pid: number
  tid: number
  ts?: number
  dur?: number
  cat?: string
  id?: number
  bp?: 'e'
  args?: Record<string, string | number>
}

/** `JSON.stringify` of this opens in Perfetto. `microseconds`: how many a unit of the simulated time is. */
export function traceOf(
  pipeline: Pipeline,
  simulation: Simulation,
  { microseconds = 1e6 }: { microseconds?: number } = {},
): { traceEvents: TraceEvent[] } {
  const { name, stages, microBatches } = pipeline
  const title = `${name}, ${stages} stages, ${microBatches} micro-batches`
  const events: TraceEvent[] = [{ name: 'process_name', ph: 'M', pid: 0, tid: 0, args: { name: title } }]
  const track = (tid: number, name: string): void => {
    events.push({ name: 'thread_name', ph: 'M', pid: 0, tid, args: { name } })
    events.push({ name: 'thread_sort_index', ph: 'M', pid: 0, tid, args: { sort_index: tid } })
  }
  for (const [stage, list] of pipeline.lists.entries()) {
    const tids = { compute: 2 * stage, reduce: 2 * stage + 1 }
    track(tids.compute, `stage ${stage}`)
    track(tids.reduce, `stage ${stage}: reduce`)
    for (const [i, instruction] of list.entries()) {
      const ts = (simulation.starts[stage]?.[i] as number) * microseconds
      const end = (simulation.ends[stage]?.[i] as number) * microseconds
      if ('peer' in instruction) {
        const id = messageOf(pipeline, microBatches, stage, instruction)
        // The begin of an arrow belongs to the slice around it: just inside the one that made what is sent.
        const flow = { name: 'transfer', cat: 'transfer', pid: 0, tid: tids.compute, id }
        if (isSend(instruction)) events.push({ ...flow, ph: 's', ts: Math.max(0, ts - 1e-3) })
        else events.push({ ...flow, ph: 'f', bp: 'e', ts: end })
        continue
      }
      const slice = { ph: 'X', pid: 0, ts, dur: end - ts } as const
      if (instruction.op === 'step') events.push({ ...slice, name: 'step', tid: tids.compute })
      else if (instruction.op === 'reduceGradients') {
        events.push({ ...slice, name: `reduce chunk ${instruction.chunk}`, tid: tids.reduce })
      } else {
        const { op, chunk, microBatch } = instruction
        const args = { chunk, microBatch, virtualStage: virtualStageOf(pipeline, chunk, stage) }
        events.push({ ...slice, name: `${op} ${microBatch}`, tid: tids.compute, args })
      }
    }
  }
  return { traceEvents: events }
}

// DeepSpeed's wall_clock_breakdown without its synchronisations: what the streams did for each phase of a step.

import { idleOf } from './idle.js'
import { byPhase, type Span, type TraceRecords } from './trace.js'

/**
 * Milliseconds by phase, with DeepSpeed's names for those of backward: forward, backward, step (any stream was busy
 * with it), backward_inner (the compute stream), backward_allreduce (communication), …_exposed (communication under
 * which nothing was computed), host (JavaScript in forward and backward: queueing), idle_javascript and idle_others (the
 * compute stream stood still: nothing was queued; it waited for another stream or its launch), run_ahead (how long at most
 * a task was queued before it began). `known`: spans of this step and
 * the last one, whose communication may end in this; `phases`: of this step.
 */
export function breakdown(
  records: TraceRecords,
  known: readonly Span[],
  phases: readonly Span[],
): Record<string, number> {
  const times = byPhase(records, known)
  const milliseconds: Record<string, number> = {}
  for (const [name, { compute, communication, busy, hidden }] of times) {
    milliseconds[name] = busy / 1e6
    if (name === 'backward') {
      milliseconds.backward_inner = compute / 1e6
      milliseconds.backward_allreduce = communication / 1e6
    } else if (communication > 0) milliseconds[`${name}_communication`] = communication / 1e6
    if (communication > 0) milliseconds[`${name}_exposed`] = (communication - hidden) / 1e6
  }
  milliseconds.host = phases.reduce((sum, { name, start, end }) => sum + (name === 'step' ? 0 : end - start), 0) / 1e6
  const { javascript, others, runAhead } = idleOf(records)
  milliseconds.idle_javascript = javascript / 1e6
  milliseconds.idle_others = others / 1e6
  milliseconds.run_ahead = runAhead / 1e6
  return milliseconds
}

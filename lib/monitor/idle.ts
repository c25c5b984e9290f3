// Why the compute stream stood still, and how far JavaScript was ahead of it, from the records of a trace: whether a GPU
// ever waits for JavaScript is a number.

import { streams } from '../binding/native.js'
import type { TraceRecords } from './trace.js'

/** Of the compute stream, ns. */
export interface Idle {
  /** From the start of its first task to the end of its last. */
  total: number
  busy: number
  /** Nothing was queued: JavaScript was elsewhere, or waited for a result. */
  javascript: number
  /** The next task was queued, but waited for other streams, or for its launch. */
  others: number
  /** How long before its start the task was queued that was queued the longest before. */
  runAhead: number
}

const compute = streams.indexOf('compute')

/**
 * Where the time of the compute stream went. All 0 where it had no tasks.
 *
 * @example
 * monitor.trace.start()
 * await ops.add(tensor([1, 2]), tensor([3, 4])).data()
 * const { busy, total } = monitor.idleOf(monitor.trace.take().records)
 * monitor.trace.stop()
 * busy > 0 && busy <= total // true
 */
export function idleOf(records: TraceRecords): Idle {
  const { start, end, queued, stream } = records
  const tasks = Array.from(start.keys()).filter((i) => stream[i] === compute)
  tasks.sort((a, b) => (start[a] as number) - (start[b] as number))
  const idle: Idle = { total: 0, busy: 0, javascript: 0, others: 0, runAhead: 0 }
  let reached = start[tasks[0] as number] as number
  const begin = reached
  for (const i of tasks) {
    const [from, to, asked] = [start[i] as number, end[i] as number, queued[i] as number]
    const gap = Math.max(0, from - reached)
    const forJavaScript = Math.min(gap, Math.max(0, asked - reached))
    idle.javascript += forJavaScript
    idle.others += gap - forJavaScript
    idle.busy += Math.max(0, to - Math.max(from, reached))
    idle.runAhead = Math.max(idle.runAhead, from - asked)
    reached = Math.max(reached, to)
  }
  if (tasks.length > 0) idle.total = reached - begin
  return idle
}

// Trace records from rows, as the addon would give them.

import { collectiveKinds, streams } from '../../lib/binding/native.js'
import type { TraceRecords } from '../../lib/monitor/trace.js'

export interface TaskRow {
  name?: string
  stream?: (typeof streams)[number]
  queued?: number
  launched?: number
  start: number
  end: number
  flops?: number
  kind?: (typeof collectiveKinds)[number]
  ranks?: number
  bytes?: number
}

export function recordsOf(rows: readonly TaskRow[], more: Partial<TraceRecords> = {}): TraceRecords {
  const names = [...new Set(rows.map((row) => row.name ?? row.kind ?? 'op'))]
  const ints = (of: (row: TaskRow) => number): Int32Array => Int32Array.from(rows, of)
  const floats = (of: (row: TaskRow) => number): Float64Array => Float64Array.from(rows, of)
  return {
    names,
    name: ints((row) => names.indexOf(row.name ?? row.kind ?? 'op')),
    stream: ints((row) => streams.indexOf(row.stream ?? (row.kind ? 'communication' : 'compute'))),
    queued: floats((row) => row.queued ?? row.start),
    launched: floats((row) => row.launched ?? row.start),
    start: floats((row) => row.start),
    end: floats((row) => row.end),
    flops: floats((row) => row.flops ?? 0),
    kind: ints((row) => (row.kind ? collectiveKinds.indexOf(row.kind) : -1)),
    group: ints((row) => (row.kind ? 0 : -1)),
    groupSize: ints((row) => (row.kind ? (row.ranks ?? 2) : 0)),
    dtype: ints((row) => (row.kind ? 0 : -1)),
    count: floats((row) => (row.bytes ?? 0) / 4),
    bytes: floats((row) => row.bytes ?? 0),
    dropped: 0,
    wallOffset: 0,
    ...more,
  }
}

// Busy times and overlap against counting on a grid; trace files as a reader finds them.

import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  busyIntervals,
  byPhase,
  type Interval,
  intersection,
  lastAtMost,
  lengthOf,
  overlapShare,
} from '../../lib/monitor/trace.js'
import { mergeTraces, TraceFile } from '../../lib/monitor/trace-file.js'
import { fc } from '../helpers/properties.js'
import { recordsOf, type TaskRow } from '../helpers/trace.js'

const grid = 60
const tasks = fc.array(
  fc.record({ start: fc.nat({ max: grid - 1 }), length: fc.nat({ max: 12 }), communicates: fc.boolean() }),
  { maxLength: 12 },
)
const rowsOf = (list: { start: number; length: number; communicates: boolean }[]): TaskRow[] =>
  list.map(({ start, length, communicates }) => ({
    start,
    end: Math.min(start + length, grid),
    ...(communicates && { kind: 'allReduce' as const }),
  }))
/** Cells of the grid in which one of the rows runs. */
const cells = (rows: TaskRow[]): boolean[] =>
  Array.from({ length: grid }, (_, cell) => rows.some(({ start, end }) => start <= cell && cell < end))
const countOf = (marks: boolean[]): number => marks.filter(Boolean).length

t.test('busy times and overlap are those of a grid that is counted cell by cell', async () => {
  fc.assert(
    fc.property(tasks, (list) => {
      const rows = rowsOf(list)
      const records = recordsOf(rows)
      const [moved, computed] = [rows.filter((row) => row.kind), rows.filter((row) => !row.kind)].map(cells) as [
        boolean[],
        boolean[],
      ]
      const both = moved.map((mark, cell) => mark && (computed[cell] as boolean))
      const { communication, hidden, share } = overlapShare(records)
      const merged = busyIntervals(records, () => true)
      return (
        communication === countOf(moved) &&
        hidden === countOf(both) &&
        share === (communication ? hidden / communication : 1) &&
        merged.every((interval, i) => i === 0 || interval[0] > (merged[i - 1] as Interval)[1])
      )
    }),
    { numRuns: 200 },
  )
})

t.test('overlap: the part of the communication under computation, barriers apart', async (t) => {
  const records = recordsOf([
    { start: 0, end: 100 },
    { start: 50, end: 150, kind: 'allReduce' },
    { start: 200, end: 900, kind: 'barrier' },
    { start: 120, end: 140, stream: 'copy' },
  ])
  t.strictSame(overlapShare(records), { share: 0.5, communication: 100, hidden: 50 })
  const inOneStream = recordsOf([
    { start: 0, end: 10 },
    { start: 10, end: 30, kind: 'allReduce', stream: 'compute' },
  ])
  t.equal(overlapShare(inOneStream).share, 0, 'a collective on the compute stream hides nothing')
})

t.test('intersection of lists with touching and nested intervals', async (t) => {
  t.strictSame(intersection([[0, 5]], [[5, 9]]), [])
  t.strictSame(
    intersection(
      [
        [0, 10],
        [20, 30],
      ],
      [
        [2, 3],
        [4, 25],
      ],
    ),
    [
      [2, 3],
      [4, 10],
      [20, 25],
    ],
  )
  t.equal(lengthOf([]), 0)
  t.strictSame(
    [0, 1, 2, 9].map((value) => lastAtMost([1, 2, 2, 5], value)),
    [-1, 0, 2, 3],
  )
})

t.test('a task belongs to the phase in which it was queued, whenever it ran', async (t) => {
  const records = recordsOf([
    { queued: 5, start: 100, end: 140 },
    { queued: 15, start: 140, end: 200 },
    { queued: 16, start: 150, end: 250, kind: 'reduceScatter' },
    { queued: 50, start: 250, end: 260 },
  ])
  const times = byPhase(records, [
    { name: 'backward', start: 10, end: 20 },
    { name: 'forward', start: 0, end: 9 },
  ])
  t.strictSame(times.get('forward'), { communication: 0, hidden: 0, share: 1, compute: 40, busy: 40 })
  t.strictSame(times.get('backward'), { communication: 100, hidden: 50, share: 0.5, compute: 60, busy: 110 })
})

function folderOf(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'zeroshard-trace-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
interface Event {
  name: string
  ph: string
  ts: number
  dur?: number
  pid: number
  tid: number
  args?: Record<string, unknown>
}
const eventsOf = (path: string): Event[] => JSON.parse(readFileSync(path, 'utf8')).traceEvents

function write(path: string, rank: number, rows: TaskRow[], wallOffset = 0): void {
  const file = new TraceFile(path, { rank })
  file.add({ records: recordsOf(rows, { wallOffset }), spans: [{ name: 'forward', start: 1000, end: 3000 }] })
  file.close()
}

t.test('a trace file is JSON: ranks are processes, streams threads, times microseconds', async (t) => {
  const path = join(folderOf(t), 'new', 'trace.json')
  write(path, 3, [
    { name: 'matmul', queued: 1500, start: 2000, end: 4500, flops: 5000 },
    { kind: 'allReduce', start: 4000, end: 5000, bytes: 2000, ranks: 4 },
  ])
  const events = eventsOf(path)
  const named = (name: string): Event | undefined => events.find((event) => event.name === name)
  t.match(named('matmul'), { ph: 'X', ts: 2, dur: 2.5, pid: 3, tid: 0 })
  t.match(named('matmul')?.args, { 'queued before (us)': 0.5, GFLOPS: 2 })
  t.match(named('allReduce'), { ts: 4, dur: 1, tid: 1, args: { ranks: 4, bytes: 2000, 'GB/s': 2, dtype: 'f32' } })
  t.match(named('forward'), { ts: 1, dur: 2, tid: 5 })
  t.match(named('process_name')?.args, { name: 'rank 3' })
  t.strictSame(
    events.filter((event) => event.name === 'thread_name').map((event) => event.args?.name),
    ['compute', 'communication', 'copy', 'disk', 'messages', 'javascript'],
  )
})

t.test('a file without a step is valid, a full one takes no more, lost tasks are told', async (t) => {
  const folder = folderOf(t)
  const empty = join(folder, 'empty.json')
  new TraceFile(empty, { rank: 0 }).close()
  t.ok(eventsOf(empty).every((event) => event.ph === 'M'))
  const path = join(folder, 'full.json')
  const file = new TraceFile(path, { rank: 0, maxEvents: 3 })
  const taken = {
    records: recordsOf(
      [
        { start: 1, end: 2 },
        { start: 2, end: 3 },
      ],
      { dropped: 7 },
    ),
    spans: [],
  }
  file.add(taken)
  t.ok(file.full)
  file.add(taken)
  file.counter('memory', 3, { total: 1 })
  file.close()
  const events = eventsOf(path).filter((event) => event.ph !== 'M')
  t.equal(events.length, 3)
  t.match(events[2], { name: '7 tasks had no room', ph: 'i' })
})

t.test('merged files keep ranks apart; another host is placed by its wall clock; a torn file counts', async (t) => {
  const folder = folderOf(t)
  const [a, b, c, merged] = ['a', 'b', 'c', 'merged'].map((name) => join(folder, `${name}.json`)) as string[]
  write(a as string, 0, [{ start: 1000, end: 2000 }], 50)
  write(b as string, 1, [{ start: 1000, end: 2000 }], 50)
  write(
    c as string,
    2,
    [
      { start: 1000, end: 2000 },
      { start: 3000, end: 4000 },
    ],
    80,
  )
  const text = readFileSync(c as string, 'utf8').replace(/"clock":"[^"]*"/, '"clock":"elsewhere"')
  writeFileSync(c as string, text)
  truncateSync(c as string, text.length - 30)
  await mergeTraces([a, b, c] as string[], merged as string)
  const tasks = eventsOf(merged as string).filter((event) => event.ph === 'X' && event.tid === 0)
  t.strictSame(
    tasks.map(({ pid, ts }) => [pid, ts]),
    [
      [0, 1],
      [1, 1],
      [2, 31],
    ],
  )
  await t.rejects(mergeTraces([], merged as string), { code: 'ARGUMENT' })
  await t.rejects(mergeTraces([join(folder, 'none.json')], merged as string), { code: 'IO' })
  writeFileSync(b as string, '{"otherData":{}}\n')
  await t.rejects(mergeTraces([b] as string[], merged as string), { code: 'IO' })
})

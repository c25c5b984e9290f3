// What the streams and JavaScript did, on one clock (CLOCK_MONOTONIC, ns): native records of every task, and spans
// around functions. One trace per environment, as there is one native runtime; off until start().

import { ZeroshardError } from '../binding/errors.js'
import { binding, collectiveKinds, type NativeTrace, streams } from '../binding/native.js'
import { inRange } from '../tensor/range.js'

/** Columns of task records; see NativeTrace. */
export type TraceRecords = NativeTrace

/** One task of a stream, from start to end. */
export interface Span {
  name: string
  /** ns */
  start: number
  end: number
}

/** Nanoseconds of the clock that native records have. */
export function now(): number {
  const [seconds, nanoseconds] = process.hrtime()
  return seconds * 1e9 + nanoseconds
}

export class Tracer {
  #spans: Span[] = []
  #on = false

  get on(): boolean {
    return this.#on
  }

  /** Records from now on; natively the newest `capacity` tasks between two takes. Forgets what was not taken. */
  start(capacity = 1 << 16): void {
    if (!Number.isInteger(capacity) || capacity < 1) {
      throw new ZeroshardError(
        'ARGUMENT',
        `[trace] capacity ${capacity} must be a positive integer; stop() ends a trace`,
      )
    }
    binding().native.traceStart(capacity)
    this.#spans = []
    this.#on = true
  }

  stop(): void {
    binding().native.traceStart(0)
    this.#spans = []
    this.#on = false
  }

  /** Runs `work`; where it gives a promise, the span ends when that settles. A range for NVTX tools, too. */
  span<T>(name: string, work: () => T): T {
    return inRange(name, () => this.#span(name, work))
  }

  #span<T>(name: string, work: () => T): T {
    if (!this.#on) return work()
    const start = now()
    const close = (): void => {
      this.#spans.push({ name, start, end: now() })
    }
    let result: T
    try {
      result = work()
    } catch (error) {
      close()
      throw error
    }
    if (result instanceof Promise) return result.finally(close) as T
    close()
    return result
  }

  /** Tasks and spans that ended since the last take. A task still running comes with a later one. */
  take(): { records: TraceRecords; spans: Span[] } {
    const spans = this.#spans
    this.#spans = []
    return { records: binding().native.traceTake(), spans }
  }
}

/** The one tracer of this process. */
export const trace = new Tracer()

/** [start, end) */
export type Interval = readonly [number, number]

/** Times in which at least one of the chosen tasks ran: sorted, disjoint. */
export function busyIntervals(records: TraceRecords, choose: (index: number) => boolean): Interval[] {
  const { start, end } = records
  const found: [number, number][] = []
  for (let i = 0; i < start.length; i++) if (choose(i)) found.push([start[i] as number, end[i] as number])
  found.sort((a, b) => a[0] - b[0])
  const merged: [number, number][] = []
  for (const interval of found) {
    const last = merged.at(-1)
    if (last && interval[0] <= last[1]) last[1] = Math.max(last[1], interval[1])
    else merged.push(interval)
  }
  return merged
}

/** Total length of disjoint intervals. */
export const lengthOf = (intervals: readonly Interval[]): number =>
  intervals.reduce((sum, [start, end]) => sum + end - start, 0)

/** What two lists of sorted disjoint intervals have in common. */
export function intersection(a: readonly Interval[], b: readonly Interval[]): Interval[] {
  const common: Interval[] = []
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const [x, y] = [a[i] as Interval, b[j] as Interval]
    const interval: Interval = [Math.max(x[0], y[0]), Math.min(x[1], y[1])]
    if (interval[0] < interval[1]) common.push(interval)
    if (x[1] < y[1]) i++
    else j++
  }
  return common
}

const barrier = collectiveKinds.indexOf('barrier')
const compute = streams.indexOf('compute')

/** A collective that moves data. Its time includes the wait for slower ranks. */
export const isCommunication = (records: TraceRecords, index: number): boolean =>
  (records.kind[index] as number) >= 0 && records.kind[index] !== barrier
const isCompute = (records: TraceRecords, index: number): boolean =>
  records.stream[index] === compute && (records.kind[index] as number) < 0

/** How much of the communication ran beside computation. */
export interface Overlap {
  /** Part of the communication time during which the compute stream was busy too; 1 where there was none. */
  share: number
  /** ns */
  communication: number
  hidden: number
}

/** How much of the communication was hidden under computation. */
export function overlapShare(records: TraceRecords): Overlap {
  const moved = busyIntervals(records, (i) => isCommunication(records, i))
  const computed = busyIntervals(records, (i) => isCompute(records, i))
  const communication = lengthOf(moved)
  const hidden = lengthOf(intersection(moved, computed))
  return { share: communication > 0 ? hidden / communication : 1, communication, hidden }
}

export interface PhaseTimes extends Overlap {
  /** ns in which the compute stream was busy with tasks queued in the phase. */
  compute: number
  /** ns in which any stream was. */
  busy: number
}

/** Index of the last element of a sorted list that is at most `value`; -1: none. */
export function lastAtMost(sorted: ArrayLike<number>, value: number): number {
  let [low, high] = [0, sorted.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((sorted[middle] as number) <= value) low = middle + 1
    else high = middle
  }
  return low - 1
}

/** In which of the spans (they must not overlap) the task at an index was queued. */
export function phaseFinder(records: TraceRecords, spans: readonly Span[]): (index: number) => string | undefined {
  const sorted = [...spans].sort((a, b) => a.start - b.start)
  const starts = sorted.map((span) => span.start)
  return (index) => {
    const queued = records.queued[index] as number
    const span = sorted[lastAtMost(starts, queued)]
    return span && queued <= span.end ? span.name : undefined
  }
}

/**
 * Device time by phase: a task belongs to the phase in which it was queued, whenever it ran, so that no stream needs
 * to be synchronised. Communication is hidden under the computation of any phase.
 */
export function byPhase(records: TraceRecords, spans: readonly Span[]): Map<string, PhaseTimes> {
  const find = phaseFinder(records, spans)
  const phases = Array.from(records.queued, (_, i) => find(i))
  const anyComputed = busyIntervals(records, (i) => isCompute(records, i))
  const times = new Map<string, PhaseTimes>()
  for (const name of new Set(spans.map((span) => span.name))) {
    const moved = busyIntervals(records, (i) => phases[i] === name && isCommunication(records, i))
    const communication = lengthOf(moved)
    const hidden = lengthOf(intersection(moved, anyComputed))
    times.set(name, {
      communication,
      hidden,
      share: communication > 0 ? hidden / communication : 1,
      compute: lengthOf(busyIntervals(records, (i) => phases[i] === name && isCompute(records, i))),
      busy: lengthOf(busyIntervals(records, (i) => phases[i] === name)),
    })
  }
  return times
}

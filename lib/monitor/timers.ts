// Named timers, in milliseconds: started and stopped around work, or given times that were measured elsewhere.

import { ZeroshardError } from '../binding/errors.js'
import { now } from './trace.js'

/** What one stopwatch has measured. */
export interface Timing {
  count: number
  /** ms */
  total: number
  mean: number
  min: number
  max: number
}

/**
 * Named stopwatches.
 *
 * @example
 * const timers = new monitor.Timers()
 * timers.start('work')
 * timers.stop('work') >= 0 // true
 * timers.summary().work?.count // 1
 */
export class Timers {
  readonly #running = new Map<string, number>()
  readonly #timings = new Map<string, Timing>()

  /**
   * `synchronize`: called before the clock is read, where a timer asks for it; for the time of queued work, not only
   * of queueing (binding().native.synchronizeSync(-1)). It takes away the overlap that it measures.
   */
  constructor(readonly synchronize: () => void = () => {}) {}

  start(name: string, options: { synchronize?: boolean } = {}): void {
    if (this.#running.has(name)) {
      throw new ZeroshardError('ARGUMENT', `[timers] '${name}' runs already; stop it before starting it again`)
    }
    if (options.synchronize) this.synchronize()
    this.#running.set(name, now())
  }

  /** Milliseconds since its start. */
  stop(name: string, options: { synchronize?: boolean } = {}): number {
    const start = this.#running.get(name)
    if (start === undefined) throw new ZeroshardError('ARGUMENT', `[timers] '${name}' does not run; start it first`)
    if (options.synchronize) this.synchronize()
    this.#running.delete(name)
    return this.add(name, (now() - start) / 1e6)
  }

  add(name: string, milliseconds: number): number {
    const timing = this.#timings.get(name) ?? { count: 0, total: 0, mean: 0, min: Infinity, max: -Infinity }
    timing.count++
    timing.total += milliseconds
    timing.mean = timing.total / timing.count
    timing.min = Math.min(timing.min, milliseconds)
    timing.max = Math.max(timing.max, milliseconds)
    this.#timings.set(name, timing)
    return milliseconds
  }

  /** All timers that ran, in the order of their first time. `reset`: they start again from nothing. */
  summary(options: { reset?: boolean } = {}): Record<string, Timing> {
    const result = Object.fromEntries([...this.#timings].map(([name, timing]) => [name, { ...timing }]))
    if (options.reset) this.#timings.clear()
    return result
  }
}

/** "time (ms) | forward: 12.30 | backward: 24.10": totals, divided by a number of steps. */
export const timersLine = (summary: Record<string, Timing>, steps = 1): string =>
  ['time (ms)', ...Object.entries(summary).map(([name, { total }]) => `${name}: ${(total / steps).toFixed(2)}`)].join(
    ' | ',
  )

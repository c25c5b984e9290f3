// Learning-rate schedules as pure functions of the update's index (0 for the first), with DeepSpeed's formulas. Its
// engine steps the schedule after the optimizer, so that a warm-up's update has the rate of the iteration before it.

import { nearest, ZeroshardError } from '../binding/errors.js'
import { lrRangeTest, oneCycle } from './cycles.js'
import { count, ordered, real, type ScheduleParams } from './schedule-params.js'

export interface Schedule {
  (index: number): number
  /** Where it cycles momentum: the first beta at an update. */
  momentum?: (index: number) => number
}

export interface ScheduleConfig {
  type: string
  params: ScheduleParams
}

interface Warmup {
  /** 0: none. */
  steps: number
  /** From 0 at iteration 0 to 1 at iteration `steps`. */
  part(iteration: number): number
  /** That of an update; below 0: the rate with which the schedule is made. Without a warm-up (ours) the update itself. */
  iteration(index: number): number
}

const curves: Record<string, (i: number, n: number) => number> = {
  log: (i, n) => Math.log(i + 1) / Math.log(n),
  linear: (i, n) => i / n,
}

/** DeepSpeed's: of one step it makes two. */
function warmupOf(params: ScheduleParams): Warmup {
  const kind = String(params.warmup_type ?? 'log')
  const curve = Object.hasOwn(curves, kind) ? curves[kind] : undefined
  if (!curve) throw new ZeroshardError('CONFIG', `scheduler.params.warmup_type '${kind}' is not one of log, linear`)
  const given = count(params, 'warmup_num_steps', 1000)
  const steps = given === 0 ? 0 : Math.max(2, given)
  return {
    steps,
    part: (i) => (i < steps ? curve(Math.max(i, 0), steps) : 1),
    iteration: (index) => (steps === 0 ? index : index - 1),
  }
}

function boundsOf(params: ScheduleParams, lr: number): readonly [number, number] {
  const [low, high] = [real(params, 'warmup_min_lr', 0), real(params, 'warmup_max_lr', lr)]
  ordered(['warmup_min_lr', low], ['warmup_max_lr', high])
  return [low, high]
}

/** WarmupLR: from min to max, then constant. */
function warmupLr(params: ScheduleParams, lr: number): Schedule {
  const [low, high] = boundsOf(params, lr)
  const { part, iteration } = warmupOf(params)
  return (index) => low + (high - low) * part(iteration(index))
}

/** WarmupDecayLR: warm-up, then linearly to min at total_num_steps. */
function warmupDecayLr(params: ScheduleParams, lr: number): Schedule {
  const [low, high] = boundsOf(params, lr)
  const { steps, part, iteration } = warmupOf(params)
  const total = count(params, 'total_num_steps', Math.max(1, steps), 1)
  const left = (i: number): number => Math.max(0, (total - i) / Math.max(1, total - steps))
  return (index) => {
    const i = iteration(index)
    return low + (high - low) * (i < steps ? part(i) : left(i))
  }
}

/** WarmupCosineLR: ratio of the base rate; 0 for the first update, warm-up, then half a cosine to cos_min_ratio. */
function warmupCosineLr(params: ScheduleParams, lr: number): Schedule {
  const { steps, part, iteration } = warmupOf(params)
  const total = count(params, 'total_num_steps', Math.max(1, steps), 1)
  const [minWarm, minCos] = [
    real(params, 'warmup_min_ratio', 0, { max: 1 }),
    real(params, 'cos_min_ratio', 1e-4, { max: 1 }),
  ]
  return (index) => {
    const i = iteration(index)
    if (i < 0) return 0
    if (i < steps) return lr * (minWarm + (1 - minWarm) * part(i))
    const progress = Math.min(1, (i - steps + 1) / Math.max(1, total - steps))
    return lr * (minCos + (1 - minCos) * 0.5 * (1 + Math.cos(Math.PI * progress)))
  }
}

const schedules: Record<string, (params: ScheduleParams, lr: number) => Schedule> = {
  WarmupLR: warmupLr,
  WarmupDecayLR: warmupDecayLr,
  WarmupCosineLR: warmupCosineLr,
  OneCycle: oneCycle,
  LRRangeTest: lrRangeTest,
}

/**
 * The schedule that a `scheduler` section names; constant without one.
 *
 * @param lr the optimizer's (or a parameter group's) rate, which warm-ups lead to unless they say otherwise
 * @throws CONFIG with the key, where a parameter is missing or makes no sense
 */
export function makeSchedule(config: ScheduleConfig | undefined, lr: number): Schedule {
  if (!config) return () => lr
  const { type, params } = config
  const make = Object.hasOwn(schedules, type) ? schedules[type] : undefined
  if (make) return make(params, lr)
  const names = Object.keys(schedules)
  const near = nearest(type, names)
  throw new ZeroshardError(
    'CONFIG',
    `scheduler.type '${type}' is not one of ${names.join(', ')}${near ? `; did you mean ${near}?` : ''}`,
  )
}

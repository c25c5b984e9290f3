// Learning-rate schedules as pure functions of the update's index (0 for the first), with DeepSpeed's formulas.

import { ZeroshardError } from '../binding/errors.js'

export type Schedule = (index: number) => number

export interface ScheduleConfig {
  type: string
  params: Record<string, unknown>
}

const warmups: Record<string, (i: number, n: number) => number> = {
  log: (i, n) => Math.min(1, Math.log(i + 1) / Math.log(Math.max(2, n))),
  linear: (i, n) => Math.min(1, i / Math.max(1, n)),
}

function warmupOf(params: Record<string, unknown>, n: number): (i: number) => number {
  const kind = String(params.warmup_type ?? 'log')
  const curve = warmups[kind]
  if (!curve) throw new ZeroshardError('CONFIG', `scheduler.params.warmup_type '${kind}' is not one of log, linear`)
  return (i) => (i < n ? curve(i, n) : 1)
}

const number = (params: Record<string, unknown>, key: string, fallback: number): number =>
  Number(params[key] ?? fallback)

/** WarmupLR: from min to max, then constant. */
function warmupLr(params: Record<string, unknown>, lr: number): Schedule {
  const [low, high] = [number(params, 'warmup_min_lr', 0), number(params, 'warmup_max_lr', lr)]
  const gamma = warmupOf(params, number(params, 'warmup_num_steps', 1000))
  return (i) => low + (high - low) * gamma(i)
}

/** WarmupDecayLR: warm-up, then linearly to min at total_num_steps. */
function warmupDecayLr(params: Record<string, unknown>, lr: number): Schedule {
  const [low, high] = [number(params, 'warmup_min_lr', 0), number(params, 'warmup_max_lr', lr)]
  const warmup = number(params, 'warmup_num_steps', 1000)
  const total = number(params, 'total_num_steps', warmup)
  const gamma = warmupOf(params, warmup)
  return (i) => low + (high - low) * (i < warmup ? gamma(i) : Math.max(0, (total - i) / Math.max(1, total - warmup)))
}

/** WarmupCosineLR: ratio of the base rate; linear (or log) warm-up, then half a cosine to cos_min_ratio. */
function warmupCosineLr(params: Record<string, unknown>, lr: number): Schedule {
  const warmup = number(params, 'warmup_num_steps', 1000)
  const total = number(params, 'total_num_steps', warmup)
  const [minWarm, minCos] = [number(params, 'warmup_min_ratio', 0), number(params, 'cos_min_ratio', 1e-4)]
  const gamma = warmupOf({ warmup_type: 'log', ...params }, warmup)
  return (i) => {
    if (i < warmup) return lr * (minWarm + (1 - minWarm) * gamma(i))
    const progress = Math.min(1, (i - warmup + 1) / Math.max(1, total - warmup))
    return lr * Math.max(0, minCos + (1 - minCos) * 0.5 * (1 + Math.cos(Math.PI * progress)))
  }
}

const schedules: Record<string, (params: Record<string, unknown>, lr: number) => Schedule> = {
  WarmupLR: warmupLr,
  WarmupDecayLR: warmupDecayLr,
  WarmupCosineLR: warmupCosineLr,
}

/** The schedule that a `scheduler` section names; constant without one. */
export function makeSchedule(config: ScheduleConfig | undefined, lr: number): Schedule {
  if (!config) return () => lr
  const make = schedules[config.type]
  if (!make)
    throw new ZeroshardError(
      'CONFIG',
      `scheduler.type '${config.type}' is not one of ${Object.keys(schedules).join(', ')}`,
    )
  return make(config.params, lr)
}

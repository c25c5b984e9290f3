// Schedules for finding and using large rates (Smith, 2018): OneCycle and LRRangeTest, with DeepSpeed's formulas.

import { count, fail, ordered, real, type ScheduleParams } from './schedule-params.js'
import type { Schedule } from './schedules.js'

/** Momentum that grows after the cycle stops here: at 1 an average never forgets. */
const MAX_MOMENTUM = 0.999

interface Shape {
  first: number
  second: number
  /** 0: the rate changes with every update. */
  firstStairs: number
  secondStairs: number
}

function shapeOf(params: ScheduleParams): Shape {
  const first = count(params, 'cycle_first_step_size', 2000, 1)
  const firstStairs = count(params, 'cycle_first_stair_count', 0)
  return {
    first,
    second: count(params, 'cycle_second_step_size', first),
    firstStairs,
    secondStairs: count(params, 'cycle_second_stair_count', firstStairs),
  }
}

/** From 0 up to 1 over the first half, down to 0 over the second; in stairs where asked for. */
function height({ first, second, firstStairs, secondStairs }: Shape, index: number): number {
  const at = index % (first + second)
  const [steps, size, stairs] = at <= first ? [at, first, firstStairs] : [first + second - at, second, secondStairs]
  // Counted in whole stairs before the division, which would miss the top stair by a rounding.
  return stairs === 0 ? steps / size : Math.floor((steps * stairs) / size) / stairs
}

/**
 * One cycle between cycle_min_lr and cycle_max_lr, then decay. With `cycle_momentum` the first beta goes the other way,
 * between cycle_max_mom and cycle_min_mom (the second stays as it is; DeepSpeed makes it 0.99).
 */
export function oneCycle(params: ScheduleParams): Schedule {
  for (const [key, other] of [
    ['cycle_min_lr', 'cycle_max_lr'],
    ['cycle_max_lr', 'cycle_min_lr'],
  ] as const) {
    if (typeof params[key] !== 'number')
      fail(
        `${key} is missing${typeof params[other] === 'number' ? `, and ${other} is given` : ''}; OneCycle needs both`,
      )
  }
  const shape = shapeOf(params)
  const total = shape.first + shape.second
  const [low, high] = [real(params, 'cycle_min_lr', 0), real(params, 'cycle_max_lr', 0)]
  ordered(['cycle_min_lr', low], ['cycle_max_lr', high])
  const decaySize = count(params, 'decay_step_size', 0)
  const lrRate = real(params, 'decay_lr_rate', 0)
  const decays = (index: number): number => (decaySize === 0 ? 0 : (index - total) / decaySize)
  const schedule: Schedule = (index) =>
    index <= total ? low + (high - low) * height(shape, index) : low / (1 + lrRate * decays(index))
  if (!(params.cycle_momentum ?? true)) return schedule

  const [minMomentum, maxMomentum] = [
    real(params, 'cycle_min_mom', 0.8, { below: 1 }),
    real(params, 'cycle_max_mom', 0.9, { below: 1 }),
  ]
  ordered(['cycle_min_mom', minMomentum], ['cycle_max_mom', maxMomentum])
  const momentumRate = real(params, 'decay_mom_rate', 0)
  const grown = (index: number): number => {
    const value = maxMomentum * (1 + momentumRate * decays(index))
    return value <= MAX_MOMENTUM ? value : Math.max(maxMomentum, MAX_MOMENTUM)
  }
  schedule.momentum = (index) =>
    index <= total ? maxMomentum - (maxMomentum - minMomentum) * height(shape, index) : grown(index)
  return schedule
}

/** The rate grows from lr_range_test_min_lr without end, so that one sees where training stops to learn. */
export function lrRangeTest(params: ScheduleParams): Schedule {
  const low = real(params, 'lr_range_test_min_lr', 1e-3)
  const size = count(params, 'lr_range_test_step_size', 2000, 1)
  const rate = real(params, 'lr_range_test_step_rate', 1)
  const staircase = params.lr_range_test_staircase === true
  return (index) => low * (1 + rate * (staircase ? Math.floor(index / size) : index / size))
}

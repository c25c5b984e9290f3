// Learning-rate schedules against DeepSpeed's (test/reference/schedules.py made the numbers), and what they refuse.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { makeSchedule, type ScheduleConfig } from '../../lib/optim/schedules.js'
import { fc } from '../helpers/properties.js'

const BASE = 0.05
interface Curve extends ScheduleConfig {
  rates: number[]
  momentum?: number[]
}
const curves = JSON.parse(readFileSync(new URL('../reference/schedules.json', import.meta.url), 'utf8')) as Curve[]

const near = (actual: number, expected: number): boolean => Math.abs(actual - expected) <= 1e-12

t.test('each update has the rate and momentum that it has in DeepSpeed, the first ones too', async (t) => {
  t.ok(curves.length >= 13)
  for (const { type, params, rates, momentum } of curves) {
    const schedule = makeSchedule({ type, params }, BASE)
    const name = `${type} ${JSON.stringify(params)}`
    rates.forEach((rate, i) => {
      if (!near(schedule(i), rate)) t.fail(`${name}: update ${i} has ${schedule(i)}, not ${rate}`)
    })
    t.equal(schedule.momentum !== undefined, momentum !== undefined, name)
    momentum?.forEach((beta, i) => {
      const mine = schedule.momentum?.(i + 1) as number
      if (!near(mine, beta)) t.fail(`${name}: momentum of update ${i + 1} is ${mine}, not ${beta}`)
    })
  }
})

t.test('OneCycle by hand: up in 4, down in 2, then decay', async (t) => {
  const params = {
    cycle_min_lr: 0.1,
    cycle_max_lr: 0.5,
    cycle_first_step_size: 4,
    cycle_second_step_size: 2,
    decay_step_size: 2,
    decay_lr_rate: 0.5,
  }
  const schedule = makeSchedule({ type: 'OneCycle', params }, 1)
  const rates = Array.from({ length: 11 }, (_, i) => Math.round(schedule(i) * 1e6) / 1e6)
  t.strictSame(rates, [0.1, 0.2, 0.3, 0.4, 0.5, 0.3, 0.1, 0.08, 0.066667, 0.057143, 0.05])
  t.equal(schedule.momentum?.(0), 0.9)
  t.ok(near(schedule.momentum?.(4) as number, 0.8))
})

t.test('momentum that grows after the cycle stays below 1', async (t) => {
  const params = { cycle_min_lr: 0, cycle_max_lr: 1, cycle_first_step_size: 2, decay_step_size: 1, decay_mom_rate: 0.1 }
  const schedule = makeSchedule({ type: 'OneCycle', params }, 1)
  t.ok(near(schedule.momentum?.(5) as number, 0.99))
  t.equal(schedule.momentum?.(6), 0.999)
  t.equal(schedule.momentum?.(1e9), 0.999)
})

t.test('without a warm-up the first update has the whole rate; without a schedule all have it', async (t) => {
  t.equal(makeSchedule({ type: 'WarmupLR', params: { warmup_num_steps: 0 } }, 0.3)(0), 0.3)
  t.equal(makeSchedule({ type: 'WarmupDecayLR', params: { warmup_num_steps: 0, total_num_steps: 4 } }, 0.5)(1), 0.375)
  const constant = makeSchedule(undefined, 0.2)
  t.strictSame([constant(0), constant(1e6), constant.momentum], [0.2, 0.2, undefined])
})

t.test('any OneCycle stays in its bounds, meets them, and has momentum the other way', async () => {
  const size = fc.integer({ min: 1, max: 50 })
  fc.assert(
    fc.property(size, size, fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 9 }), (first, second, a, b) => {
      const params = {
        cycle_min_lr: 0.25,
        cycle_max_lr: 1,
        cycle_first_step_size: first,
        cycle_second_step_size: second,
        cycle_first_stair_count: a,
        cycle_second_stair_count: b,
        cycle_min_mom: 0.5,
        cycle_max_mom: 0.875,
      }
      const schedule = makeSchedule({ type: 'OneCycle', params }, 1)
      const rates = Array.from({ length: first + second + 1 }, (_, i) => schedule(i))
      const rising = rates.slice(1, first + 1).every((rate, i) => rate >= (rates[i] as number))
      const falling = rates.slice(first + 1).every((rate, i) => rate <= (rates[first + i] as number))
      const mirrored = rates.every(
        (rate, i) => Math.abs((schedule.momentum?.(i) as number) - (0.875 - (rate - 0.25) / 2)) < 1e-12,
      )
      return rates[0] === 0.25 && rates[first] === 1 && rates.at(-1) === 0.25 && rising && falling && mirrored
    }),
  )
})

t.test('any warm-up rises from its first to its last rate and never leaves them', async () => {
  const rate = fc.double({ min: 0, max: 1, noNaN: true })
  fc.assert(
    fc.property(
      fc.constantFrom('WarmupLR', 'WarmupDecayLR'),
      fc.constantFrom('log', 'linear'),
      fc.integer({ min: 0, max: 40 }),
      fc.integer({ min: 1, max: 80 }),
      rate,
      rate,
      (type, warmup_type, warmup_num_steps, total_num_steps, x, y) => {
        const [low, high] = [Math.min(x, y), Math.max(x, y)]
        const params = { warmup_type, warmup_num_steps, total_num_steps, warmup_min_lr: low, warmup_max_lr: high }
        const schedule = makeSchedule({ type, params }, 0.5)
        const rates = Array.from({ length: 100 }, (_, i) => schedule(i))
        const steps = warmup_num_steps === 0 ? 0 : Math.max(2, warmup_num_steps) + 1
        const rising = rates.slice(1, steps).every((rate, i) => rate >= (rates[i] as number))
        const falling = rates.slice(steps + 1).every((rate, i) => rate <= (rates[steps + i] as number))
        return rising && falling && rates.every((rate) => rate >= low && rate <= high + 1e-12)
      },
    ),
  )
})

t.test('wrong parameters are told by key', async (t) => {
  const cycle = { cycle_min_lr: 0.1, cycle_max_lr: 0.2 }
  const wrong: [type: string, params: Record<string, unknown>, message: RegExp][] = [
    ['OneCycle', {}, /cycle_min_lr is missing; OneCycle needs both/],
    ['OneCycle', { cycle_max_lr: 1 }, /cycle_min_lr is missing, and cycle_max_lr is given/],
    ['OneCycle', { cycle_min_lr: 1 }, /cycle_max_lr is missing, and cycle_min_lr is given/],
    ['OneCycle', { cycle_min_lr: 0.3, cycle_max_lr: 0.2 }, /cycle_min_lr 0.3 is more than cycle_max_lr 0.2/],
    ['OneCycle', { ...cycle, cycle_min_lr: -1 }, /cycle_min_lr is -1; it must be a number, at least 0/],
    [
      'OneCycle',
      { ...cycle, cycle_first_step_size: -5 },
      /cycle_first_step_size is -5; it must be an integer, at least 1/,
    ],
    ['OneCycle', { ...cycle, cycle_second_step_size: 1.5 }, /cycle_second_step_size is 1.5/],
    ['OneCycle', { ...cycle, cycle_first_stair_count: -1 }, /cycle_first_stair_count is -1/],
    ['OneCycle', { ...cycle, decay_step_size: -2 }, /decay_step_size is -2/],
    ['OneCycle', { ...cycle, decay_lr_rate: -0.1 }, /decay_lr_rate is -0.1/],
    ['OneCycle', { ...cycle, cycle_min_mom: 0.95 }, /cycle_min_mom 0.95 is more than cycle_max_mom 0.9/],
    ['OneCycle', { ...cycle, cycle_max_mom: 1 }, /cycle_max_mom is 1; it must be a number, at least 0 and less than 1/],
    ['LRRangeTest', { lr_range_test_step_size: 0 }, /lr_range_test_step_size is 0; it must be an integer, at least 1/],
    ['LRRangeTest', { lr_range_test_min_lr: Number.NaN }, /lr_range_test_min_lr/],
    ['WarmupLR', { warmup_num_steps: -1 }, /warmup_num_steps is -1; it must be an integer, at least 0/],
    ['WarmupLR', { warmup_min_lr: 0.2, warmup_max_lr: 0.1 }, /warmup_min_lr 0.2 is more than warmup_max_lr 0.1/],
    ['WarmupLR', { warmup_min_lr: 0.2 }, /warmup_min_lr 0.2 is more than warmup_max_lr 0.05/],
    ['WarmupLR', { warmup_type: 'cubic' }, /'cubic' is not one of log, linear/],
    ['WarmupDecayLR', { total_num_steps: 0 }, /total_num_steps is 0/],
    [
      'WarmupCosineLR',
      { warmup_min_ratio: 1.5 },
      /warmup_min_ratio is 1.5; it must be a number, at least 0 and at most 1/,
    ],
    ['OneCycel', {}, /did you mean OneCycle\?/],
    ['constructor', {}, /not one of WarmupLR/],
  ]
  for (const [type, params, message] of wrong)
    t.throws(
      () => makeSchedule({ type, params }, BASE),
      { code: 'CONFIG', message },
      `${type} ${JSON.stringify(params)}`,
    )
})

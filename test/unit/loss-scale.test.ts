// The loss scale: every branch of DeepSpeed's rule, then any run against a model of it.

import t from 'tap'
import { type LossScaleOptions, LossScaler } from '../../lib/optim/loss-scale.js'
import { fc } from '../helpers/properties.js'

/** Scales before each step of a text: '.' went well, 'x' overflowed. */
function scales(scaler: LossScaler, steps: string): number[] {
  return [...steps].map((step) => {
    scaler.step(step === 'x')
    return scaler.scale
  })
}

t.test('the first scale is 2 to the power 16, or as configured', async (t) => {
  t.equal(new LossScaler().scale, 65536)
  t.equal(new LossScaler({ initial_scale_power: 3 }).scale, 8)
  t.equal(new LossScaler({ initial_scale_power: -2, min_loss_scale: 0.01 }).scale, 0.25)
})

t.test('it doubles after a window of steps without overflow, and after each further window', async (t) => {
  const scaler = new LossScaler({ initial_scale_power: 4, loss_scale_window: 3 })
  // The window counts from the step after the first (or after an overflow).
  t.strictSame(scales(scaler, '.......'), [16, 16, 16, 32, 32, 32, 64])
})

t.test('an overflow halves it and starts the window again', async (t) => {
  const scaler = new LossScaler({ initial_scale_power: 4, loss_scale_window: 2, hysteresis: 1 })
  t.strictSame(scales(scaler, '.x....x.xx'), [16, 8, 8, 8, 16, 16, 8, 8, 4, 2])
})

t.test('hysteresis: the first overflows are forgiven, until it doubled again', async (t) => {
  const scaler = new LossScaler({ initial_scale_power: 4, loss_scale_window: 2, hysteresis: 3 })
  t.strictSame(scales(scaler, 'xxxx'), [16, 16, 8, 4])
  t.strictSame(scales(scaler, '.x'), [4, 2], 'a good step alone gives no patience back')
  t.strictSame(scales(scaler, '...'), [2, 2, 4], 'doubled')
  t.strictSame(scales(scaler, 'xxx'), [4, 4, 2], 'patient again')
})

t.test('consecutive hysteresis: a good step gives the patience back', async (t) => {
  const options = { initial_scale_power: 4, loss_scale_window: 100, hysteresis: 2 }
  const strict = new LossScaler({ ...options, consecutive_hysteresis: true })
  t.strictSame(scales(strict, 'x.x.x.xx'), [16, 16, 16, 16, 16, 16, 16, 8])
  t.strictSame(scales(new LossScaler(options), 'x.x.x.xx'), [16, 16, 8, 8, 4, 4, 2, 1])
})

t.test('it never goes below its minimum, and an overflow there is an error that says what to do', async (t) => {
  const scaler = new LossScaler({ initial_scale_power: 2, min_loss_scale: 1.5, hysteresis: 1 })
  t.strictSame(scales(scaler, 'xx'), [2, 1.5])
  t.throws(() => scaler.step(true), { code: 'NOT_FINITE', message: /step 3 .* minimum, 1.5; lower the learning rate/ })
  t.throws(() => scaler.step(true, 'up.weight'), { message: /^gradients \(of up.weight first\) overflowed/ })
  const patient = new LossScaler({ initial_scale_power: 0, hysteresis: 2 })
  t.strictSame(scales(patient, 'x'), [1], 'forgiven')
  t.throws(() => patient.step(true), { code: 'NOT_FINITE' })
})

t.test('a static scale stays, whatever happens', async (t) => {
  const scaler = new LossScaler({ loss_scale: 128, loss_scale_window: 1 })
  t.equal(scaler.dynamic, false)
  t.strictSame(scales(scaler, 'xxx...x'), new Array(7).fill(128))
})

t.test('wrong options are told', async (t) => {
  const wrong: LossScaleOptions[] = [
    { loss_scale: -1 },
    { loss_scale: Number.POSITIVE_INFINITY },
    { initial_scale_power: 1.5 },
    { loss_scale_window: 0 },
    { hysteresis: 0 },
    { min_loss_scale: 0 },
    { min_loss_scale: Number.NaN },
  ]
  for (const options of wrong)
    t.throws(() => new LossScaler(options), {
      code: 'CONFIG',
      message: new RegExp(`fp16.${Object.keys(options)[0]} is`),
    })
})

const anyOptions = fc.record({
  initial_scale_power: fc.integer({ min: 0, max: 6 }),
  loss_scale_window: fc.integer({ min: 1, max: 5 }),
  hysteresis: fc.integer({ min: 1, max: 4 }),
  consecutive_hysteresis: fc.boolean(),
  min_loss_scale: fc.constantFrom(1, 0.125, 3),
})
const anySteps = fc.array(
  fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  { maxLength: 60 },
)

/** The rule again, by looking back over the whole run. Infinity: an error. */
function expectedScale(options: Required<Omit<LossScaleOptions, 'loss_scale'>>, steps: boolean[]): number {
  const { loss_scale_window: window, hysteresis, consecutive_hysteresis, min_loss_scale: floor } = options
  let scale = 2 ** options.initial_scale_power
  let forgiven = 0
  for (const [index, overflow] of steps.entries()) {
    const good = index - 1 - steps.slice(0, index).lastIndexOf(true)
    if (!overflow) {
      const doubles = good >= window && good % window === 0
      if (doubles) scale *= 2
      if (doubles || consecutive_hysteresis) forgiven = 0
    } else if (forgiven < hysteresis - 1) forgiven++
    else if (scale === floor) return Number.POSITIVE_INFINITY
    else scale = Math.max(scale / 2, floor)
  }
  return scale
}

t.test('any run has the scale that the rule says; saved and loaded in the middle too', async () => {
  fc.assert(
    fc.property(anyOptions, anySteps, fc.nat({ max: 60 }), (options, steps, middle) => {
      let scaler = new LossScaler(options)
      let actual = scaler.scale
      try {
        for (const [index, overflow] of steps.entries()) {
          if (index === middle) {
            const loaded = new LossScaler(options)
            loaded.load(JSON.parse(JSON.stringify(scaler.state())))
            scaler = loaded
          }
          scaler.step(overflow)
        }
        actual = scaler.scale
      } catch {
        actual = Number.POSITIVE_INFINITY
      }
      return actual === expectedScale(options, steps)
    }),
    { numRuns: 500 },
  )
})

t.test('without overflow it never falls, with nothing else it never rises', async () => {
  fc.assert(
    fc.property(anyOptions, fc.nat({ max: 40 }), (options, count) => {
      const calm = scales(new LossScaler(options), '.'.repeat(count))
      return calm.every((scale, i) => scale >= (calm[i - 1] ?? 0)) && calm.every((scale) => Number.isFinite(scale))
    }),
  )
})

t.test('a loaded state keeps the options of the scaler, and a static scale', async (t) => {
  const old = new LossScaler({ initial_scale_power: 4, hysteresis: 1 })
  scales(old, 'x.')
  t.strictSame(old.state(), { scale: 8, steps: 2, lastOverflow: 0, patience: 1 })
  const fixed = new LossScaler({ loss_scale: 32 })
  fixed.load(old.state())
  t.equal(fixed.scale, 32)
})

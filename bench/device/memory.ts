// Peak memory of GPT-2 124M at 64 samples of 1024 tokens against formulas: states by ZeRO's, activations by what each layer
// keeps for backward (Korthikanti et al. 2022, without attention's matrix).

import type { Row } from '../harness.js'
import { binding } from '../library.js'
import { activationBytes, type Layout, stateBytes } from './layouts.js'
import { type BenchModel, models } from './models.js'
import { measureCases, type StepResult } from './steps.js'
import type { SuiteBenchmark } from './suite.js'

const alone: Layout = { pp: 1, tp: 1, cp: 1, dp: 1, kind: '', stage: 0 }
const gibibytes = (bytes: number): string => `${(bytes / 2 ** 30).toPrecision(3)} GiB`

export default {
  title: 'Peak memory against the formula',
  async run({ dry }) {
    const [model] = models(dry) as [BenchModel]
    const micro = dry ? 8 : 64
    const [result] = (await measureCases(model, [{ layout: alone, micro, accumulation: 1 }], 1, dry)) as [StepResult]
    if (result.error)
      return [{ name: `${model.name}, ${micro} samples`, value: Number.NaN, unit: 'x', note: result.error }]
    const { parameters = 0, gradients = 0, optimizer = 0, activations = 0, buffers = 0, reserved = 0 } = result.peak
    const states = parameters + gradients + optimizer
    const [expectedStates, expectedActivations] = [
      stateBytes(model.sizes, alone),
      micro * activationBytes(model.sizes, alone),
    ]
    const device = dry ? 0 : (binding().native.devices().devices[0]?.totalBytes ?? 0)
    const row = (name: string, bytes: number, expected: number): Row => ({
      name: `${name} over the formula's`,
      value: bytes / expected,
      unit: 'x',
      note: `${gibibytes(bytes)}, formula ${gibibytes(expected)}`,
    })
    return [
      { ...row('states', states, expectedStates), target: '<= 1.02' },
      row('activations', activations, expectedActivations),
      row('all of it', states + activations + buffers, expectedStates + expectedActivations),
      {
        name: 'taken from the device',
        value: reserved / 2 ** 30,
        unit: 'GiB',
        note: device ? `of ${gibibytes(device)}` : '',
      },
    ]
  },
} satisfies SuiteBenchmark

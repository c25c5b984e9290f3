// What the benchmarks would measure on GPUs: which layouts, with how many samples, against which peaks. Pure functions.

import t from 'tap'
import {
  activationBytes,
  type Layout,
  layoutName,
  layoutsOf,
  microBatchOf,
  stateBytes,
} from '../../bench/device/layouts.js'
import { models } from '../../bench/device/models.js'
import { linkRate, peakOf, spread } from '../../bench/device/suite.js'
import { modelFlops } from '../../lib/monitor/flops.js'
import { createModel } from '../../lib/nn/models/index.js'
import { estimateModelStates } from '../../lib/parallel/zero/estimate.js'

const [gpt2, , , llama8b] = models(false) as [
  ReturnType<typeof models>[0],
  unknown,
  unknown,
  ReturnType<typeof models>[0],
]
const alone: Layout = { pp: 1, tp: 1, cp: 1, dp: 1, kind: '', stage: 0 }

t.test('models have the parameters that are counted for them', async (t) => {
  for (const { name, config, sizes } of [...models(true), gpt2]) {
    const parameters = createModel(config)
      .parameters()
      .reduce((sum, { count }) => sum + count, 0)
    t.equal(parameters, sizes.parameters, name)
    t.ok(modelFlops(config, sizes.sequence), name)
  }
  t.equal(gpt2.sizes.parameters, 124_475_904)
  t.equal(Math.round(llama8b.sizes.parameters / 1e7), 803)
})

t.test('layouts: every factorisation once, none that the model cannot be cut by', async (t) => {
  t.strictSame(layoutsOf(1, gpt2.sizes, false), [alone])
  const all = layoutsOf(8, llama8b.sizes, false)
  t.equal(new Set(all.map(layoutName)).size, all.length, 'each has a name of its own')
  for (const { pp, tp, cp, dp, kind, stage } of all) {
    t.equal(pp * tp * cp * dp, 8)
    t.equal(kind === '', cp === 1)
    t.ok(stage === 0 || dp * cp > 1)
  }
  const axes = new Set(all.map(({ pp, tp, cp, dp }) => [pp, tp, cp, dp].join()))
  t.equal(axes.size, 20, '8 = 2³ over 4 axes')
  const simple = layoutsOf(8, llama8b.sizes, true)
  t.ok(simple.length < all.length && simple.some(({ pp, dp }) => pp === 2 && dp === 4))
  t.notOk(simple.some(({ pp, tp, dp }) => pp * tp === 4 && dp === 2 && pp === 2))
  // 12 heads are not cut in 8.
  t.notOk(layoutsOf(8, gpt2.sizes, false).some(({ tp, kind, cp }) => tp === 8 || (kind === 'ulysses' && cp === 8)))
})

t.test('states are those of the ZeRO formula, and a batch fits where the bytes allow it', async (t) => {
  for (const stage of [0, 1, 2, 3] as const) {
    const layout = { ...alone, dp: 8, stage }
    const expected = estimateModelStates({ model: gpt2.sizes.parameters, stage, numRanks: 8 })
    t.equal(Math.round(stateBytes(gpt2.sizes, layout)), Math.round(expected.total))
  }
  t.equal(microBatchOf(llama8b.sizes, alone, 80e9), 0, '8 billion parameters take 144 GB of states alone')
  const cut = { ...alone, dp: 8, stage: 3 } as const
  const micro = microBatchOf(llama8b.sizes, cut, 80e9)
  t.ok(micro >= 1)
  t.ok(stateBytes(llama8b.sizes, cut) + micro * activationBytes(llama8b.sizes, cut) <= 0.9 * 80e9)
  t.equal(microBatchOf(gpt2.sizes, alone, 1e15), 64, 'not more than is asked for')
})

t.test('peaks by data sheet where the device is known, else as measured', async (t) => {
  const measured = { copy: 1, bf16: 7e14, f32: 1, link: 0 }
  t.equal(peakOf({ ...measured, name: 'NVIDIA H200' }).peak, 989e12)
  t.equal(peakOf({ ...measured, name: 'NVIDIA H100 80GB HBM3' }).peak, 989e12)
  t.equal(peakOf({ ...measured, name: 'NVIDIA H100 PCIe' }).peak, 756e12)
  t.equal(peakOf({ ...measured, name: 'A card of tomorrow' }).peak, 7e14)
  t.equal(linkRate({ nvlinks: 18, nvlinkVersion: 4 }), 450e9)
  t.equal(Math.round(linkRate({ maxPcieGeneration: 5, maxPcieWidth: 16 }) / 1e9), 63)
  t.equal(linkRate({}), 0)
  t.strictSame(spread([1, 2, 3, 4, 5], 2), [1, 3, 5])
  t.strictSame(spread([1, 2, 3, 4, 5], 2, 3), [2, 4])
})

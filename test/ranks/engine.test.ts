// The engine's contract beyond trainBatch, with two real ranks: by hand, by name, two engines, overflow.

import t from 'tap'
import { Workspace } from '../helpers/program.js'

t.test('forward, backward, step; states by name; gathered; two engines; at every stage', async (t) => {
  const space = new Workspace(t)
  for (const stage of [0, 1, 2, 3]) {
    for (const ranks of [1, 2]) {
      const outcome = await space.launch('engine-contract.mjs', [String(stage)], ranks)
      t.equal(outcome.status, 0, outcome.stderr)
      t.strictSame(JSON.parse(outcome.stdout), { failed: [], tensors: 0 }, `stage ${stage}, ${ranks} ranks`)
    }
  }
})

interface Told {
  rank: number
  rows: { finite: boolean; lr: number; lossScale: number; skipped: boolean }[]
  skippedSteps: number
  finite: boolean
  named: string[]
}

t.test('an overflow on one rank leaves out the step on all, halves the scale, stops the schedule', async (t) => {
  const space = new Workspace(t)
  for (const stage of [0, 1, 2, 3]) {
    const outcome = await space.launch('overflow.mjs', [String(stage)], 2)
    t.equal(outcome.status, 0, outcome.stderr)
    const told = outcome.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line.replace(/^\[rank \d\] /, '')) as Told)
    t.equal(told.length, 2)
    const [first, second] = told as [Told, Told]
    t.strictSame(
      first.rows.map(({ lossScale, skipped, lr }) => ({ lossScale, skipped, lr })),
      second.rows.map(({ lossScale, skipped, lr }) => ({ lossScale, skipped, lr })),
      'the same on both ranks',
    )
    t.strictSame(
      first.rows.map(({ skipped }) => skipped),
      [true, true, false, false, false, false, false, false, false],
    )
    // After overflows at steps 1 and 2: 256, 128, 64; doubled when `window` calm steps lie between.
    t.strictSame(
      first.rows.map(({ lossScale }) => lossScale),
      [256, 128, 64, 64, 64, 64, 128, 128, 128],
    )
    // Two updates at the first rate, as in DeepSpeed, and two skipped steps, which do not count.
    t.strictSame(
      first.rows.map(({ lr }) => Math.round(lr * 1e8) / 1e8),
      [0, 0, 0, 0, 1e-5, 2e-5, 3e-5, 4e-5, 5e-5],
    )
    t.strictSame([first.skippedSteps, second.skippedSteps], [2, 2])
    t.ok(first.finite && second.finite, 'parameters stay finite')
    for (const { named } of told) t.strictSame(named, ['1: first.weight', '2: first.weight'], 'named on both ranks')
  }
})

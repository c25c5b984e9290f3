// Steps that fail on all ranks alike, with two real ranks: what was accumulated is given up, and the next step is as if
// the failed one had never been. (Where it fails on one rank alone, all end: initialize.test.ts, lost.test.ts.)

import t from 'tap'
import { Workspace } from '../helpers/program.js'

const zero = (stage: number) => ({ zero_optimization: { stage, stage3_param_persistence_threshold: 0 } })
const layouts = { 'stage 1': zero(1), 'stage 2': zero(2), 'stage 3': zero(3), pipeline: { mesh: { pipeline: 2 } } }

for (const [layout, config] of Object.entries(layouts)) {
  t.test(`${layout}: the step after one that failed`, async (t) => {
    const space = new Workspace(t)
    const { status, stdout, stderr } = await space.launch(
      'engine-failures.mjs',
      [JSON.stringify(config), space.folder],
      2,
    )
    t.equal(status, 0, stderr)
    t.strictSame(JSON.parse(stdout), { failed: [], tensors: 0 })
  })
}

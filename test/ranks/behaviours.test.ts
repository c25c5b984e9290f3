// What DeepSpeed tests of itself and no other test here holds (test/deepspeed-behaviours.md), with two real ranks.

import t from 'tap'
import { Workspace } from '../helpers/program.js'

for (const stage of [0, 1, 2, 3]) {
  t.test(`stage ${stage}: each of DeepSpeed's behaviours in the script holds`, async (t) => {
    const space = new Workspace(t)
    const outcome = await space.launch('behaviours.mjs', [String(stage), space.folder], 2, { ZEROSHARD_TIMEOUT: '60' })
    t.equal(outcome.status, 0, outcome.stderr)
    t.strictSame(JSON.parse(outcome.stdout), { checks: stage === 3 ? 37 : 39, tensors: 0 })
  })
}

// What the engine promises of saving and loading, with real ranks: in the background, in part, and when it fails.

import t from 'tap'
import { Workspace } from '../helpers/program.js'

t.test('saves in the background, retention, load options, at every stage', async (t) => {
  for (const [stage, ranks] of [
    [0, 2],
    [1, 1],
    [1, 3],
    [2, 2],
    [3, 2],
  ] as const) {
    const space = new Workspace(t)
    const outcome = await space.launch('checkpoint-contract.mjs', [String(stage), space.folder], ranks)
    t.equal(outcome.status, 0, outcome.stderr)
    t.strictSame(JSON.parse(outcome.stdout), { failed: [], tensors: 0, size: ranks }, `stage ${stage}, ${ranks} ranks`)
  }
})

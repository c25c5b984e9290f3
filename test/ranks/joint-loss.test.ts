// One loss of two engines' models: the backward of either trains both, as one engine of both models. Real processes.

import t from 'tap'
import { Workspace } from '../helpers/program.js'

for (const form of ['side', 'chain']) {
  t.test(`${form}: two engines and one loss do what one engine of both models does`, async (t) => {
    const space = new Workspace(t)
    for (const stage of [0, 1, 2, 3]) {
      for (const leads of stage % 2 ? ['a', 'own'] : ['b', 'turns']) {
        const outcome = await space.launch('joint-loss.mjs', [String(stage), form, leads], 2)
        t.equal(outcome.status, 0, outcome.stderr)
        t.strictSame(JSON.parse(outcome.stdout), { failed: [], tensors: 0 }, `stage ${stage}, ${leads} leads`)
      }
    }
  })
}

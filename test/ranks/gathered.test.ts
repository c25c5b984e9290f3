// Parameters that a user edits while they are whole, with real processes: what was not touched keeps its bits, what is
// refused leaves nothing behind.

import t from 'tap'
import { Workspace } from '../helpers/program.js'

for (const precision of ['fp32', 'bf16']) {
  t.test(`${precision}: an edit changes its elements alone, a refused one nothing, at every stage`, async (t) => {
    const space = new Workspace(t)
    for (const [stage, ranks, folder] of [
      [0, 1],
      [0, 2],
      [1, 2],
      [2, 2],
      [3, 2],
      [3, 3],
      [1, 2, space.folder],
      [3, 2, space.folder],
    ] as const) {
      const outcome = await space.launch('gathered.mjs', [String(stage), precision, ...(folder ? [folder] : [])], ranks)
      const where = `stage ${stage}, ${ranks} ranks${folder ? ', on disk' : ''}`
      t.equal(outcome.status, 0, `${where}: ${outcome.stderr}`)
      t.strictSame(JSON.parse(outcome.stdout || 'null'), { failed: [], tensors: 0 }, where)
    }
  })
}

// Offloaded updates that are not AdamW's every step: left out, of one state or none, over whole parameters.

import t from 'tap'
import { runOffload } from '../helpers/offload.js'

t.test('updates that are left out change nothing on disk', async (t) => {
  for (const ranks of [1, 2]) {
    for (const { none } of await runOffload(t, { stages: [1, 3], ranks, precision: 'fp16' })) {
      t.ok(none.rows[0]?.[2], 'the first is left out')
      t.ok(
        none.rest.some(([, , skipped]) => !skipped),
        'not all are',
      )
    }
  }
})

t.test('optimizers with one state, none, or a need for whole parameters', async (t) => {
  for (const [optimizer, precision] of [
    ['Lion', 'bf16'],
    ['SGD', 'fp32'],
    ['Lamb', 'bf16'],
    ['Muon', 'fp32'],
  ] as const)
    await runOffload(t, { stages: [3], ranks: 2, optimizer, precision })
  await runOffload(t, { stages: [1], ranks: 3, optimizer: 'Lamb' })
})

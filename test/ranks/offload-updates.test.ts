// Offloaded updates that are not AdamW's every step: left out, of one state or none, over whole parameters.

import t from 'tap'
import { runOffload } from '../helpers/offload.js'
import { losses, Workspace, whole } from '../helpers/program.js'

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

t.test('on one stream, with pipeline and tensor parallelism: the bits of what lies in memory', async (t) => {
  const space = new Workspace(t)
  const disk = { device: 'nvme', nvme_path: space.folder }
  // Parameters are offloaded in both: over one rank they are not cut otherwise, and gradients are summed in another order.
  const host = { offload_param: { device: 'cpu' } }
  const both = { offload_optimizer: disk, offload_param: { ...disk, max_in_cpu: 0 } }
  for (const [name, ranks, more, args] of [
    ['one stream', 2, {}, ['--serial']],
    ['pipeline', 2, { mesh: { pipeline: 2 }, gradient_accumulation_steps: 4 }, []],
    ['tensor', 4, { mesh: { tensor: 2 } }, []],
  ] as const) {
    const config = (place: object) =>
      space.config({
        train: { steps: 3, seed: 3 },
        ...more,
        zero_optimization: { stage: 3, stage3_param_persistence_threshold: 100, ...place },
      })
    const inHost = whole(t, await space.train(config(host), { ranks }))
    const onDisk = whole(t, await space.train(config(both), { ranks, args: [...args] }))
    t.strictSame(losses(onDisk), losses(inHost), name)
  }
})

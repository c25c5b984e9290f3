// Training by several processes on the device of ZEROSHARD_TEST_DEVICE: ranks that share one, through host memory and
// through NCCL, and a device for each rank. Every layout has the loss curve of one process.

import t, { type Test } from 'tap'
import { device, fewerThan, noSharedNccl } from '../helpers/device.js'
import { closeCurves, losses, Workspace, whole } from '../helpers/program.js'

type More = Record<string, unknown>

const stages = [0, 1, 2, 3]
const precisions: [name: string, more: More][] = [
  ['fp32', {}],
  ['bf16', { bf16: { enabled: true } }],
  ['fp16', { fp16: { enabled: true, loss_scale: 256 } }],
]
const zero = (stage: number): More => ({
  zero_optimization: { stage, stage3_param_persistence_threshold: 100, stage3_prefetch_bucket_size: 20_000 },
})

/** Curves of configurations that differ in `more`, on so many ranks, at once: most of their time is the start. */
async function curves(t: Test, space: Workspace, ranks: number, all: More[], env: NodeJS.ProcessEnv = {}) {
  const base = { train: { steps: 4, seed: 3 } }
  const runs = await Promise.all(all.map((more) => space.train(space.config({ ...base, ...more }), { ranks, env })))
  return runs.map((run) => losses(whole(t, run)))
}

/** Of 16 bits: rounding, and nothing that grows. */
function near(t: Test, actual: number[] = [], expected: number[] = [], name: string): void {
  t.equal(actual.length, expected.length, `${name}: as many steps`)
  const gaps = actual.map((loss, index) => Math.abs(loss - (expected[index] as number)))
  t.ok(Math.max(...gaps) < 0.02, `${name}: ${Math.max(...gaps)}`)
}

for (const [name, more] of precisions) {
  t.test(`${name}: ranks that share a device have the curve of one process at every stage`, async (t) => {
    const space = new Workspace(t)
    const [one] = await curves(t, space, 1, [more])
    const shared = await curves(
      t,
      space,
      2,
      stages.map((stage) => ({ ...more, ...zero(stage) })),
    )
    for (const stage of stages) {
      const compare = name === 'fp32' ? closeCurves : near
      compare(t, shared[stage] as number[], one as number[], `stage ${stage}`)
      t.strictSame(shared[stage], shared[0], `stage ${stage}: the bits of stage 0`)
    }
  })
}

t.test('streams and one stream have the same bits, at every stage and precision', async (t) => {
  const space = new Workspace(t)
  const all = precisions.flatMap(([, more]) => stages.map((stage) => ({ ...more, ...zero(stage) })))
  const streams = await curves(t, space, 1, all)
  t.strictSame(await curves(t, space, 1, all, { ZEROSHARD_SERIAL: '1' }), streams)
})

t.test('collectives on the tape, by ranks that share a device', async (t) => {
  const outcome = await new Workspace(t).launch('collectives.mjs', [], 2)
  t.equal(outcome.status, 0, outcome.stderr)
})

t.test('ranks that share a device, through NCCL', { skip: noSharedNccl() }, async (t) => {
  const space = new Workspace(t)
  const env = { NCCL_MULTI_RANK_GPU_ENABLE: '1', NCCL_MAX_CTAS: '1', ZEROSHARD_TIMEOUT: '60' }
  const [one] = await curves(t, space, 1, [{}])
  const all = stages.map(zero)
  for (const [stage, curve] of (await curves(t, space, 2, all, env)).entries())
    closeCurves(t, curve, one as number[], `stage ${stage}`)
  const outcome = await space.launch('collectives.mjs', [], 2, env)
  t.equal(outcome.status, 0, outcome.stderr)
})

// On the CPU more ranks are test/ranks' business.
for (const ranks of device === 'cpu' ? [2] : [2, 4, 8]) {
  t.test(
    `${ranks} ranks, each with ${device === 'cpu' ? 'a process' : 'a device'} of its own`,
    { skip: fewerThan(ranks) },
    async (t) => {
      const space = new Workspace(t)
      const base = { train_batch_size: 16, gradient_accumulation_steps: 2 }
      const [one] = await curves(t, space, 1, [{ ...base, gradient_accumulation_steps: 1 }])
      const layouts: More[] = [
        ...stages.map(zero),
        { mesh: { tensor: 2 } },
        { mesh: { pipeline: 2 } },
        { mesh: { context: 2 } },
        ...(ranks > 2 ? [{ mesh: { tensor: 2, pipeline: 2 } }, { mesh: { tensor: 2 }, ...zero(2) }] : []),
      ]
      const all = await curves(
        t,
        space,
        ranks,
        layouts.map((more) => ({ ...base, ...more })),
      )
      for (const [index, curve] of all.entries()) closeCurves(t, curve, one as number[], JSON.stringify(layouts[index]))
      const outcome = await space.launch('collectives.mjs', [], ranks)
      t.equal(outcome.status, 0, outcome.stderr)
    },
  )
}

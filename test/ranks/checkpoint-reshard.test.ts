// A checkpoint goes from any layout to any other, optimizer states and all: the curve goes on as if nothing had happened.

import t, { type Test } from 'tap'
import { closeCurves, losses, Workspace, whole } from '../helpers/program.js'

type Settings = Record<string, unknown>
interface Layout {
  ranks: number
  settings?: Settings
}

const stage = (stage: number): Settings => ({
  zero_optimization: { stage, stage3_param_persistence_threshold: 100 },
})
const model = {
  config: { model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 32, n_positions: 16, vocab_size: 256 },
}
const steps = 8
const base: Settings = {
  model,
  train_batch_size: 12,
  train: { steps, seed: 3 },
  scheduler: { type: 'WarmupCosineLR', params: { warmup_num_steps: 2, total_num_steps: steps } },
}

/** The losses of a run that changes its layout every `steps / layouts` steps. */
async function moving(t: Test, space: Workspace, name: string, layouts: Layout[], more: Settings): Promise<number[]> {
  const output = space.path(name)
  const all: number[] = []
  for (const [index, { ranks, settings = {} }] of layouts.entries()) {
    const until = Math.round((steps * (index + 1)) / layouts.length)
    const args = ['--steps', String(until), '--resume', 'auto']
    const config = space.config({ ...base, ...more, ...settings })
    all.push(...losses(whole(t, await space.train(config, { ranks, output, args }))))
  }
  return all
}

t.test('f32: other numbers of ranks, other stages, pipelines', async (t) => {
  const space = new Workspace(t)
  const one = losses(whole(t, await space.train(space.config(base))))
  const pipeline = { mesh: { pipeline: 2 }, train_micro_batch_size_per_gpu: 2 }
  const chains: [string, Layout[]][] = [
    [
      '4 to 2 to 4 ranks',
      [
        { ranks: 4, settings: stage(1) },
        { ranks: 2, settings: stage(2) },
        { ranks: 4, settings: stage(3) },
      ],
    ],
    ['3 to 1 to 3 ranks', [{ ranks: 3, settings: stage(3) }, { ranks: 1 }, { ranks: 3, settings: stage(2) }]],
    [
      'stage 3 to 1 to 2 to 0',
      [
        { ranks: 2, settings: stage(3) },
        { ranks: 2, settings: stage(1) },
        { ranks: 3, settings: stage(2) },
        { ranks: 2, settings: stage(0) },
      ],
    ],
    [
      'pipeline to data parallel to tensor to both',
      [
        { ranks: 2, settings: pipeline },
        { ranks: 2, settings: stage(3) },
        { ranks: 2, settings: { mesh: { tensor: 2 } } },
        { ranks: 4, settings: { mesh: { tensor: 2, pipeline: 2 }, train_micro_batch_size_per_gpu: 2, ...stage(1) } },
      ],
    ],
    [
      'tensor and data parallel to one rank',
      [{ ranks: 4, settings: { mesh: { tensor: 2 }, ...stage(3) } }, { ranks: 1 }],
    ],
  ]
  for (const [name, layouts] of chains) closeCurves(t, await moving(t, space, name, layouts, {}), one, name)
})

t.test('bf16: bit for bit where the sums are the same, else within its rounding', async (t) => {
  const space = new Workspace(t)
  const bf16 = { bf16: { enabled: true } }
  const two = losses(whole(t, await space.train(space.config({ ...base, ...bf16, ...stage(1) }), { ranks: 2 })))
  const chain = [
    { ranks: 2, settings: stage(3) },
    { ranks: 2, settings: stage(1) },
    { ranks: 2, settings: stage(2) },
  ]
  t.strictSame(await moving(t, space, 'stages', chain, bf16), two, 'stages on 2 ranks')
  const ranks = [
    { ranks: 4, settings: stage(3) },
    { ranks: 1 },
    { ranks: 2, settings: { mesh: { pipeline: 2 }, train_micro_batch_size_per_gpu: 2 } },
  ]
  const other = await moving(t, space, 'ranks', ranks, bf16)
  const gaps = other.map((loss, index) => Math.abs(loss - (two[index] as number)))
  t.equal(gaps.length, steps)
  t.ok(Math.max(...gaps) < 1e-3, `4 ranks, 1, a pipeline of 2: at most ${Math.max(...gaps)} off`)
})

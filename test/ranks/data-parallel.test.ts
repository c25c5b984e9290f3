// Data parallelism and ZeRO 1 with real processes, against one process.

import t from 'tap'
import { closeCurves, losses, type Outcome, Workspace, whole } from '../helpers/program.js'

t.test('1, 2 and 4 ranks have one loss curve, also with dropout and accumulation', async (t) => {
  const space = new Workspace(t)
  const dropping = {
    model_type: 'gpt2',
    n_layer: 2,
    n_head: 2,
    n_embd: 32,
    n_positions: 16,
    vocab_size: 256,
    resid_pdrop: 0.1,
    embd_pdrop: 0.1,
    attn_pdrop: 0.1,
  }
  for (const more of [{}, { model: { config: dropping } }]) {
    const one = whole(t, await space.train(space.config(more)))
    t.ok((losses(one).at(-1) as number) < (losses(one)[0] as number) - 0.3, 'it learns')
    for (const [ranks, micro] of [
      [1, 2],
      [2, 4],
      [2, 1],
      [4, 2],
    ] as const) {
      for (const stage of [0, 1]) {
        const many = whole(
          t,
          await space.train(
            space.config({ ...more, train_micro_batch_size_per_gpu: micro, zero_optimization: { stage } }),
            { ranks },
          ),
        )
        closeCurves(t, losses(many), losses(one), `${ranks} ranks, micro-batch ${micro}, stage ${stage}`)
      }
    }
  }
})

t.test('stage 1 is stage 0 bit for bit, with less optimizer memory', async (t) => {
  const space = new Workspace(t)
  for (const bf16 of [{ enabled: false }, { enabled: true }]) {
    const run = (stage: number): Promise<Outcome> =>
      space.train(space.config({ bf16, zero_optimization: { stage } }), { ranks: 2 })
    const [zero, one] = [whole(t, await run(0)), whole(t, await run(1))]
    t.strictSame(losses(one), losses(zero))
    t.strictSame(
      one.steps.map((row) => row.gradNorm),
      zero.steps.map((row) => row.gradNorm),
    )
    const [full, shard] = [zero, one].map((outcome) => outcome.steps[0]?.memory.optimizer as number) as [number, number]
    t.ok(shard < 0.51 * full, `${shard} of ${full} bytes`)
  }
})

t.test('one stream or three, overlapped or not, one bit pattern', async (t) => {
  const space = new Workspace(t)
  const config = space.config({ zero_optimization: { stage: 1 } })
  const streams = whole(t, await space.train(config, { ranks: 2 }))
  t.strictSame(losses(whole(t, await space.train(config, { ranks: 2, args: ['--serial'] }))), losses(streams))
  const late = space.config({ zero_optimization: { stage: 1, overlap_comm: false } })
  t.strictSame(losses(whole(t, await space.train(late, { ranks: 2 }))), losses(streams))
})

t.test('recomputed activations give the same bits', async (t) => {
  const space = new Workspace(t)
  const plain = whole(t, await space.train(space.config()))
  const again = whole(t, await space.train(space.config({ activation_checkpointing: { number_checkpoints: 2 } })))
  t.strictSame(losses(again), losses(plain))
})

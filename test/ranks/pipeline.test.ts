// Pipelines with real processes: every schedule, with every ZeRO stage, has the loss curve of one process.

import t from 'tap'
import { closeCurves, losses, Workspace, whole } from '../helpers/program.js'

const model = (more: Record<string, unknown> = {}) => ({
  config: { model_type: 'gpt2', n_layer: 6, n_head: 2, n_embd: 32, n_positions: 16, vocab_size: 256, ...more },
})
const base = { train_batch_size: 16, train: { steps: 6, seed: 3, eval_interval: 3, eval_batches: 2 } }

t.test('misuse of a pipeline is refused with what to use', async (t) => {
  const space = new Workspace(t)
  for (const [more, ranks, pattern] of [
    [{ mesh: { pipeline: 3 } }, 2, /mesh pipeline 3/],
    [{ mesh: { pipeline: 2 }, pipeline: { schedule: '1f1' } }, 2, /1f1b/],
    [{ mesh: { pipeline: 2 }, pipeline: { partition: 'type:nothing' } }, 2, /nothing/],
    [{ mesh: { pipeline: 4 }, model: model({ n_layer: 1 }) }, 4, /layers/],
  ] as const) {
    const run = await space.train(space.config({ ...base, ...more }), { ranks })
    t.equal(run.status, 2, run.stderr)
    t.match(run.stderr, pattern)
  }
  const outcome = await space.launch('pipeline-contract.mjs', [], 2)
  t.equal(outcome.status, 0, outcome.stderr)
  t.match(outcome.stdout, 'forward refused, backward refused, step refused, tensors 0')
})

t.test('every schedule has the curve of one process, evaluation between steps included', async (t) => {
  const space = new Workspace(t)
  const one = whole(t, await space.train(space.config({ ...base, model: model() })))
  for (const [schedule, ranks, stages] of [
    ['gpipe', 2, 2],
    ['1f1b', 2, 2],
    ['1f1b', 4, 4],
    ['interleaved', 2, 2],
    ['zb-h1', 4, 4],
    ['zb-v', 2, 2],
  ] as const) {
    const run = await space.train(
      space.config({
        ...base,
        model: model(),
        train_micro_batch_size_per_gpu: 2,
        mesh: { pipeline: stages },
        pipeline: { schedule },
      }),
      { ranks },
    )
    closeCurves(t, losses(whole(t, run)), losses(one), `${schedule} on ${stages} stages`)
  }
})

t.test(
  'pipelines with data parallelism and every ZeRO stage, tied and untied, with dropout and recomputation',
  async (t) => {
    const space = new Workspace(t)
    for (const shape of [{}, { tie_word_embeddings: false, resid_pdrop: 0.1, embd_pdrop: 0.1 }]) {
      const one = whole(t, await space.train(space.config({ ...base, model: model({ attn_pdrop: 0, ...shape }) })))
      for (const [stage, schedule] of [
        [0, '1f1b'],
        [1, 'zb-v'],
        [2, '1f1b'],
        [2, 'zb-h1'],
        [3, '1f1b'],
        [3, 'interleaved'],
      ] as const) {
        const run = await space.train(
          space.config({
            ...base,
            model: model({ attn_pdrop: 0, ...shape }),
            train_micro_batch_size_per_gpu: 1,
            mesh: { pipeline: 2 },
            pipeline: { schedule },
            zero_optimization: { stage, stage3_param_persistence_threshold: 0 },
            activation_checkpointing: { number_checkpoints: stage === 2 ? 2 : 0 },
          }),
          { ranks: 4 },
        )
        closeCurves(t, losses(whole(t, run)), losses(one), `${schedule}, stage ${stage} ${JSON.stringify(shape)}`)
      }
    }
  },
)

t.test("draws of a user's layers, named or not, shared or not, are those of one process", async (t) => {
  const space = new Workspace(t)
  const run = async (ranks: number, mesh: object, more: object = {}): Promise<number[]> => {
    const outcome = await space.launch('draws.mjs', [JSON.stringify(mesh), JSON.stringify(more)], ranks)
    t.equal(outcome.status, 0, outcome.stderr)
    return JSON.parse(outcome.stdout || '[]') as number[]
  }
  const one = await run(1, {})
  t.equal(one.length, 4)
  for (const [schedule, ranks, pipeline] of [
    ['1f1b', 2, 2],
    ['1f1b', 4, 2],
    ['interleaved', 2, 2],
    ['zb-v', 2, 2],
    ['gpipe', 4, 4],
  ] as const) {
    const name = `${schedule}, ${pipeline} stages on ${ranks} ranks`
    closeCurves(t, await run(ranks, { pipeline }, { pipeline: { schedule } }), one, name)
  }
})

t.test('fewer micro-batches than stages work; checkpoints go from one cut to another', async (t) => {
  const space = new Workspace(t)
  const config = (more: Record<string, unknown>) =>
    space.config({ ...base, train: { steps: 8, seed: 3 }, model: model(), ...more })
  const one = whole(t, await space.train(config({})))
  const output = space.path('moving')
  const cut = { train_micro_batch_size_per_gpu: 8, mesh: { pipeline: 4 } }
  const half = whole(t, await space.train(config(cut), { ranks: 4, output, args: ['--steps', '4'] }))
  closeCurves(t, losses(half), losses(one).slice(0, 4), '2 micro-batches on 4 stages')
  const timed = { ...cut, pipeline: { partition: 'time' } }
  const other = whole(t, await space.train(config(timed), { ranks: 4, args: ['--steps', '4'] }))
  closeCurves(t, losses(other), losses(one).slice(0, 4), 'cut by time')
  // 1f1b, a backward takes as long as two forwards: (4 - 1) / (2 + 4 - 1) of the time.
  const told = space.start(['train', space.write('told.json', config(cut)), '--nproc', '4', '--steps', '1'])
  t.match((await told.done).stderr, 'note: pipeline: 2 micro-batches on 4 stages leave 60 % of the time idle (1f1b)')
  const zero = { zero_optimization: { stage: 3, stage3_param_persistence_threshold: 0 } }
  const rest = whole(t, await space.train(config(zero), { ranks: 2, output, args: ['--resume', 'auto'] }))
  closeCurves(t, losses(rest), losses(one).slice(4), 'resumed at stage 3 on 2 ranks')
})

t.test('16 ranks (4 stages, 2 tensor, 2 data) have the curve of one process, in less than a minute', async (t) => {
  const space = new Workspace(t)
  const config = { ...base, model: model({ n_layer: 4 }), train_micro_batch_size_per_gpu: 2 }
  const one = whole(t, await space.train(space.config(config)))
  const mesh = { pipeline: 4, tensor: 2 }
  const started = Date.now()
  const run = whole(t, await space.train(space.config({ ...config, mesh }), { ranks: 16 }))
  t.ok(Date.now() - started < 60_000, `${Date.now() - started} ms`)
  closeCurves(t, losses(run), losses(one), '16 ranks')
})

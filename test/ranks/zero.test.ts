// ZeRO stages 0 to 3 with real processes: one loss curve on every number of ranks, the same bits where the sums are.

import t from 'tap'
import { closeCurves, losses, Workspace, whole } from '../helpers/program.js'

const sharded = (stage: number, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  stage,
  stage3_param_persistence_threshold: 100,
  stage3_prefetch_bucket_size: 20_000,
  ...more,
})

t.test('1 to 4 ranks, with and without accumulation, have the curve of one process', async (t) => {
  const space = new Workspace(t)
  const base = { train_batch_size: 36, train: { steps: 6, seed: 3 } }
  const one = whole(t, await space.train(space.config(base)))
  for (const ranks of [1, 2, 3, 4]) {
    for (const accumulation of [1, 3]) {
      const runs = await Promise.all(
        [0, 1, 2, 3].map((stage) =>
          space.train(
            space.config({ ...base, gradient_accumulation_steps: accumulation, zero_optimization: sharded(stage) }),
            { ranks },
          ),
        ),
      )
      for (const [stage, run] of runs.entries()) {
        const name = `${ranks} ranks, accumulation ${accumulation}, stage ${stage}`
        closeCurves(t, losses(whole(t, run)), losses(one), name)
        if (accumulation === 1) t.strictSame(losses(run), losses(runs[0] as typeof run), `${name}: bits of stage 0`)
      }
      t.strictSame(losses(runs[1] as (typeof runs)[0]), losses(runs[0] as (typeof runs)[0]), 'stage 1: bits of stage 0')
      t.strictSame(losses(runs[3] as (typeof runs)[0]), losses(runs[2] as (typeof runs)[0]), 'stage 3: bits of stage 2')
    }
  }
})

t.test('stages 2 and 3 in bf16, overlapped or not, on one stream, with small buckets: one bit pattern', async (t) => {
  const space = new Workspace(t)
  const config = (zero: Record<string, unknown>) =>
    space.config({ bf16: { enabled: true }, train: { steps: 6, seed: 3 }, zero_optimization: zero })
  const base = whole(t, await space.train(config(sharded(0)), { ranks: 2 }))
  for (const stage of [2, 3]) {
    for (const [name, zero, args] of [
      ['as it comes', sharded(stage), []],
      ['without overlap', sharded(stage, { overlap_comm: false }), []],
      ['small buckets', sharded(stage, { reduce_bucket_size: 2000 }), []],
      ['no prefetch', sharded(stage, { stage3_prefetch_bucket_size: 0 }), []],
      ['one stream', sharded(stage), ['--serial']],
      ['all persistent', sharded(stage, { stage3_param_persistence_threshold: 1e9 }), []],
    ] as const) {
      const run = whole(t, await space.train(config(zero), { ranks: 2, args: [...args] }))
      t.strictSame(losses(run), losses(base), `stage ${stage} ${name}`)
    }
  }
})

t.test('recomputation and evaluation between steps change no bit at stage 3', async (t) => {
  const space = new Workspace(t)
  const base = whole(t, await space.train(space.config({ zero_optimization: sharded(0) }), { ranks: 2 }))
  const run = await space.train(
    space.config({
      zero_optimization: sharded(3),
      train: { steps: 8, seed: 3, eval_interval: 3, eval_batches: 2 },
      activation_checkpointing: { number_checkpoints: 2 },
    }),
    { ranks: 2 },
  )
  t.strictSame(losses(whole(t, run)), losses(base))
})

interface Odd {
  losses: number[]
  norms: number[]
  whole: Record<string, number[]>
  tensors: number
  bytes: number
}

t.test('parameters used twice, never, frozen, empty; branches and orders that differ', async (t) => {
  const space = new Workspace(t)
  for (const branch of ['left', 'divergent']) {
    const results: Odd[] = []
    for (const stage of [0, 1, 2, 3]) {
      for (const accumulation of [1, 2]) {
        const outcome = await space.launch('odd-models.mjs', [String(stage), String(accumulation), branch], 2)
        t.equal(outcome.status, 0, outcome.stderr)
        const result = JSON.parse(outcome.stdout) as Odd
        t.equal(result.tensors, 0, 'all tensors are freed')
        t.equal(result.bytes, 0)
        if (accumulation === 1) results.push(result)
      }
    }
    for (const result of results.slice(1)) {
      t.strictSame(result.losses, results[0]?.losses, branch)
      t.strictSame(result.norms, results[0]?.norms)
      t.strictSame(result.whole, results[0]?.whole)
    }
  }
})

t.test('recomputed blocks stay within stage3_max_live_parameters, with the same bits', async (t) => {
  const space = new Workspace(t)
  const model = { model_type: 'gpt2', n_layer: 8, n_head: 2, n_embd: 32, n_positions: 16, vocab_size: 256 }
  const train = async (more: object) => {
    const config = space.config({
      model: { config: model },
      train: { steps: 3, seed: 3 },
      activation_checkpointing: { number_checkpoints: 1 },
      zero_optimization: {
        stage: 3,
        stage3_param_persistence_threshold: 0,
        stage3_prefetch_bucket_size: 0,
        ...more,
      },
    })
    return whole(t, await space.train(config, { ranks: 2 }))
  }
  const [free, limited] = [await train({}), await train({ stage3_max_live_parameters: 30_000 })]
  t.strictSame(losses(limited), losses(free))
  const [most, least] = [free, limited].map(({ steps }) => steps[2]?.memoryPeak.parameters as number)
  // Elements: 8 blocks of 12,704; of them half lies here, and one or all are whole.
  t.ok((most as number) - (least as number) > 5 * 12_704 * 4, `${least} of ${most}`)
})

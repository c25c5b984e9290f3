// `zeroshard train` with tensor and sequence parallelism: the loss curve of one process, on every layout; checkpoints
// of one layout resumed on another.

import t, { type Test } from 'tap'
import { losses, type Outcome, type Row, Workspace, whole } from '../helpers/program.js'

const gpt2 = (more: Record<string, unknown> = {}) => ({
  model_type: 'gpt2',
  n_layer: 2,
  n_head: 4,
  n_embd: 32,
  n_positions: 16,
  vocab_size: 259,
  resid_pdrop: 0.1,
  embd_pdrop: 0.1,
  attn_pdrop: 0.1,
  ...more,
})
const llama = (more: Record<string, unknown> = {}) => ({
  model_type: 'llama',
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  hidden_size: 32,
  intermediate_size: 64,
  max_position_embeddings: 16,
  vocab_size: 259,
  attention_dropout: 0.1,
  ...more,
})

/** The law for layouts in f32: relative, 1e-6 at the median step and 1e-4 at every one. */
function lawful(t: Test, run: Outcome, one: Outcome, name: string): void {
  const expected = losses(one)
  const gaps = losses(run).map((loss, index) => Math.abs(loss / (expected[index] as number) - 1))
  t.equal(gaps.length, expected.length, `${name}: as many steps`)
  gaps.sort((a, b) => a - b)
  const [median, worst] = [gaps[gaps.length >> 1], gaps.at(-1)]
  t.ok((median as number) <= 1e-6 && (worst as number) <= 1e-4, `${name}: median ${median}, worst ${worst}`)
  run.steps.forEach((row, index) => {
    const gap = Math.abs(row.gradNorm / (one.steps[index] as { gradNorm: number }).gradNorm - 1)
    if (!(gap < 1e-4)) t.fail(`${name}: gradient norm of step ${index + 1} is off by ${gap}`)
  })
}

interface Layout {
  tp: number
  pp?: number
  dp?: number
  more?: Record<string, unknown>
}
const sequence = { sequence_parallel: true }
const overlap = { tp_overlap_comm: true, overlap_chunks: 3 }
const layouts: Layout[] = [
  { tp: 2 },
  { tp: 4 },
  { tp: 2, more: { tensor_parallel: sequence } },
  { tp: 4, more: { tensor_parallel: { ...sequence, ...overlap } } },
  { tp: 2, more: { tensor_parallel: overlap } },
  { tp: 2, more: { tensor_parallel: sequence, activation_checkpointing: { number_checkpoints: 2 } } },
  { tp: 2, pp: 2, more: { train_micro_batch_size_per_gpu: 2 } },
  { tp: 2, pp: 2, more: { pipeline: { schedule: 'zb-h1' }, tensor_parallel: { ...sequence, ...overlap } } },
  ...[0, 1, 2, 3].map((stage) => ({
    tp: 2,
    dp: 2,
    more: {
      zero_optimization: { stage, stage3_param_persistence_threshold: 100 },
      train_micro_batch_size_per_gpu: 2,
      ...(stage % 2 === 1 && { tensor_parallel: sequence }),
    },
  })),
]
const models: [string, Record<string, unknown>, Layout[]][] = [
  ['GPT-2, tied, with dropout', gpt2(), layouts],
  ['GPT-2, untied', gpt2({ tie_word_embeddings: false, resid_pdrop: 0 }), layouts.slice(0, 3)],
  ['Llama, fewer key heads than 4 ranks', llama(), layouts],
  [
    'Llama, tied, with biases',
    llama({ tie_word_embeddings: true, num_key_value_heads: 4, attention_bias: true }),
    layouts.slice(1, 3),
  ],
]

for (const [name, config, chosen] of models) {
  t.test(`${name}: every layout has the curve of one process`, async (t) => {
    const space = new Workspace(t)
    const shared = { model: { config }, train: { steps: 6, seed: 3, eval_interval: 3, eval_batches: 2 } }
    const one = whole(t, await space.train(space.config(shared)))
    for (const { tp, pp = 1, dp = 1, more } of chosen) {
      const config = space.config({ ...shared, mesh: { tensor: tp, pipeline: pp }, ...more })
      const run = await space.train(config, { ranks: tp * pp * dp })
      lawful(t, whole(t, run), one, `tensor ${tp} x pipeline ${pp} x data ${dp} ${JSON.stringify(more ?? {})}`)
    }
  })
}

t.test(
  "memory falls with the ranks: states, and a block's activations where the sequence is cut, by half",
  async (t) => {
    const space = new Workspace(t)
    const run = async (
      n_layer: number,
      tensor: number,
      tensor_parallel = {},
    ): Promise<[states: number, peak: number]> => {
      const model = { config: gpt2({ n_layer, n_embd: 64, n_positions: 32 }) }
      const config = space.config({ model, train: { steps: 2, seed: 1 }, mesh: { tensor }, tensor_parallel })
      const { memory, memoryPeak } = whole(t, await space.train(config, { ranks: tensor })).steps[1] as Row
      return [memory.optimizer as number, memoryPeak.activations as number]
    }
    const [one, oneDeep] = [await run(1, 1), await run(4, 1)]
    const [two, twoDeep] = [await run(1, 2, sequence), await run(4, 2, sequence)]
    const [states, perBlock] = [twoDeep[0] / oneDeep[0], (twoDeep[1] - two[1]) / (oneDeep[1] - one[1])]
    t.ok(states > 0.5 && states < 0.53, `optimizer states: ${states}`)
    t.ok(perBlock > 0.49 && perBlock < 0.51, `activations of a block: ${perBlock}`)
    const replicated = (await run(4, 2))[1]
    t.ok(replicated > twoDeep[1] && replicated < oneDeep[1], `${replicated} where the sequence is whole`)
  },
)

t.test('bf16 on two tensor ranks learns as on one', async (t) => {
  const space = new Workspace(t)
  const config = { model: { config: gpt2() }, bf16: { enabled: true }, train: { steps: 12, seed: 3 } }
  const one = whole(t, await space.train(space.config(config)))
  for (const tensor_parallel of [{}, sequence]) {
    const two = whole(
      t,
      await space.train(space.config({ ...config, mesh: { tensor: 2 }, tensor_parallel }), { ranks: 2 }),
    )
    t.ok((losses(two).at(-1) as number) < (losses(two)[0] as number) - 0.3, 'it learns')
    const gap = Math.max(...losses(two).map((loss, index) => Math.abs(loss - (losses(one)[index] as number))))
    t.ok(gap < 0.05, `at most ${gap} from one rank`)
  }
})

t.test('a checkpoint of one layout goes on on another', async (t) => {
  const space = new Workspace(t)
  const shared = (more: object): Record<string, unknown> =>
    space.config({ model: { config: llama() }, train: { steps: 8, seed: 3 }, ...more })
  const one = whole(t, await space.train(shared({})))
  const cut = { mesh: { tensor: 4 } }
  const both = { mesh: { tensor: 2 }, zero_optimization: { stage: 1 }, tensor_parallel: sequence }
  const replicated = { zero_optimization: { stage: 2 } }
  for (const [from, fromRanks, to, toRanks] of [
    [cut, 4, {}, 1],
    [cut, 4, both, 4],
    [both, 4, replicated, 2],
    [replicated, 2, cut, 4],
  ] as const) {
    const output = space.path(`from-${JSON.stringify(from).length}-${JSON.stringify(to).length}`)
    whole(t, await space.train(shared(from), { ranks: fromRanks, output, args: ['--steps', '4'] }))
    const rest = whole(t, await space.train(shared(to), { ranks: toRanks, output, args: ['--resume', 'auto'] }))
    const expected = { ...one, steps: one.steps.slice(4) }
    lawful(t, rest, expected, `${JSON.stringify(from)} to ${JSON.stringify(to)}`)
  }
})

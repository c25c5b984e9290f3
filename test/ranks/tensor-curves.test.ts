// `zeroshard train` with tensor and sequence parallelism: the loss curve of one process on every layout.

import t from 'tap'
import { Workspace, whole } from '../helpers/program.js'
import { gpt2, lawful, llama } from '../helpers/tensor.js'

interface Layout {
  tp: number
  pp?: number
  cp?: number
  dp?: number
  more?: Record<string, unknown>
}
const sequence = { sequence_parallel: true }
const overlap = { tp_overlap_comm: true, overlap_chunks: 3 }
const few: Layout[] = [
  { tp: 2 },
  { tp: 4, more: { tensor_parallel: { ...sequence, ...overlap } } },
  { tp: 2, pp: 2, more: { pipeline: { schedule: 'zb-h1' }, tensor_parallel: { ...sequence, ...overlap } } },
  { tp: 2, cp: 2, more: { tensor_parallel: sequence } },
]
const layouts: Layout[] = [
  ...few,
  { tp: 4 },
  { tp: 2, more: { tensor_parallel: sequence } },
  { tp: 2, more: { tensor_parallel: overlap } },
  { tp: 2, more: { tensor_parallel: sequence, activation_checkpointing: { number_checkpoints: 2 } } },
  { tp: 2, pp: 2, more: { train_micro_batch_size_per_gpu: 2 } },
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
  ['GPT-2, untied', gpt2({ tie_word_embeddings: false, resid_pdrop: 0 }), few],
  ['Llama, fewer key heads than 4 ranks', llama(), few],
  [
    'Llama, tied, with biases',
    llama({ tie_word_embeddings: true, num_key_value_heads: 4, attention_bias: true }),
    few.slice(1, 4),
  ],
]

for (const [name, config, chosen] of models) {
  t.test(`${name}: every layout has the curve of one process`, async (t) => {
    const space = new Workspace(t)
    const shared = { model: { config }, train: { steps: 6, seed: 3, eval_interval: 3, eval_batches: 2 } }
    const one = whole(t, await space.train(space.config(shared)))
    for (const { tp, pp = 1, cp = 1, dp = 1, more } of chosen) {
      const mesh = { tensor: tp, pipeline: pp, context: cp }
      const run = await space.train(space.config({ ...shared, mesh, ...more }), { ranks: tp * pp * cp * dp })
      lawful(t, whole(t, run), one, `${JSON.stringify(mesh)} x data ${dp} ${JSON.stringify(more ?? {})}`)
    }
  })
}

// Context parallelism beside every other kind, with real processes: one loss curve and one gradient norm.

import t from 'tap'
import { type Outcome, Workspace, whole } from '../helpers/program.js'
import { gpt2, lawful, llama } from '../helpers/tensor.js'

for (const type of ['ulysses', 'ring']) {
  t.test(`GPT-2 with dropout, ${type}: alone, beside data, tensor, pipeline and ZeRO`, async (t) => {
    const space = new Workspace(t)
    const train = async (more: Record<string, unknown>, ranks: number): Promise<Outcome> =>
      whole(t, await space.train(space.config({ model: { config: gpt2() }, ...more }), { ranks }))
    const one = await train({}, 1)
    const context_parallel = { type }
    lawful(t, await train({ mesh: { context: 4 }, context_parallel }, 4), one, 'context 4')
    for (const stage of type === 'ring' ? [0, 3] : [1, 2]) {
      const zero_optimization = { stage, stage3_param_persistence_threshold: 100 }
      const run = await train({ mesh: { context: 2 }, context_parallel, zero_optimization }, 4)
      lawful(t, run, one, `context 2 x data 2, stage ${stage}`)
    }
    const piped = { mesh: { context: 2, pipeline: 2 }, context_parallel, gradient_accumulation_steps: 4 }
    lawful(t, await train(piped, 4), one, 'context 2 x pipeline 2')
    const sharded = { mesh: { context: 2, tensor: 2 }, context_parallel, tensor_parallel: { sequence_parallel: true } }
    lawful(t, await train(sharded, 4), one, 'context 2 x tensor 2 with sequence parts')
    const again = { mesh: { context: 2 }, context_parallel, activation_checkpointing: { number_checkpoints: 2 } }
    lawful(t, await train(again, 2), one, 'context 2, recomputed')
  })
}

t.test('Llama with grouped-query heads, of which a rank may have less than one', async (t) => {
  const space = new Workspace(t)
  const train = async (more: Record<string, unknown>, ranks: number): Promise<Outcome> =>
    whole(t, await space.train(space.config({ model: { config: llama() }, ...more }), { ranks }))
  const one = await train({}, 1)
  for (const [context, type] of [
    [2, null],
    [2, 'ring'],
    [4, null],
    [4, 'ulysses'],
  ] as const) {
    const run = await train({ mesh: { context }, context_parallel: { type } }, context)
    lawful(t, run, one, `context ${context}, ${type ?? 'chosen'}`)
  }
  const stage3 = { zero_optimization: { stage: 3, stage3_param_persistence_threshold: 100 } }
  lawful(t, await train({ sequence_parallel_size: 2, ...stage3 }, 4), one, 'sequence_parallel_size 2 x data 2')
})

// Context parallelism with real processes: the attention of a cut sequence is that of the whole, and so is training.

import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { losses, type Outcome, Workspace, whole } from '../helpers/program.js'

const gpt2 = {
  model_type: 'gpt2',
  n_layer: 2,
  n_head: 4,
  n_embd: 32,
  n_positions: 16,
  vocab_size: 256,
  resid_pdrop: 0.1,
  embd_pdrop: 0.1,
  attn_pdrop: 0.1,
}
const llama = {
  model_type: 'llama',
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  attention_dropout: 0.1,
  hidden_size: 32,
  intermediate_size: 48,
  max_position_embeddings: 16,
  vocab_size: 256,
}

/** The law: 1e-6 relative at the median step, 1e-4 at each. */
function lawful(t: Test, run: Outcome, one: Outcome, name: string): void {
  const expected = losses(one)
  const gaps = losses(whole(t, run)).map((loss, index) => Math.abs(loss / (expected[index] as number) - 1))
  t.equal(gaps.length, expected.length, `${name}: as many steps`)
  const sorted = [...gaps].sort((a, b) => a - b)
  const median = sorted[Math.floor(sorted.length / 2)] as number
  t.ok(median <= 1e-6 && (sorted.at(-1) as number) <= 1e-4, `${name}: median ${median}, worst ${sorted.at(-1)}`)
  for (const [index, { gradNorm }] of run.steps.entries()) {
    const ratio = gradNorm / (one.steps[index]?.gradNorm as number)
    if (!(Math.abs(ratio - 1) < 1e-4)) t.fail(`${name}: gradient norm of step ${index + 1} is ${ratio} of the whole's`)
  }
}

const sizes = { b: 2, t: 24, hq: 4, hkv: 4, d: 8, dtype: 'f32' }
const attentions = ['ring', 'ulysses'].flatMap((kind) => [
  { kind, ...sizes, packed: true },
  { kind, ...sizes, packed: true, dtype: 'bf16' },
  { kind, ...sizes, hkv: 2 },
  { kind, ...sizes, hkv: 1, b: 1 },
  { kind, ...sizes, hkv: 2, dtype: 'bf16' },
  { kind, ...sizes, causal: false },
  { kind, ...sizes, hkv: 2, p: 0.3 },
  { kind, ...sizes, packed: true, p: 0.3, causal: false },
  { kind, ...sizes, t: 272, b: 1, hq: 8, d: 4 },
])

t.test('values and gradients of a cut attention are those of the whole, the same bits twice', async (t) => {
  const space = new Workspace(t)
  for (const ranks of [1, 2, 4]) {
    // 24 tokens are 3 chunks of each kind for one rank and 8 for four; 1 and 2 heads of k and v are fewer than 4 ranks.
    const { status, stdout, stderr } = await space.launch('context-attention.mjs', [JSON.stringify(attentions)], ranks)
    t.equal(status, 0, stderr)
    const results = JSON.parse(stdout) as number[]
    t.equal(results.pop(), 0, 'nothing is left')
    for (const [index, each] of attentions.entries()) {
      const limit = each.dtype === 'bf16' ? 1e-2 : 2e-6
      t.ok((results[index] as number) <= limit, `${ranks} ranks, ${JSON.stringify(each)}: ${results[index]}`)
    }
  }
})

t.test('GPT-2 with dropout on 2 and 4 context ranks, beside data parallelism, ZeRO and a pipeline', async (t) => {
  const space = new Workspace(t)
  const train = (more: Record<string, unknown>, ranks: number): Promise<Outcome> =>
    space.train(space.config({ model: { config: gpt2 }, ...more }), { ranks })
  const one = whole(t, await train({}, 1))
  for (const type of ['ulysses', 'ring']) {
    const context_parallel = { type }
    for (const context of [2, 4])
      lawful(t, await train({ mesh: { context }, context_parallel }, context), one, `${type} ${context}`)
    for (const stage of type === 'ring' ? [0, 3] : [1, 2]) {
      const zero_optimization = { stage, stage3_param_persistence_threshold: 100 }
      const run = await train({ mesh: { context: 2 }, context_parallel, zero_optimization }, 4)
      lawful(t, run, one, `${type} 2 x data 2, stage ${stage}`)
    }
    const piped = { mesh: { context: 2, pipeline: 2 }, context_parallel, gradient_accumulation_steps: 4 }
    lawful(t, await train(piped, 4), one, `${type} 2 x pipeline 2`)
    const again = { mesh: { context: 2 }, context_parallel, activation_checkpointing: { number_checkpoints: 2 } }
    lawful(t, await train(again, 2), one, `${type} 2, recomputed`)
  }
})

t.test('Llama with grouped-query heads, of which a rank may have less than one', async (t) => {
  const space = new Workspace(t)
  const train = (more: Record<string, unknown>, ranks: number): Promise<Outcome> =>
    space.train(space.config({ model: { config: llama }, ...more }), { ranks })
  const one = whole(t, await train({}, 1))
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

t.test('bf16, one stream or three: one bit pattern; evaluation sees whole sequences', async (t) => {
  const space = new Workspace(t)
  const evaluated = { steps: 4, seed: 3, eval_interval: 2, eval_batches: 2 }
  const validation = (run: string): number[] =>
    readFileSync(space.path(run), 'utf8')
      .split('\n')
      .filter(Boolean)
      .flatMap((line) => (JSON.parse(line) as { validationLoss?: number }).validationLoss ?? [])
  const train = (more: Record<string, unknown>, ranks: number, metrics: string, args: string[] = []) =>
    space.train(space.config({ model: { config: gpt2 }, train: evaluated, ...more }), {
      ranks,
      args: ['--metrics', space.path(metrics), ...args],
    })
  whole(t, await train({}, 1, 'one'))
  for (const type of ['ulysses', 'ring']) {
    const cut = { mesh: { context: 2 }, context_parallel: { type } }
    whole(t, await train(cut, 2, type))
    t.equal(validation(type).length, 2)
    for (const [index, loss] of validation(type).entries())
      t.ok(Math.abs(loss / (validation('one')[index] as number) - 1) < 1e-5, `${type}: ${loss}`)
    const half = { ...cut, bf16: { enabled: true } }
    whole(t, await train(half, 2, `${type}-half`))
    whole(t, await train(half, 2, `${type}-serial`, ['--serial']))
    const bits = (name: string): number[] => space.steps(name).map(({ loss }) => loss)
    t.strictSame(bits(`${type}-serial`), bits(`${type}-half`), `${type}: bits`)
    const apart = bits(`${type}-half`).map((loss, index) => Math.abs(loss - (bits('one')[index] as number)))
    t.ok(Math.max(...apart) < 0.02, `${type}: bf16 is ${Math.max(...apart)} from f32`)
  }
})

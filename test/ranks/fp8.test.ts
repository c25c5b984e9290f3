// Training in 8 bits with real processes: the curve of bf16 within what quantisation takes, on every layout; scales that
// all ranks that share a tensor agree on, bit for bit; a resumed run that repeats the uninterrupted one.

import t, { type Test } from 'tap'
import { losses, Workspace, whole } from '../helpers/program.js'

const gpt2 = { model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 32, n_positions: 16, vocab_size: 256 }
const dropout = { resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 }
const llama = {
  model_type: 'llama',
  ...{ num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, hidden_size: 64, intermediate_size: 96 },
  ...{ max_position_embeddings: 16, vocab_size: 256 },
}
const bf16 = { bf16: { enabled: true } }
const eight = (more: Record<string, unknown> = {}): Record<string, unknown> => ({
  ...bf16,
  fp8: { enabled: true, amax_history_len: 8, ...more },
})
const mesh = (pipeline: number, tensor: number, context = 1): Record<string, unknown> => ({
  mesh: { pipeline, tensor, context },
  ...(pipeline > 1 && { train_micro_batch_size_per_gpu: 2 }),
})

/** Relative gap of two curves, mean and worst. */
function gaps(a: readonly number[], b: readonly number[]): { mean: number; worst: number } {
  const each = a.map((loss, i) => Math.abs(loss / (b[i] as number) - 1))
  return { mean: each.reduce((sum, gap) => sum + gap, 0) / each.length, worst: Math.max(...each) }
}

for (const [name, model] of [
  ['GPT-2', { ...gpt2, ...dropout }],
  ['Llama', llama],
] as const) {
  t.test(`${name} learns in 8 bits as in bf16, on 1 and on 4 ranks`, async (t) => {
    const space = new Workspace(t)
    const config = (more: Record<string, unknown>): Record<string, unknown> =>
      space.config({ model: { config: model }, train: { steps: 40, seed: 3 }, ...more })
    const oracle = losses(whole(t, await space.train(config(bf16))))
    t.ok((oracle[39] as number) < 0.75 * (oracle[0] as number), `bf16 learns: ${oracle[0]} to ${oracle[39]}`)
    const layouts: [string, number, Record<string, unknown>][] = [
      ['delayed', 1, eight()],
      ['current', 1, eight({ recipe: 'current' })],
      ['e4m3, most recent', 1, eight({ format: 'e4m3', amax_compute_algo: 'most_recent', margin: 1 })],
      ['dp 2 x tp 2', 4, { ...eight(), ...mesh(1, 2) }],
      ['pp 2 x dp 2', 4, { ...eight(), ...mesh(2, 1) }],
    ]
    for (const [what, ranks, more] of layouts) {
      const run = losses(whole(t, await space.train(config(more), { ranks })))
      const { mean, worst } = gaps(run, oracle)
      // Codes have 3 bits behind the point (gradients 2), and their errors average out. Measured: mean 0.7 to 1.7 %, worst 7 %.
      t.ok(mean < 0.03 && worst < 0.12, `${what}: mean gap ${mean}, worst ${worst}`)
      t.notSame(run, oracle, `${what}: it is another arithmetic`)
      t.comment(`${name}, ${what}: mean ${mean.toExponential(2)}, worst ${worst.toExponential(2)}`)
    }
  })
}

interface Rank {
  rank: number
  losses: number[]
  slots: Record<string, { dtype: string; scale: number; history: number[] }>
}

async function ranksOf(
  t: Test,
  space: Workspace,
  ranks: number,
  config: Record<string, unknown>,
  more: Record<string, unknown> = {},
): Promise<Rank[]> {
  const request = { model: { ...gpt2, ...dropout, n_embd: 64 }, steps: 6, ...more }
  const all = {
    train_batch_size: 8,
    gradient_clipping: 1,
    optimizer: { type: 'AdamW', params: { lr: 3e-3 } },
    ...config,
    train_micro_batch_size_per_gpu: 1,
  }
  const run = await space.launch('fp8.mjs', [JSON.stringify({ ...request, config: all })], ranks)
  t.equal(run.status, 0, run.stderr || 'done')
  const lines = run.stdout.split('\n').flatMap((line) => /\{.*\}/.exec(line)?.[0] ?? [])
  return lines.map((line) => JSON.parse(line) as Rank).sort((a, b) => a.rank - b.rank)
}

t.test(
  'ranks that share a tensor have the same scales and histories, and the layout changes them little',
  async (t) => {
    const space = new Workspace(t)
    const [one] = await ranksOf(t, space, 1, eight())
    const names = Object.keys(one?.slots ?? {})
    t.equal(names.length, 2 * 4 * 3, 'two blocks of four linears')
    t.ok(names.includes('transformer.h.1.mlp.c_fc.gradient'), names.join())
    for (const [name, { dtype, scale, history }] of Object.entries(one?.slots ?? {})) {
      t.equal(dtype, name.endsWith('gradient') ? 'f8e5m2' : 'f8e4m3', name)
      t.ok(history.slice(0, 6).every((value) => value > 0) && history.slice(6).every((value) => value === 0), name)
      t.equal(
        scale,
        Math.fround(Math.fround(dtype === 'f8e5m2' ? 57344 : 448) / Math.max(...history)),
        `${name}: of the largest`,
      )
    }
    // Each has two ranks over the samples (dp) or over the sequence (cp).
    const layouts: [number, Record<string, unknown>][] = [
      [4, { ...eight(), ...mesh(1, 2) }],
      [4, { ...eight(), ...mesh(2, 1) }],
      [4, { ...eight(), ...mesh(1, 2), tensor_parallel: { sequence_parallel: true } }],
      [2, { ...eight(), ...mesh(1, 1, 2) }],
      [2, { ...eight(), zero_optimization: { stage: 3, stage3_param_persistence_threshold: 100 } }],
    ]
    for (const [size, config] of layouts) {
      const ranks = await ranksOf(t, space, size, config)
      const what = JSON.stringify(config)
      t.equal(ranks.length, size, what)
      const seen = new Map<string, string>()
      for (const { rank, slots } of ranks)
        for (const [name, slot] of Object.entries(slots)) {
          const before = seen.get(name)
          if (before !== undefined && before !== JSON.stringify(slot))
            t.fail(`${what}: ${name} of rank ${rank} differs`)
          seen.set(name, JSON.stringify(slot))
          // The first step's scales are each rank's own: the same tensors but for what that changes in rounding. A rank's
          // gradients are of the mean over its own half of the tokens, whose mean is taken when they are reduced.
          const [times, most] = name.endsWith('gradient') ? [2, 0.25] : [1, 0.05]
          const gap = (slot.history[5] as number) / (times * (one?.slots[name]?.history[5] as number)) - 1
          if (!(Math.abs(gap) < most)) t.fail(`${what}: ${name}: the first step's largest value is off by ${gap}`)
        }
      t.strictSame([...seen.keys()].sort(), [...names].sort(), `${what}: every slot is somewhere`)
    }
  },
)

t.test('ZeRO stages and recomputation change no bit', async (t) => {
  const space = new Workspace(t)
  const losses = async (more: Record<string, unknown>): Promise<number[]> =>
    (await ranksOf(t, space, 2, { ...eight(), train_batch_size: 2, ...more }))[0]?.losses as number[]
  const zero = (stage: number) => ({ zero_optimization: { stage, stage3_param_persistence_threshold: 100 } })
  const expected = await losses(zero(1))
  t.equal(expected.length, 6)
  t.strictSame(await losses(zero(3)), expected, 'weights brought into 8 bits at each use')
  t.strictSame(await losses({ activation_checkpointing: { number_checkpoints: 2 } }), expected, 'computed again')
})

t.test('a resumed run repeats the uninterrupted one; another layout finds its scales', async (t) => {
  const space = new Workspace(t)
  const config = { ...eight(), ...mesh(1, 2) }
  const save = space.path('saved')
  const whole = await ranksOf(t, space, 4, config, { steps: 7 })
  const first = await ranksOf(t, space, 4, config, { steps: 4, save })
  const rest = await ranksOf(t, space, 4, config, { steps: 3, load: save })
  t.strictSame([...(first[0]?.losses ?? []), ...(rest[0]?.losses ?? [])], whole[0]?.losses, 'bit for bit')
  t.strictSame(rest[3]?.slots, whole[3]?.slots, 'the histories too')
  for (const [size, other] of [
    [1, eight()],
    [2, { ...eight(), ...mesh(2, 1) }],
  ] as const) {
    const moved = await ranksOf(t, space, size, other, { steps: 0, load: save })
    for (const { slots } of moved)
      for (const [name, slot] of Object.entries(slots))
        t.strictSame(slot, first[0]?.slots[name], `${name} on ${size} ranks`)
  }
  const shorter = await ranksOf(t, space, 1, eight({ amax_history_len: 2 }), { steps: 0, load: save })
  for (const [name, { history }] of Object.entries(shorter[0]?.slots ?? {}))
    t.strictSame(history, first[0]?.slots[name]?.history.slice(0, 2), `${name}: the newest two`)
  const plain = space.path('plain')
  await ranksOf(t, space, 2, bf16, { steps: 2, save: plain })
  for (const { slots } of await ranksOf(t, space, 2, eight(), { steps: 1, load: plain }))
    for (const [name, { history }] of Object.entries(slots))
      t.ok((history[0] as number) > 0 && history[1] === 0, `${name}: a bf16 checkpoint begins a history`)
})

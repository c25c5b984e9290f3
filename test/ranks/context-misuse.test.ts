// What a user gets wrong with context parallelism, and ranks that die in the middle of it.

import t from 'tap'
import { Workspace } from '../helpers/program.js'

const llama = {
  model_type: 'llama',
  num_hidden_layers: 1,
  num_attention_heads: 6,
  num_key_value_heads: 3,
  hidden_size: 24,
  intermediate_size: 32,
  max_position_embeddings: 48,
  vocab_size: 256,
}
const gpt2 = { model_type: 'gpt2', n_layer: 2, n_head: 3, n_embd: 24, n_positions: 48, vocab_size: 256 }

t.test('heads or tokens that do not divide are told with the cure, exit status 2', async (t) => {
  const space = new Workspace(t)
  const cases: [string, Record<string, unknown>, number, RegExp][] = [
    [
      'three heads on two ranks',
      { model: { config: gpt2 }, mesh: { context: 2 }, context_parallel: { type: 'ulysses' } },
      2,
      /3 heads .* context 2; use context_parallel\.type "ring"/,
    ],
    [
      'three heads of keys on two ranks',
      { model: { config: llama }, mesh: { context: 2 }, context_parallel: { type: 'ulysses' } },
      2,
      /6 heads and 3 of keys and values .* context 2; use context_parallel\.type "ring"/,
    ],
    [
      'a ring of two with 18 tokens',
      { model: { config: gpt2 }, data: { sequence_length: 18 }, mesh: { context: 2 } },
      2,
      /18 tokens does not divide into 4 pieces .*use 16 or 20 \(data\.sequence_length\)/,
    ],
    [
      'the same with a pipeline',
      { model: { config: gpt2 }, data: { sequence_length: 18 }, mesh: { context: 2, pipeline: 2 } },
      4,
      /18 tokens does not divide into 4 pieces/,
    ],
    [
      'two ranks and 17 tokens',
      { data: { sequence_length: 17 }, mesh: { context: 2 }, model: { config: { ...gpt2, n_head: 4 } } },
      2,
      /17 tokens does not divide into 2 pieces .*use 16 or 18/,
    ],
    ['no such kind', { mesh: { context: 2 }, context_parallel: { type: 'rings' } }, 2, /context_parallel\.type.*ring/],
    ['more than there are', { mesh: { context: 3 } }, 2, /mesh context 3 needs a multiple of 3 ranks/],
    ['two names that disagree', { mesh: { context: 2 }, sequence_parallel_size: 4 }, 4, /disagree/],
  ]
  for (const [name, more, ranks, message] of cases) {
    const base = space.config(more)
    const data = { train: [space.path('text.txt')], ...(more.data as object) }
    const { status, stderr } = await space.train({ ...base, data }, { ranks })
    t.equal(status, 2, `${name}: ${stderr}`)
    t.match(stderr, message, name)
    t.notMatch(stderr, /^\s+at |unexpected/m, `${name}: nothing else`)
  }
})

t.test('a rank that dies in an attention is named by every other', async (t) => {
  const space = new Workspace(t)
  for (const [kind, call] of [
    ['ring', /\[(send|recv)\]/],
    ['ulysses', /\[allToAll\]/],
  ] as const) {
    const started = performance.now()
    const { status, stderr } = await space.launch('context-lost.mjs', [kind, '2'], 4)
    t.equal(status, 1)
    const told = stderr.split('\n').filter((line) => line.includes('RANK_LOST'))
    t.equal(told.length, 3, stderr)
    for (const line of told) {
      t.match(line, /rank 2/)
      t.match(line, call)
    }
    t.ok(performance.now() - started < 60_000, 'not after a time-out of 600 s')
  }
})

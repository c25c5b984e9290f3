// Tensor and sequence parallelism with real ranks: collectives, layers and models against the plain ones, and misuse.

import t from 'tap'
import { Workspace } from '../helpers/program.js'

const gpt2 = { model_type: 'gpt2', n_layer: 1, n_head: 4, n_embd: 32, n_positions: 16, vocab_size: 256 }
const llama = {
  model_type: 'llama',
  num_hidden_layers: 1,
  num_attention_heads: 6,
  num_key_value_heads: 3,
  hidden_size: 48,
  intermediate_size: 64,
  max_position_embeddings: 16,
  vocab_size: 256,
}

t.test('sizes that do not divide are refused, with the sizes that do', async (t) => {
  const space = new Workspace(t)
  const cases: [number, object, RegExp][] = [
    [
      4,
      { model: { config: { ...gpt2, n_head: 2 } } },
      /number of heads is 2, not divisible by 4 tensor ranks; use mesh\.tensor 1, 2/,
    ],
    [4, { model: { config: { ...gpt2, n_inner: 50 } } }, /c_fc.*number of outputs is 50, not divisible by 4.*52/],
    [2, { model: { config: llama } }, /k_proj.*number of heads is 3, not divisible by 2 tensor ranks/],
    [
      2,
      { tensor_parallel: { sequence_parallel: true }, data: { train: [space.text()], sequence_length: 15 } },
      /a sequence of 15 is not divisible by 2 tensor ranks; make data\.sequence_length a multiple of 2/,
    ],
    [2, { tensor_parallel: { autotp_size: 4 } }, /mesh\.tensor 2 and tensor_parallel\.autotp_size 4 disagree/],
    [2, { tensor_parallel: { overlap_chunks: 0 } }, /overlap_chunks is 0/],
    [2, { optimizer: { type: 'Lamb' } }, /Lamb looks at whole parameters.*is cut over mesh\.tensor 2.*use AdamW/],
  ]
  for (const [tensor, more, pattern] of cases) {
    const config = space.config({ model: { config: gpt2 }, mesh: { tensor }, ...more })
    const { status, stderr } = await space.train(config, { ranks: tensor })
    t.not(status, 0)
    t.match(stderr, pattern)
    t.notMatch(stderr, /^ +at /m, 'no stack')
  }
})

t.test('ranks of a tensor group that call different things are named', async (t) => {
  const space = new Workspace(t)
  const { status, stderr } = await space.launch('tensor-mismatch.mjs', [], 4, { ZEROSHARD_TIMEOUT: '20' })
  t.not(status, 0)
  t.match(stderr, /COLLECTIVE_MISMATCH/)
  t.match(stderr, /rank 2[^\n]*×8/)
  t.match(stderr, /rank 3[^\n]*×6/)
})

for (const ranks of [2, 4]) {
  for (const [script, told] of [
    ['collectives.mjs', /"checked":\d/],
    ['tensor-layers.mjs', /"checks":\d\d/],
    ['tensor-models.mjs', /as whole models/],
  ] as const) {
    t.test(`${script} on ${ranks} ranks`, async (t) => {
      const outcome = await new Workspace(t).launch(script, [], ranks, { ZEROSHARD_TIMEOUT: '60' })
      t.equal(outcome.status, 0, outcome.stderr)
      t.match(outcome.stdout, told)
    })
  }
}

t.test('parameters and gradients by name are whole, and can be set, wherever they are cut', async (t) => {
  const space = new Workspace(t)
  const run = async (ranks: number, ...args: string[]): Promise<Record<string, number[]>> => {
    const { status, stdout, stderr } = await space.launch('tensor-access.mjs', args, ranks, { ZEROSHARD_TIMEOUT: '60' })
    t.equal(status, 0, stderr)
    const { told, tensors } = JSON.parse(stdout) as { told: Record<string, number[]>; tensors: number }
    t.equal(tensors, 0, 'nothing is left')
    return told
  }
  const one = await run(1, '1', '0', 'false')
  for (const [ranks, ...args] of [
    [2, '2', '0', 'false'],
    [4, '4', '0', 'true'],
    [4, '2', '2', 'true'],
    [4, '2', '3', 'false'],
  ] as const) {
    const told = await run(ranks, ...args)
    t.strictSame(Object.keys(told).sort(), Object.keys(one).sort())
    for (const [name, [size, weights, gradients]] of Object.entries(told)) {
      const [wholeSize, wholeWeights, wholeGradients] = one[name] as number[]
      t.strictSame([size, weights], [wholeSize, wholeWeights], `${name}: ${ranks} ranks, ${args}`)
      t.ok(Math.abs((gradients as number) - (wholeGradients as number)) < 1e-6, `its gradient: ${gradients}`)
    }
  }
})

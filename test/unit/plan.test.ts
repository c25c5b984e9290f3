// Plans for tensor parallelism: what they match, what they refuse, what is deduced for a user's model; how sizes,
// heads and sequence rows are dealt to ranks.

import t from 'tap'
import * as nn from '../../lib/nn/index.js'
import { Gpt2, Llama } from '../../lib/nn/models/index.js'
import * as ops from '../../lib/ops/index.js'
import { ProcessGroup } from '../../lib/parallel/group.js'
import type { Mesh } from '../../lib/parallel/mesh.js'
import { parallelize } from '../../lib/parallel/parallelize.js'
import { type Plan, placePlan, readyPlan } from '../../lib/parallel/plan.js'
import { ShardBlocks } from '../../lib/parallel/sequence/pieces.js'
import { deal, partRanges, unevenPart, vocabularyRange } from '../../lib/parallel/tensor/cut.js'
import { deducePlan } from '../../lib/parallel/tensor/deduce.js'
import { memory } from '../../lib/tensor/memory.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { fc } from '../helpers/properties.js'

class Mlp extends nn.Module {
  readonly norm = new nn.LayerNorm(4)
  readonly drop = new nn.Dropout(0.5)
  readonly up = new nn.Linear(4, 8)
  readonly down = new nn.Linear(8, 4)
  constructor(
    readonly between: (x: Tensor) => Tensor,
    readonly around = (model: Mlp, x: Tensor): Tensor => model.inner(x),
  ) {
    super()
  }
  inner(x: Tensor): Tensor {
    return this.down.forward(this.between(this.up.forward(x)))
  }
  forward(x: Tensor): Tensor {
    return this.around(this, x)
  }
}

t.test('a plan that fits nothing, or one place twice, is refused', async (t) => {
  const model = new Gpt2({ n_layer: 2, n_head: 2, n_embd: 8, vocab_size: 16, n_positions: 8 })
  const cases: [Plan, RegExp][] = [
    [[{ match: 'transformer.h.*.mlp.c_fx', as: 'column' }], /'transformer\.h\.\*\.mlp\.c_fx' matches no module/],
    [[{ match: 'lm_hed', as: 'vocabulary' }], /'lm_hed' matches no module.*did you mean 'lm_head'/],
    [
      [
        { match: 'transformer.h.*.mlp.*', as: 'replicate' },
        { match: 'transformer.h.1.mlp.c_fc.bias', as: 'column' },
      ],
      /'transformer\.h\.1\.mlp\.c_fc' is matched twice.*\(replicate\).*\(column\); keep one/,
    ],
  ]
  for (const [plan, message] of cases) t.throws(() => placePlan(model, plan), { code: 'CONFIG', message })
})

t.test('a tied matrix that is cut in one place and whole in the other is refused, whichever is planned', async (t) => {
  const mesh = { group: () => new ProcessGroup(0, [0, 1], 0) } as unknown as Mesh
  const [wte, head]: Plan = [
    { match: 'transformer.wte', as: 'vocabulary' },
    { match: 'lm_head', as: 'vocabulary' },
  ]
  const cut = (plan: Plan, more = {}): unknown =>
    parallelize(new Gpt2({ n_layer: 1, n_head: 2, n_embd: 8, vocab_size: 16, n_positions: 8, ...more }), mesh, plan)
  const message =
    /'(lm_head|transformer\.wte)' shares 'transformer\.wte\.weight' with '(lm_head|transformer\.wte)', which is cut/
  for (const plan of [[wte], [head], [wte, { match: 'lm_head', as: 'replicate' }]])
    t.throws(() => cut(plan as Plan), { code: 'CONFIG', message })
  t.doesNotThrow(() => cut([wte, head] as Plan))
  t.doesNotThrow(() => cut([wte] as Plan, { tie_word_embeddings: false }), 'they are two')
})

t.test('patterns: one name, any number of names, alternatives, expressions', async (t) => {
  const model = new Llama({ num_hidden_layers: 2, hidden_size: 8, num_attention_heads: 2, intermediate_size: 16 })
  const paths = (match: string | RegExp): string[] =>
    placePlan(model, [{ match, as: 'replicate' }]).map(({ path }) => path)
  t.equal(paths('model.layers.*.mlp.{up_proj,gate_proj}').length, 4)
  t.strictSame(paths('model.layers.1.self_attn.q_proj.weight'), ['model.layers.1.self_attn.q_proj'])
  t.equal(paths('model.layers.0.mlp.**').length, 3, 'all below')
  t.strictSame(paths(/^lm_/), ['lm_head'])
  t.throws(() => paths('model.layers.*_proj'), { code: 'CONFIG' }, 'a star ends at a dot')
})

t.test('the ready plans match their models', async (t) => {
  const gpt2 = new Gpt2({ n_layer: 3, n_head: 2, n_embd: 8 })
  t.equal(placePlan(gpt2, readyPlan(gpt2) as Plan).length, 2 + 3 * 5)
  const llama = new Llama({ num_hidden_layers: 3, hidden_size: 8, num_attention_heads: 2, intermediate_size: 8 })
  t.equal(placePlan(llama, readyPlan(llama) as Plan).length, 2 + 3 * 8)
  t.equal(readyPlan(new Mlp(ops.gelu)), undefined)
})

t.test('a pair is cut where the halves of its hidden units add up, and only there', async (t) => {
  const before = memory.stats().tensors
  const deduced = (between: (x: Tensor) => Tensor, ranks = 2, around?: Mlp['around']): string[] => {
    const model = new Mlp(between, around)
    const { plan } = deducePlan(model, ranks)
    t.ok(model.up.weight.shape.join() === '8,4' && !model.up.weight.materialized, 'the model is as before')
    return plan.map(({ as }) => as)
  }
  const cut = ['column', 'row']
  t.strictSame(deduced(ops.gelu), cut)
  t.strictSame(
    deduced((x) => ops.mul(x, ops.sigmoid(x))),
    cut,
  )
  t.strictSame(deduced(ops.softmax), [], 'a softmax over hidden units')
  t.strictSame(
    deduced((x) => ops.rmsNorm(x)),
    [],
    'a norm',
  )
  t.strictSame(
    deduced((x) => ops.dropout(x, 0.5)),
    [],
    'dropout by number of the hidden unit',
  )
  t.strictSame(
    deduced((x) => ops.reshape(x, [-1, 8])),
    [],
    'the number of units is written down',
  )
  t.strictSame(
    deduced(() => {
      throw new Error('needs more')
    }),
    [],
  )
  t.strictSame(deduced(ops.gelu, 3), [], '8 units on 3 ranks')
  const wrapped = (around: Mlp['around']): string[] => deduced(ops.gelu, 2, around)
  t.strictSame(
    wrapped((model, x) => ops.add(x, model.drop.forward(model.inner(model.norm.forward(x))))),
    cut,
    'a norm before, dropout and a residual after',
  )
  t.strictSame(
    wrapped((model, x) => model.norm.forward(model.inner(x))),
    cut,
    'what comes after sees the sum',
  )
  const leaks = (model: Mlp, x: Tensor): Tensor => ops.add(model.inner(x), ops.mean(model.up.forward(x)))
  t.strictSame(wrapped(leaks), [], 'hidden units are seen elsewhere')
  t.strictSame(
    wrapped((model, x) => model.inner(model.inner(x))),
    [],
    'used twice',
  )
  t.strictSame(
    wrapped((_, x) => x),
    [],
    'not used',
  )
  const tied = new nn.Sequential(new Mlp(ops.gelu), new nn.Linear(4, 8))
  Object.assign(tied.layers[1] as nn.Linear, { weight: (tied.layers[0] as Mlp).up.weight })
  t.strictSame(deducePlan(tied, 2).plan, [], 'a matrix that another module has too')
  t.equal(memory.stats().tensors, before)
})

t.test('what is deduced is told, and what is not', async (t) => {
  const sequence = new nn.Sequential(new nn.Linear(4, 8), new nn.Linear(8, 4), new nn.Linear(4, 2))
  t.strictSame(deducePlan(sequence, 4).notes, [
    'tensor parallelism over 4 ranks: cut by outputs layers.0; by inputs layers.1',
    'tensor parallelism: whole on every rank layers.2',
  ])
  t.match(deducePlan(new nn.Linear(4, 4), 2).notes, [/no pair of linears can be cut safely over 2 ranks/])
})

t.test('parts cover the whole, once, and are even to one', async () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 1, max: 64 }), (size, ranks) => {
      const parts = Array.from({ length: ranks }, (_, rank) => unevenPart(size, ranks, rank))
      const lengths = parts.map(([start, end]) => end - start)
      const joined = parts.every(([start], rank) => start === (parts[rank - 1]?.[1] ?? 0)) && parts.at(-1)?.[1] === size
      return joined && Math.max(...lengths) - Math.min(...lengths) <= 1
    }),
  )
})

t.test('heads are dealt evenly, or copied where there are fewer than ranks', async (t) => {
  t.strictSame(deal('heads', 8, 4, 2), { first: 4, count: 2, copies: 1 })
  t.strictSame(deal('heads', 2, 4, 3, true), { first: 1, count: 1, copies: 2 })
  t.throws(() => deal('heads', 2, 4, 0), {
    code: 'CONFIG',
    message: 'heads is 2, not divisible by 4 tensor ranks; use mesh.tensor 1, 2, or 4 of them',
  })
  t.throws(() => deal('heads', 3, 2, 0, true), { code: 'CONFIG' })
  t.throws(() => deal('heads', 3, 4, 0, true), { code: 'CONFIG' })
  t.strictSame(partRanges('q, k, v', 24, 3, 4, deal('heads', 4, 2, 1)), [
    [4, 8],
    [12, 16],
    [20, 24],
  ])
  t.throws(() => partRanges('width', 25, 3, 4, deal('heads', 4, 2, 1)), {
    code: 'CONFIG',
    message: /25, not 3 x 4 equal/,
  })
  t.strictSame(vocabularyRange({ name: 'wte', wholeShape: [5, 2] }, { size: 2, rank: 1 }), [2, 5])
  t.throws(() => vocabularyRange({ name: 'wte', wholeShape: [3, 2] }, { size: 4, rank: 1 }), { code: 'CONFIG' })
})

t.test('blocks of a sequence shard: every row once, in order, in as many pieces as asked for', async () => {
  const small = fc.integer({ min: 1, max: 12 })
  fc.assert(
    fc.property(small, small, fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 9 }), (b, s, ranks, chunks) => {
      const blocks = new ShardBlocks(b, s, ranks, chunks)
      const inWhole = new Set<number>()
      let row = 0
      for (const { first, count } of blocks.pieces) {
        for (let block = first; block < first + count; block++) {
          if (blocks.inShard(block) !== row) return false
          for (let rank = 0; rank < ranks; rank++) {
            const at = blocks.inWhole(block, rank)
            for (let i = 0; i < blocks.rows; i++) {
              // Row `row + i` of the shard is sample b, position p; in the whole position rank * s + p.
              const [sample, position] = [Math.floor((row + i) / s), (row + i) % s]
              if (at + i !== sample * s * ranks + rank * s + position) return false
              inWhole.add(at + i)
            }
          }
          row += blocks.rows
        }
      }
      return row === b * s && inWhole.size === b * s * ranks && blocks.pieces.length === Math.min(chunks, b * s)
    }),
  )
})

// One rank of test/ranks/tensor.test.ts: models cut over all ranks against whole ones: evaluation, generation with its
// cache, a user's own model by a deduced and by its own plan. Prints one JSON line (rank 0).

import { joinWorld, leaveWorld } from '../../../dist/engine/initialize.js'
import { backwardFrom, memory, nn, noGrad, ops, tensor, tidy } from '../../../dist/index.js'
import { createModel, generate } from '../../../dist/nn/models/index.js'
import { Mesh, parallelize } from '../../../dist/parallel/index.js'
import { close, expect, failed, filled, part } from './helpers.mjs'

const world = await joinWorld()
const mesh = Mesh.create(world.group, { tp: world.group.size })
const { rank } = world.group
const before = memory.stats().tensors

const gpt2 = {
  model_type: 'gpt2',
  n_layer: 2,
  n_head: 4,
  n_embd: 32,
  n_positions: 12,
  vocab_size: 37,
  resid_pdrop: 0,
  embd_pdrop: 0,
  attn_pdrop: 0,
}
const llama = {
  model_type: 'llama',
  num_hidden_layers: 2,
  num_attention_heads: 4,
  hidden_size: 32,
  intermediate_size: 24,
  max_position_embeddings: 12,
  vocab_size: 37,
}
for (const config of [
  gpt2,
  { ...gpt2, tie_word_embeddings: false },
  ...[1, 2, 4].map((heads) => ({ ...llama, num_key_value_heads: heads })),
]) {
  for (const sequence of [false, true]) {
    const name = `${config.model_type} ${config.num_key_value_heads ?? ''}${sequence ? ' sequence' : ''}`
    const whole = createModel(config).materialize({ seed: 3 })
    const cut = createModel(config)
    const { notes } = parallelize(cut, mesh, undefined, { sequence })
    expect(`${name}: no notes`, notes.length === 0)
    cut.materialize({ seed: 3 })
    const tokens = async (model) => {
      const found = []
      // Beyond the positions: the cache begins anew once.
      for await (const id of generate(model, [1, 5, 9], { tokens: 14, temperature: 0 })) found.push(id)
      return found.join()
    }
    const [mine, expected] = [await tokens(cut), await tokens(whole)]
    expect(`${name}: generation`, mine === expected, `${mine} against ${expected}`)
    const ids = tensor(
      Int32Array.from({ length: 16 }, (_, i) => (i * 7) % 37),
      [2, 8],
    )
    const losses = [cut, whole].map((model) => tidy(() => noGrad(() => model.eval().forward(ids, ids))))
    close(`${name}: evaluation`, await losses[0].data(), await losses[1].data())
    for (const t of [ids, ...losses]) t.dispose()
    whole.dispose()
    cut.dispose()
  }
}

// A user's model: an MLP and a gated one are cut, what normalises between stays whole, and so does the rest.
class Mlp extends nn.Module {
  up = new nn.Linear(6, 16)
  down = new nn.Linear(16, 6)
  forward(x) {
    return this.down.forward(ops.gelu(this.up.forward(x)))
  }
}
class Gated extends nn.Module {
  gate = new nn.Linear(6, 16, { bias: false })
  up = new nn.Linear(6, 16, { bias: false })
  down = new nn.Linear(16, 6, { bias: false })
  forward(x) {
    return this.down.forward(ops.swiglu(this.gate.forward(x), this.up.forward(x)))
  }
}
class Unsafe extends nn.Module {
  up = new nn.Linear(6, 16)
  down = new nn.Linear(16, 6)
  forward(x) {
    return this.down.forward(ops.softmax(this.up.forward(x)))
  }
}
class Net extends nn.Module {
  blocks = [new Mlp(), new Gated(), new Unsafe()]
  tail = new nn.Sequential(new nn.Linear(6, 8, { activation: 'gelu' }), new nn.Linear(8, 4), new nn.LayerNorm(4))
  forward(x) {
    let h = x
    for (const block of this.blocks) h = ops.add(h, block.forward(h))
    return this.tail.forward(h)
  }
}
const plans = {
  deduced: undefined,
  own: [
    { match: 'blocks.0.up', as: 'column' },
    { match: 'blocks.0.down', as: 'row' },
    { match: 'blocks.1.{gate,up}.weight', as: 'column' },
    { match: /^blocks\.1\.down$/, as: 'row' },
    { match: 'tail.**', as: 'replicate' },
  ],
}
for (const [name, plan] of Object.entries(plans)) {
  const results = []
  for (const isCut of [false, true]) {
    const model = new Net()
    if (isCut) {
      const { notes } = parallelize(model, mesh, plan)
      const told = notes.join('\n')
      if (plan) expect(`${name}: no notes`, told === '', told)
      else {
        expect('cut', /by outputs blocks\.0\.up, blocks\.1\.gate, blocks\.1\.up, tail\.layers\.0/.test(told), told)
        expect('cut', /by inputs blocks\.0\.down, blocks\.1\.down, tail\.layers\.1/.test(told), told)
        expect('whole', /whole on every rank blocks\.2\.up, blocks\.2\.down/.test(told), told)
      }
      const cut = model.parameters().filter(({ slice }) => slice).length
      expect(`${name}: so many are cut`, cut === (plan ? 6 : 9), String(cut))
    }
    model.materialize({ seed: 6 })
    const loss = tidy(() => ops.mean(ops.square(model.forward(filled([3, 6])))))
    const value = await loss.data()
    backwardFrom(loss)
    loss.dispose()
    const gradients = new Map()
    for (const [key, { tensor, slice, wholeShape }] of model.namedParameters())
      gradients.set(key, { values: await tensor.grad.data(), slice, wholeShape })
    results.push({ value, gradients })
    model.dispose()
  }
  const [whole, cut] = results
  close(`${name}: loss`, cut.value, whole.value)
  for (const [key, { values, slice, wholeShape }] of cut.gradients) {
    const expected = whole.gradients.get(key).values
    close(`${name}: d${key}`, values, slice ? part(expected, wholeShape, slice.dim, slice.ranges) : expected)
  }
}

await world.group.barrier()
const left = memory.stats().tensors
expect('nothing is left', left === before, `${left} tensors, ${before} before`)
await leaveWorld(world)
if (failed.length) throw new Error(`rank ${rank}: ${failed.join('; ')}`)
if (rank === 0) console.log('as whole models')

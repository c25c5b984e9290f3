// What a model refuses of its configuration and of its input.
import t from 'tap'
import { noGrad } from '../../lib/autograd/tape.js'
import { createModel } from '../../lib/nn/models/index.js'
import { tensor } from '../../lib/tensor/tensor.js'

const gpt2 = { model_type: 'gpt2', n_layer: 1, n_head: 2, n_embd: 8, n_positions: 6, vocab_size: 16 }

t.test('a key that all but spells one that is missing is refused; keys of others are not', async (t) => {
  t.throws(() => createModel({ ...gpt2, resid_pdop: 0 }), {
    code: 'CONFIG',
    message: 'model.config: unknown key resid_pdop; did you mean resid_pdrop?',
  })
  t.throws(() => createModel({ model_type: 'llama', num_attention_head: 4 }), {
    message: /did you mean num_attention_heads/,
  })
  t.doesNotThrow(() => createModel({ ...gpt2, n_ctx: 6, bos_token_id: 1, summary_type: 'cls_index', resid_pdrop: 0 }))
  t.doesNotThrow(() => createModel({ ...gpt2, resid_pdrop: 0, resid_pdop: 0 }), 'what it stood for is there')
})

t.test('GPT-2 takes no more tokens than it has positions', async (t) => {
  const model = createModel(gpt2).materialize()
  const run = (tokens: number) => {
    const ids = tensor(new Int32Array(tokens), [1, tokens])
    return noGrad(() => model.forward(ids, ids))
  }
  t.ok(Number.isFinite(await run(6).item()))
  t.throws(() => run(7), {
    code: 'SHAPE',
    message: 'a sequence of 7 tokens, but n_positions is 6; shorten it, or build the model with more',
  })
  const short = model.newCache(7)
  t.throws(() => noGrad(() => model.nextLogits(tensor(new Int32Array(7), [1, 7]), short)), { code: 'SHAPE' })
})

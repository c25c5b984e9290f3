// For startup.ts: a script of a user's, which prints when it was loaded, when its engine was made, when one step was done.
import { initialize, tensor } from 'zeroshard'
import { createModel } from 'zeroshard/models'

const loaded = Date.now()
const model = createModel({ model_type: 'gpt2', resid_pdrop: 0, embd_pdrop: 0 })
const engine = await initialize({
  model,
  config: {
    train_batch_size: 4,
    gradient_clipping: 1,
    optimizer: { type: 'AdamW', params: { lr: 1e-4 } },
    bf16: { enabled: process.argv[2] === 'bf16' },
  },
})
const ready = Date.now()
const ids = () =>
  tensor(
    Int32Array.from({ length: 256 }, (_, i) => (i * 7919) % 50257),
    [4, 64],
  )
await engine.trainBatch(() => [ids(), ids()])
console.log(JSON.stringify({ loaded, ready, first: Date.now() }))
await engine.close()

// One rank of test/ranks/export.test.ts: trains a small GPT-2 of tied embeddings and a frozen block, saves it, prints its
// parameters' values (rank 0).
import { initialize, memory, tensor } from '../../../dist/index.js'
import { createModel } from '../../../dist/nn/models/index.js'

const [output] = process.argv.slice(2)
const config = { model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 16, n_positions: 8, vocab_size: 256 }
const model = createModel(config)
for (const [name, parameter] of model.namedParameters()) if (name.includes('.h.0.')) parameter.trainable = false
const engine = await initialize({
  model,
  config: {
    train_micro_batch_size_per_gpu: 1,
    bf16: { enabled: true },
    optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
    zero_optimization: { stage: 3, stage3_param_persistence_threshold: 20 },
  },
})
const ids = (first) =>
  tensor(
    Int32Array.from({ length: 8 }, (_, i) => (first * 31 + i * 7) % 256),
    [1, 8],
  )
const values = async () => {
  const found = {}
  for (const name of engine.access.names()) found[name] = [...(await engine.access.getFull(name))]
  return found
}
const before = await values()
for (let i = 0; i < 3; i++) await engine.trainBatch((first) => [ids(first), ids(first + 1)])
const after = await values()
await engine.saveCheckpoint(output, { model: config, tokenizer: 'byte' })
const { rank } = engine.group
await engine.close()
if (rank === 0) console.log(JSON.stringify({ before, after, tensors: memory.stats().tensors }))

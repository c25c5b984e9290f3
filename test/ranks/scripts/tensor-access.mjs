// One rank of test/ranks/tensor.test.ts: parameters and gradients by name are whole where they are cut over tensor and
// data-parallel ranks, and can be set whole. Prints what the test compares (rank 0).
import { initialize, memory, tensor } from '../../../dist/index.js'
import { createModel } from '../../../dist/nn/models/index.js'

const [tp, stage, sequence] = process.argv.slice(2)
const config = {
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  hidden_size: 16,
  intermediate_size: 24,
}
const model = createModel({
  model_type: 'llama',
  max_position_embeddings: 8,
  vocab_size: 37,
  tie_word_embeddings: true,
  ...config,
})
const engine = await initialize({
  model,
  config: {
    train_batch_size: 4,
    mesh: { tensor: Number(tp) },
    tensor_parallel: { sequence_parallel: sequence === 'true' },
    zero_optimization: { stage: Number(stage), stage3_param_persistence_threshold: 0 },
  },
})
const { rank } = engine.group
const size = engine.parts.microBatchSize
const ids = (first) => Int32Array.from({ length: size * 8 }, (_, i) => ((first * 8 + i) * 11) % 37)
const inputs = [0, 3].map((shift) =>
  tensor(
    ids(engine.nextSample).map((id) => (id + shift) % 37),
    [size, 8],
  ),
)
engine.backward(engine.forward(...inputs))
for (const input of inputs) input.dispose()
const told = {}
for (const name of engine.access.names()) {
  const [weight, gradient] = [await engine.access.getFull(name), await engine.access.getFull(name, 'gradient')]
  const sum = (values) => values.reduce((total, value, i) => total + value * Math.sin(i + 1), 0)
  told[name] = [weight.length, sum(weight), sum(gradient)]
}
for (const name of engine.access.names()) {
  const values = (await engine.access.getFull(name)).map((value, i) => value + i)
  engine.access.setFull(name, values)
  const back = await engine.access.getFull(name)
  if (back.length !== values.length || back.some((value, i) => value !== values[i]))
    throw new Error(`${name} was not set`)
}
await engine.step()
await engine.close()
model.dispose() // its table of rotations
if (rank === 0) console.log(JSON.stringify({ told, tensors: memory.stats().tensors }))

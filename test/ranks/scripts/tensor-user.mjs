// One rank of test/ranks/tensor.test.ts: a user's own model through initialize(), by a deduced plan or its own. Prints
// losses, hints and how many elements this rank has (rank 0).
import { initialize, memory, nn, ops, tensor } from '../../../dist/index.js'

const [tp, own] = process.argv.slice(2)
class Block extends nn.Module {
  up = new nn.Linear(6, 16)
  down = new nn.Linear(16, 6)
  forward(x) {
    return ops.add(x, this.down.forward(ops.gelu(this.up.forward(x))))
  }
}
class Net extends nn.Module {
  blocks = [new Block(), new Block()]
  norm = new nn.LayerNorm(6)
  forward(x, y) {
    return ops.meanSquaredError(this.norm.forward(this.blocks.reduce((h, block) => block.forward(h), x)), y)
  }
}
const model = new Net()
const engine = await initialize({
  model,
  config: {
    train_batch_size: 8,
    mesh: { tensor: Number(tp) },
    optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
    zero_optimization: { stage: 1 },
  },
  ...(own && {
    plan: [
      { match: 'blocks.*.up', as: 'column' },
      { match: 'blocks.*.down', as: 'row' },
    ],
  }),
})
const size = engine.parts.microBatchSize
const values = (first, salt) => Float32Array.from({ length: size * 6 }, (_, i) => Math.sin(first * 6 + i + salt))
const losses = []
for (let step = 0; step < 5; step++) {
  const { loss } = await engine.trainBatch((first) => [0, 1].map((salt) => tensor(values(first, salt), [size, 6])))
  losses.push(loss)
}
const { rank } = engine.group
const { hints } = engine.parts
const elements = model.parameters().reduce((sum, { count }) => sum + count, 0)
await engine.close()
if (rank === 0) console.log(JSON.stringify({ losses, hints, elements, tensors: memory.stats().tensors }))

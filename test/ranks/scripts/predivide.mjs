// One rank of test/ranks/predivide.test.ts: the gradient of one weight, the same on all ranks, averaged in f16. Prints it
// for each of the values asked for (rank 0).
import { initialize, memory, nn, ops, tensor } from '../../../dist/index.js'

const [stage, more, ...values] = process.argv.slice(2)
class Product extends nn.Module {
  linear = new nn.Linear(1, 1, { bias: false })
  forward(x) {
    return ops.mean(this.linear.forward(x))
  }
}
const engine = await initialize({
  model: new Product(),
  config: {
    train_micro_batch_size_per_gpu: 1,
    communication_data_type: 'fp16',
    zero_optimization: { stage: Number(stage), stage3_param_persistence_threshold: 0 },
    ...JSON.parse(more),
  },
})
const told = []
for (const value of values) {
  const x = tensor([Number(value)], [1, 1])
  engine.backward(engine.forward(x))
  x.dispose()
  const [gradient] = await engine.access.getFull('linear.weight', 'gradient')
  await engine.step()
  told.push(String(gradient))
}
const { rank } = engine.group
await engine.close()
if (rank === 0) console.log(JSON.stringify({ told, tensors: memory.stats().tensors }))

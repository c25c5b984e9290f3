// One rank of test/ranks/gradient-type.test.ts: two micro-batches whose gradients are 128 and 0.5. Their sum fits f32
// and f16; bf16 has 8 bits for it. Prints what is accumulated and whether the update used it (rank 0).
import { initialize, memory, nn, ops, tensor } from '../../../dist/index.js'

const [stage, type, model] = process.argv.slice(2)
class Product extends nn.Module {
  linear = new nn.Linear(1, 1)
  forward(x) {
    return ops.mean(ops.cast(this.linear.forward(x), 'f32'))
  }
}
const engine = await initialize({
  model: new Product(),
  config: {
    train_micro_batch_size_per_gpu: 1,
    gradient_accumulation_steps: 2,
    gradient_clipping: 0,
    ...(model !== 'f32' && { [model]: { enabled: true, ...(model === 'fp16' && { loss_scale: 1 }) } }),
    data_types: { grad_accum_dtype: type },
    optimizer: { type: 'SGD', params: { lr: 1 } },
    zero_optimization: { stage: Number(stage), stage3_param_persistence_threshold: 0 },
  },
})
const before = await engine.access.getFull('linear.weight')
let sum
let result
for (const value of [256, 1]) {
  const given = tensor([value], [1, 1])
  const x = model === 'f32' ? given : ops.cast(given, { bf16: 'bf16', fp16: 'f16' }[model])
  engine.backward(engine.forward(x))
  for (const used of new Set([given, x])) used.dispose()
  sum = await engine.access.getFull('linear.weight', 'gradient')
  result = await engine.step()
}
const after = await engine.access.getFull('linear.weight')
const { rank } = engine.group
await engine.close()
const { tensors } = memory.stats()
if (rank === 0)
  console.log(JSON.stringify({ sum: sum[0], moved: before[0] - after[0], norm: result.gradNorm, tensors }))

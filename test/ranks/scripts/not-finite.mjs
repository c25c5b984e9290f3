// One rank of test/ranks/not-finite.test.ts: gradients with a NaN in the first or last element of some parameters, then
// good steps. Prints which parameter the ranks were told, and what the good steps made of the model.
import { customFunction, initialize, memory, nn, ops, tensor } from '../../../dist/index.js'

const [where, stage, place, ...bad] = process.argv.slice(2)
const config = {
  train_micro_batch_size_per_gpu: 2,
  gradient_accumulation_steps: where === 'pipeline' ? 2 : 1,
  optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
  zero_optimization: { stage: Number(stage), stage3_param_persistence_threshold: 0 },
  mesh: { [where]: where === 'data' ? undefined : 2 },
}
/** Elements of a gradient that get NaN. */
const spoil = (values) => {
  values[place === 'first' ? 0 : values.length - 1] = Number.NaN
  return values
}
let poisoned = true
/** A layer whose weight gradient can be spoilt where the layer runs. */
class Layer extends nn.Module {
  linear = new nn.Linear(8, 8)
  forward(h) {
    const { weight } = this.linear
    if (!poisoned || !bad.includes(weight.name)) return ops.tanh(this.linear.forward(h))
    const w = customFunction(
      'spoil',
      [weight.tensor],
      () => ops.scale(weight.tensor, 1),
      ([dw]) => [ops.mul(dw, tensor(spoil(new Float32Array(64).fill(1)), [8, 8]))],
    )
    return ops.tanh(ops.linear(h, w))
  }
}
class Net extends nn.Module {
  up = new nn.Linear(8, 24)
  down = new nn.Linear(24, 8)
  forward(x, y) {
    return ops.meanSquaredError(this.down.forward(ops.gelu(this.up.forward(x))), y)
  }
}
const values = (salt) => Float32Array.from({ length: 16 }, (_, i) => Math.sin(i * 0.7 + salt))
const batch = (first) => [tensor(values(first), [2, 8]), tensor(values(first + 9), [2, 8])]

const pipeline = where === 'pipeline'
const model = pipeline
  ? new nn.LayerList([new Layer(), new Layer(), new Layer(), new Layer()], ops.meanSquaredError)
  : new Net()
const engine = await initialize({ model, config })
const told = []
engine.parts.onNotFinite = (_, parameter) => told.push(parameter)
let result
if (pipeline) result = await engine.trainBatch(batch)
else {
  const inputs = batch(0)
  engine.backward(engine.forward(...inputs))
  for (const input of inputs) input.dispose()
  for (const name of bad) engine.access.setFull(name, spoil(await engine.access.getFull(name, 'gradient')), 'gradient')
  result = await engine.step()
}
told.push(result.notFinite)
poisoned = false
const losses = []
for (let i = 0; i < 3; i++) losses.push((await engine.trainBatch(batch)).loss)
const { rank } = engine.group
const { skipped } = result
await engine.close()
console.log(JSON.stringify({ rank, told, skipped, losses, tensors: memory.stats().tensors }))

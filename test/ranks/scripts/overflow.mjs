// One rank of test/ranks/engine.test.ts: fp16 with gradients that overflow on rank 1 alone, in the first steps.
import { initialize, nn, ops, tensor } from '../../../dist/index.js'

const stage = Number(process.argv[2])
class Net extends nn.Module {
  first = new nn.Linear(4, 4)
  second = new nn.Linear(4, 1)
  forward(x, y) {
    return ops.mean(ops.cast(ops.square(ops.sub(this.second.forward(this.first.forward(x)), y)), 'f32'))
  }
}
const engine = await initialize({
  model: new Net(),
  config: {
    train_micro_batch_size_per_gpu: 2,
    fp16: { enabled: true, initial_scale_power: 8, hysteresis: 1, loss_scale_window: 3 },
    optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
    scheduler: { type: 'WarmupLR', params: { warmup_num_steps: 100, warmup_type: 'linear' } },
    zero_optimization: { stage, stage3_param_persistence_threshold: 0 },
  },
})
const named = []
engine.parts.onNotFinite = (step, parameter) => named.push(`${step}: ${parameter}`)
const { rank } = engine.group
const rows = []
for (let step = 0; step < 9; step++) {
  const large = step < 2 && rank === 1 ? 3000 : 0.5
  const half = (shape, value) => ops.cast(tensor(new Float32Array(shape[0] * shape[1]).fill(value), shape), 'f16')
  const { loss, lr, lossScale, skipped } = await engine.trainBatch(() => [half([2, 4], large), half([2, 1], 1)])
  rows.push({ finite: Number.isFinite(loss), lr, lossScale, skipped })
}
const weights = await engine.access.getFull('first.weight')
const { skippedSteps } = engine
await engine.close()
console.log(JSON.stringify({ rank, rows, skippedSteps, finite: weights.every(Number.isFinite), named }))

// One rank of test/ranks/memory.test.ts: a model of odd sizes at every ZeRO stage, in f32 and bf16; prints one JSON line
// (rank 0) of the bytes that each holds after the start and after steps, the peaks of a step, and the estimate before.
import { estimateModelStates, initialize, memory, nn, ops, tensor, tidy } from '../../../dist/index.js'

const WIDTH = 13

class Net extends nn.Module {
  into = new nn.Linear(5, WIDTH)
  frozen = new nn.Linear(WIDTH, WIDTH)
  layers = Array.from({ length: 6 }, () => new nn.Linear(WIDTH, WIDTH))
  out = new nn.Linear(WIDTH, 1)
  constructor() {
    super()
    for (const parameter of this.frozen.parameters()) parameter.trainable = false
  }
  forward(x, y) {
    let h = this.frozen.forward(ops.gelu(this.into.forward(x)))
    for (const layer of this.layers) h = ops.gelu(layer.forward(h))
    return ops.meanSquaredError(ops.cast(this.out.forward(h), 'f32'), y)
  }
}

const values = (first, count) => Float32Array.from({ length: count }, (_, i) => Math.sin((first + i) * 0.37))
const states = ({ parameters, gradients, optimizer }) => ({ parameters, gradients, optimizer })

async function measure(stage, precision, { prefetch = 0, threshold = 0, accumulation = 1 } = {}) {
  const model = new Net()
  const numRanks = Number(process.env.WORLD_SIZE ?? 1)
  const estimate = states(estimateModelStates({ model, stage, numRanks, precision }))
  const engine = await initialize({
    model,
    config: {
      train_micro_batch_size_per_gpu: 2,
      gradient_accumulation_steps: accumulation,
      bf16: { enabled: precision === 'bf16' },
      optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
      zero_optimization: {
        stage,
        stage3_param_persistence_threshold: threshold,
        stage3_prefetch_bucket_size: prefetch,
      },
    },
  })
  const start = states(memory.stats().live)
  let peak = {}
  for (let step = 0; step < 4; step++) {
    const { loss, memoryPeak } = await engine.trainBatch((first) => {
      const x = tidy(() => ops.cast(tensor(values(first, 10), [2, 5]), precision === 'bf16' ? 'bf16' : 'f32'))
      return [x, tensor(values(first, 2), [2, 1])]
    })
    if (!Number.isFinite(loss)) throw new Error(`loss ${loss}`)
    peak = memoryPeak
  }
  const after = states(memory.stats().live)
  const { rank } = engine.group
  await engine.close()
  const { tensors, live } = memory.stats()
  const asked = { rank, stage, precision, prefetch, threshold, accumulation }
  return { ...asked, estimate, start, after, peak: states(peak), tensors, left: live.total }
}

const results = []
for (const precision of ['fp32', 'bf16']) {
  for (const stage of [0, 1, 2, 3]) results.push(await measure(stage, precision))
  for (const prefetch of [1, 384, 576]) results.push(await measure(3, precision, { prefetch }))
  results.push(await measure(3, precision, { prefetch: 384, accumulation: 3 }))
  results.push(await measure(3, precision, { threshold: 14 }))
}
if (results[0].rank === 0) console.log(JSON.stringify(results))

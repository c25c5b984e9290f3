// One stage of test/ranks/pipeline.test.ts: what a pipeline's engine refuses, a user's own layers, and what is left.
import { initialize, memory, nn, ops, tensor } from '../../../dist/index.js'

const model = new nn.LayerList([new nn.Linear(4, 8), new nn.Linear(8, 8), new nn.Linear(8, 1)], (y, target) =>
  ops.meanSquaredError(y, target),
)
const engine = await initialize({
  model,
  config: { train_micro_batch_size_per_gpu: 2, gradient_accumulation_steps: 3, mesh: { pipeline: 2 } },
})
const refused = []
for (const op of ['forward', 'backward', 'step']) {
  try {
    await engine[op]()
  } catch (error) {
    if (error.code === 'UNSUPPORTED' && /trainBatch/.test(error.message)) refused.push(`${op} refused`)
  }
}
for (const rows of [2, 3, 2]) {
  // another shape of inputs: forms are agreed again
  const values = (columns) => Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i))
  const { loss } = await engine.trainBatch(() => [tensor(values(4), [rows, 4]), tensor(values(1), [rows, 1])])
  if (!Number.isFinite(loss)) throw new Error(`loss ${loss}`)
}
const { rank } = engine.group
await engine.close()
if (rank === 0) console.log(`${refused.join(', ')}, tensors ${memory.stats().tensors}`)

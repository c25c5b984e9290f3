// One rank of test/ranks/initialize.test.ts: `fails N`: initialize() fails on rank N alone; `reports FOLDER`: a loop of
// the user's own with a configuration that asks for reports.
import { initialize, nn, ops, tensor } from '../../../dist/index.js'

const [what, detail] = process.argv.slice(2)

class Model extends nn.Module {
  line = new nn.Linear(4, 4)
  forward(x, y) {
    return ops.meanSquaredError(this.line.forward(x), y)
  }
}

const rank = Number(process.env.RANK)
const train = async (config, parameterGroups = []) => {
  const engine = await initialize({
    model: new Model(),
    parameterGroups,
    config: { train_micro_batch_size_per_gpu: 2, zero_optimization: { stage: 1 }, ...config },
  })
  for (let step = 0; step < 4; step++)
    await engine.trainBatch(() => [0, 1].map((i) => tensor(new Float32Array(8).fill(i), [2, 4])))
  await engine.close()
}
if (what === 'fails') await train({}, rank === Number(detail) ? [{ match: /nothing/, lr: 0 }] : [])
else {
  await train({
    steps_per_print: 2,
    wall_clock_breakdown: true,
    zero_optimization: { stage: 1, round_robin_gradients: true },
    csv_monitor: { enabled: true, output_path: detail, job_name: 'job' },
  })
}

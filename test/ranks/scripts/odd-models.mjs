// One rank of test/ranks/zero-units.test.ts: trains a model in which a parameter is used twice, one never, one is
// frozen, one is empty, and branches depend on the rank (in a list of layers, and in a declared leaf); prints what the test compares as one JSON line (rank 0).
import { initialize, memory, nn, ops, tensor } from '../../../dist/index.js'

const [stage, accumulation, branch] = process.argv.slice(2)

class Branches extends nn.Module {
  left = new nn.Linear(8, 8)
  right = new nn.Linear(8, 8)
  forward(x) {
    const goLeft = branch === 'left' || (branch === 'divergent' && Branches.rank % 2 === 0)
    return goLeft ? this.left.forward(x) : this.right.forward(x)
  }
}

class Odd extends nn.Module {
  twice = new nn.Linear(8, 8)
  never = new nn.Linear(8, 3)
  frozen = new nn.Linear(8, 8)
  nothing = new nn.Linear(0, 8)
  layers = [new Branches(), new nn.Linear(8, 8), new nn.Linear(8, 8)]
  leaf = new Branches()
  out = new nn.Linear(8, 1)
  constructor() {
    super()
    for (const parameter of this.frozen.parameters()) parameter.trainable = false
  }
  forward(x, y) {
    let h = ops.gelu(this.twice.forward(x))
    const order = Odd.step % 2 ? this.layers : [this.layers[0], this.layers[2], this.layers[1]]
    for (const layer of order) h = ops.tanh(layer.forward(h))
    h = this.leaf.forward(this.frozen.forward(this.twice.forward(h)))
    return ops.meanSquaredError(this.out.forward(h), y)
  }
}

const before = memory
const model = new Odd()
Odd.step = 0
const engine = await initialize({
  model,
  config: {
    train_micro_batch_size_per_gpu: 4,
    gradient_accumulation_steps: Number(accumulation),
    optimizer: { type: 'AdamW', params: { lr: 1e-2, weight_decay: 0.01 } },
    zero_optimization: {
      stage: Number(stage),
      stage3_param_persistence_threshold: 10,
      stage3_prefetch_bucket_size: 100,
      leaf_module: { name_suffixes: ['leaf'] },
    },
  },
})
Branches.rank = engine.group.rank
const values = (first, rows, columns, salt) =>
  Float32Array.from({ length: rows * columns }, (_, i) => Math.sin((first * columns + i) * 0.37 + salt))
const losses = []
const norms = []
for (let step = 0; step < 6; step++) {
  Odd.step = step
  const result = await engine.trainBatch((first) => [
    tensor(values(first, 4, 8, 0), [4, 8]),
    tensor(values(first, 4, 1, 1), [4, 1]),
  ])
  losses.push(result.loss)
  norms.push(result.gradNorm)
}
const whole = {}
for (const name of engine.access.names()) whole[name] = [...(await engine.access.getFull(name))]
const { rank } = engine.group
await engine.close()
const { tensors, live } = before.stats()
if (rank === 0) console.log(JSON.stringify({ losses, norms, whole, tensors, bytes: live.total }))

// One rank of test/ranks/engine-failures.test.ts: steps that fail on every rank alike, against a run without them. The
// argument: the configuration. Prints what differs (rank 0).
import { customFunction, initialize, memory, nn, ops, tensor } from '../../../dist/index.js'
import { expect, failed } from './helpers.mjs'

const more = JSON.parse(process.argv[2])
const pipeline = more.mesh?.pipeline > 1

class Net extends nn.Module {
  up = new nn.Linear(6, 10)
  down = new nn.Linear(10, 6)
  fails = false
  forward(x, y) {
    const up = this.up.forward(x)
    const broken = customFunction(
      'broken',
      [up],
      () => up.view(up.shape),
      ([dy]) => {
        if (this.fails) throw new Error('no memory for the gradient')
        return [dy.view(dy.shape)]
      },
    )
    return ops.meanSquaredError(this.down.forward(ops.gelu(broken)), y)
  }
}
const gpt2 = { model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 16, n_positions: 4, vocab_size: 16 }
const config = {
  train_micro_batch_size_per_gpu: 2,
  gradient_accumulation_steps: 2,
  optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
  ...more,
}
const values = (salt) =>
  tensor(
    Float32Array.from({ length: 12 }, (_, i) => Math.sin(i * 0.7 + salt)),
    [2, 6],
  )
const ids = (salt) =>
  tensor(
    Int32Array.from({ length: 8 }, (_, i) => (i * 5 + salt) % 16),
    [2, 4],
  )
const batch = (first) => (pipeline ? [ids(first), ids(first + 1)] : [values(first), values(first + 9)])

const ways = {
  'no step fails': async () => {},
  'a batch cannot be read': (engine) => {
    let number = 0
    return engine.trainBatch((first) => {
      if (number++ === 1) throw new Error('no memory for the gradient')
      return batch(first)
    })
  },
  'backward fails': (engine, net) => {
    let number = 0
    return engine.trainBatch((first) => {
      net.fails = number++ === 1
      return batch(first)
    })
  },
}

async function run(way) {
  const { createModel } = await import('../../../dist/nn/models/index.js')
  const net = pipeline ? createModel(gpt2) : new Net()
  const engine = await initialize({ model: net, config })
  const told = []
  for (let step = 0; step < 3; step++) {
    const { loss, gradNorm } = await engine.trainBatch(batch)
    told.push(loss, gradNorm)
    const error = await ways[way](engine, net).then(
      () => undefined,
      (thrown) => thrown,
    )
    expect(`${way}: its own error`, way === 'no step fails' || /no memory/.test(error?.message), error)
    net.fails = false
  }
  await engine.saveCheckpoint(`${process.argv[3]}/${way}`) // refused in the middle of accumulation
  const { rank } = engine.group
  await engine.close()
  return { told: JSON.stringify(told), rank }
}

const { told: expected, rank } = await run('no step fails')
for (const way of Object.keys(ways).slice(1, pipeline ? 2 : 3)) {
  const { told } = await run(way)
  expect(way, told === expected, `${told}, not ${expected}`)
}
if (rank === 0) console.log(JSON.stringify({ failed, tensors: memory.stats().tensors }))

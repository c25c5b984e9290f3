// `cuda_graphs` where there are none: the CPU says so once, and trains.

import t from 'tap'
import { binding } from '../../lib/binding/native.js'
import { resolveConfig } from '../../lib/config/index.js'
import { initialize } from '../../lib/engine/initialize.js'
import { Linear } from '../../lib/nn/layers.js'
import { Module } from '../../lib/nn/module.js'
import { meanSquaredError } from '../../lib/ops/loss.js'
import { Graph } from '../../lib/tensor/graph.js'
import { type Tensor, tensor } from '../../lib/tensor/tensor.js'

class Net extends Module {
  readonly layer = new Linear(4, 1)
  forward(x: Tensor, y: Tensor): Tensor {
    return meanSquaredError(this.layer.forward(x), y)
  }
}
const config = {
  train_micro_batch_size_per_gpu: 2,
  optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
}
const batch = (): [Tensor, Tensor] => [tensor(new Float32Array(8).fill(1), [2, 4]), tensor([1, 2], [2, 1])]

t.test('cuda_graphs is true or false', async (t) => {
  const read = (given: unknown) =>
    resolveConfig({ ...config, cuda_graphs: given }, { source: 'test', directory: '.', worldSize: 1 }).cuda_graphs
  t.equal(read(true), true)
  t.equal(read(undefined), false)
  t.throws(() => read('yes'), { code: 'CONFIG', message: /cuda_graphs/ })
})

t.test('the cpu has no graphs, says so once, and trains', async (t) => {
  t.throws(() => Graph.capture(() => {}), { code: 'UNSUPPORTED', message: /the cpu has no graphs/ })
  t.throws(() => binding().native.graphEnd(), { code: 'ARGUMENT' })
  t.throws(() => binding().native.graphLaunch(0, new Float64Array()), { code: 'ARGUMENT' })
  const engine = await initialize({ model: new Net(), config: { ...config, cuda_graphs: true } })
  const notes: string[] = []
  engine.parts.onNote = (text) => notes.push(text)
  const losses = []
  for (let i = 0; i < 3; i++) losses.push((await engine.trainBatch(batch)).loss)
  t.ok((losses[2] as number) < (losses[0] as number))
  t.equal(notes.length, 1)
  t.match(notes[0], /the device is the cpu, which has no graphs/)
  t.equal(engine.graphs?.launched, 0)
  await engine.close()
})

t.test('without the key nothing is said', async (t) => {
  const engine = await initialize({ model: new Net(), config })
  t.equal(engine.graphs, undefined)
  await engine.close()
})

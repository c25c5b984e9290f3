// One rank of test/ranks/faked-devices.test.ts, as a worker thread: trains on a faked device of its own and posts its
// losses and the parameters that it has in the end. `offloadAt`: before these steps states go to the host and back.

import { parentPort, workerData } from 'node:worker_threads'
import { initialize, tensor } from '../../../dist/index.js'
import { createModel } from '../../../dist/nn/models/index.js'

const { config, model, steps, offloadAt = [] } = workerData
const engine = await initialize({ model: createModel(model), config, device: 'cuda' })
const ids = (first) =>
  tensor(
    Int32Array.from({ length: 16 }, (_, i) => (i * 7 + first * 3) % 32),
    [2, 8],
  )
const losses = []
for (let step = 0; step < steps; step++) {
  if (offloadAt.includes(step)) {
    engine.offloadStates()
    engine.reloadStates()
  }
  const { loss } = await engine.trainBatch((micro) => [ids(micro + step), ids(micro + step + 1)])
  losses.push(loss)
}
const parameters = {}
for (const name of engine.access.names())
  parameters[name] = Buffer.from((await engine.access.getFull(name)).buffer).toString('base64')
await engine.close()
parentPort.postMessage({ losses, parameters })

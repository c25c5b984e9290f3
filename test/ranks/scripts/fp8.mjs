// One rank of test/ranks/fp8.test.ts: trains on a mesh, with micro-batches of one sample, and prints what the test
// compares: the losses, and the scale and history of every slot.
import { initialize, tensor } from '../../../dist/index.js'
import { createModel } from '../../../dist/nn/models/index.js'

const { model, config, steps, load, save } = JSON.parse(process.argv[2])
const { vocab_size: vocabulary } = model
const length = model.n_positions ?? model.max_position_embeddings
const engine = await initialize({ model: createModel(model), config })
if (load) await engine.loadCheckpoint(load)
const ids = (sample, shift) =>
  tensor(
    Int32Array.from({ length }, (_, i) => ((sample * 7 + i + shift) * (3 + (sample % 3))) % vocabulary),
    [1, length],
  )
const losses = []
for (let step = 0; step < steps; step++) {
  const { loss } = await engine.trainBatch((first) => [ids(first, 0), ids(first, 1)])
  losses.push(loss)
}
if (save) await engine.saveCheckpoint(save)
const { scales } = engine.parts.fp8 ?? {}
const [scale, history] = await Promise.all([scales?.scale.data(), scales?.history?.data()])
const rows = (scales?.slots ?? []).map(({ name, dtype }, slot) => {
  const { amax_history_len: kept } = scales.recipe
  return [
    name,
    { dtype, scale: scale[slot], history: history ? [...history.slice(slot * kept, (slot + 1) * kept)] : [] },
  ]
})
process.stdout.write(`${JSON.stringify({ rank: engine.group.rank, losses, slots: Object.fromEntries(rows) })}\n`)
await engine.close()

// One rank of test/ranks/evaluation.test.ts: an evaluation of as many batches as argv[3] says of each rank (JSON). Prints
// a line: what this rank got, or how it failed.
import { initialize, memory, nn, ops, tensor } from '../../../dist/index.js'
import { createModel } from '../../../dist/nn/models/index.js'

const [more, counts] = process.argv.slice(2).map((text) => JSON.parse(text))
const plain = !more.mesh

class Net extends nn.Module {
  line = new nn.Linear(4, 1)
  forward(x, y) {
    return ops.meanSquaredError(this.line.forward(x), y)
  }
}
const gpt2 = { model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 16, n_positions: 8, vocab_size: 16 }
const values = (rows, columns, salt) =>
  tensor(
    Float32Array.from({ length: rows * columns }, (_, i) => salt * Math.sin(i + salt)),
    [rows, columns],
  )
const ids = (salt) =>
  tensor(
    Int32Array.from({ length: 16 }, (_, i) => (i * 5 + salt) % 16),
    [2, 8],
  )
const batch = (salt) => (plain ? [values(2, 4, salt), values(2, 1, salt + 1)] : [ids(salt), ids(salt + 1)])

const engine = await initialize({
  model: plain ? new Net() : createModel(gpt2),
  config: { train_micro_batch_size_per_gpu: 2, ...more },
})
const { rank, size } = engine.group
const { fetcher } = engine.parts.zero
const { dp: replicas } = engine.parts.mesh.sizes
function* batches(of) {
  const replica = Math.floor((of * replicas) / size)
  for (let i = 0; i < counts[of]; i++) yield batch(1 + replica + 10 * i)
}
let told
try {
  const loss = await engine.evalBatch(batches(rank))
  told = { loss }
  if (plain && !fetcher) {
    // The same batches one by one, on all ranks.
    const all = []
    for (let of = 0; of < size; of++) for (const one of batches(of)) all.push(await engine.evalBatch([one]))
    told.expected = all.reduce((sum, value) => sum + value, 0) / all.length
  }
} catch ({ code, message }) {
  told = { code, message }
}
// It can go on, alike on all ranks.
told.after = await engine.evalBatch([batch(3)])
await engine.close()
console.log(JSON.stringify({ ...told, tensors: memory.stats().tensors }))

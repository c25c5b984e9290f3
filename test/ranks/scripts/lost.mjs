// One rank of test/ranks/lost.test.ts: trains a small GPT-2 on a mesh. `dies`: the victim is killed in the midst of it,
// the others print what they are told. `sleeps`: it comes late to every step, in which nothing may go wrong.
import { writeSync } from 'node:fs'
import { initialize, tensor } from '../../../dist/index.js'
import { createModel } from '../../../dist/nn/models/index.js'

const [what, victim, more] = process.argv.slice(2)
const model = { model_type: 'gpt2', n_layer: 4, n_head: 2, n_embd: 16, n_positions: 16, vocab_size: 64 }
const engine = await initialize({
  model: createModel(model),
  config: {
    train_micro_batch_size_per_gpu: 1,
    gradient_accumulation_steps: 4,
    optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
    ...JSON.parse(more),
  },
})
const { rank } = engine.group
const ids = (salt) =>
  tensor(
    Int32Array.from({ length: 16 }, (_, i) => (salt * 13 + i * 5) % 64),
    [1, 16],
  )
let step = 0
try {
  for (; step < (what === 'dies' ? 1000 : 3); step++) {
    const here = rank === Number(victim)
    if (here && what === 'sleeps') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1300)
    await engine.trainBatch((first) => {
      // When its own work is queued: the others are in the same step.
      if (here && what === 'dies' && step === 3) setTimeout(() => process.kill(process.pid, 'SIGKILL'), 0)
      return [ids(first), ids(first + 1)]
    })
  }
} catch ({ code, message }) {
  writeSync(2, `${code} in step ${step}: ${message}\n`)
  process.exit(1)
}
await engine.close()
if (rank === 0) console.log(`${step} steps`)

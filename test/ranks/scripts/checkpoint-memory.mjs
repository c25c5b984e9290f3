// Of test/ranks/checkpoint-memory.test.ts: how much memory this process takes while it saves and loads a checkpoint of
// 288 MB, most of it in a single parameter. Prints one JSON object of MiB.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { initialize, memory, nn, ops, tensor } from '../../../dist/index.js'

const [folder] = process.argv.slice(2)
const MIB = 2 ** 20
const status = (name) =>
  Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024

/** MiB of resident memory that `fn` needs at its peak, beyond what there was. */
async function growth(fn) {
  globalThis.gc?.()
  writeFileSync('/proc/self/clear_refs', '5') // the peak starts again from what there is
  const before = status('VmRSS')
  await fn()
  return status('VmHWM') - before
}

class Big extends nn.Module {
  big = new nn.Linear(3000, 8000)
  out = new nn.Linear(8000, 1)
  forward(x) {
    return ops.mean(this.out.forward(this.big.forward(x)))
  }
}
const make = (model = new Big()) =>
  initialize({
    model,
    config: { train_micro_batch_size_per_gpu: 1, optimizer: { type: 'AdamW', params: { lr: 1e-3 } } },
  })
const step = (engine) => engine.trainBatch(() => [tensor(new Float32Array(3000).fill(0.1), [1, 3000])])

// The thread, and all code, is there before anything is measured.
class Small extends nn.Module {
  out = new nn.Linear(3000, 1)
  forward(x) {
    return ops.mean(this.out.forward(x))
  }
}
const small = await make(new Small())
await step(small)
await small.saveCheckpoint(join(folder, 'small'))
await small.loadCheckpoint(join(folder, 'small'))

const engine = await make()
await step(engine)
const bytes = memory.stats().live.parameters + memory.stats().live.optimizer
const save = await growth(() => engine.saveCheckpoint(join(folder, 'big')))
const load = await growth(() => engine.loadCheckpoint(join(folder, 'big')))
const background = await growth(async () => {
  await engine.saveCheckpoint(join(folder, 'big'), { async: true })
  await engine.finishSaving()
})
await engine.close()
await small.close()
console.log(JSON.stringify({ bytes: bytes / MIB, save, load, background }))

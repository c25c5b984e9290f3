// From initialize() to close(): engines that share a process, and what is left of one that could not be made: nothing.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { initialize } from '../../lib/engine/initialize.js'
import { isAlone } from '../../lib/engine/joint.js'
import { Linear } from '../../lib/nn/layers.js'
import { Module } from '../../lib/nn/module.js'
import { meanSquaredError } from '../../lib/ops/loss.js'
import type { ParamGroup } from '../../lib/optim/groups.js'
import { type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'

class Net extends Module {
  readonly first = new Linear(64, 64)
  readonly second = new Linear(64, 64)
  forward(x: Tensor, y: Tensor): Tensor {
    return meanSquaredError(this.second.forward(this.first.forward(x)), y)
  }
}
const config = { train_micro_batch_size_per_gpu: 2, optimizer: { type: 'AdamW', params: { lr: 1e-2 } } }
const make = (more: Record<string, unknown> = {}, parameterGroups: ParamGroup[] = []) =>
  initialize({ model: new Net(), config: { ...config, ...more }, parameterGroups })
const batch = (): [Tensor, Tensor] => [
  tensor(new Float32Array(128).fill(1), [2, 64]),
  tensor(new Float32Array(128), [2, 64]),
]

const folder = mkdtempSync(join(tmpdir(), 'zeroshard-test-'))
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

t.test('a second close() does nothing, whoever else is there', async (t) => {
  const before = alive()
  const [one, two] = [await make(), await make()]
  let numLeft = 0
  const { onClose } = two.parts
  two.parts.onClose = async () => {
    numLeft++
    await onClose?.()
  }
  await Promise.all([two.close(), two.close()])
  await two.close()
  t.equal(numLeft, 1, 'the process group was left once')
  const { loss } = await one.trainBatch(batch)
  t.ok(loss > 0)
  // As long as one is open the world is the same one.
  const three = await make()
  t.equal(three.group, one.group)
  await three.close()
  await one.close()
  t.equal(alive(), before)
})

t.test('what a save in the background failed with is thrown by each close(), and all is freed', async (t) => {
  const before = alive()
  const engine = await make({ checkpoint: { async_save: true } })
  writeFileSync(join(folder, 'a-file'), '')
  await t.rejects(async () => {
    await engine.saveCheckpoint(join(folder, 'a-file'))
    await engine.close()
  })
  await engine.close().catch(() => {})
  t.equal(alive(), before)
})

t.test('another device beside an open engine is refused with both', async (t) => {
  const engine = await initialize({ model: new Net(), config, device: 'cpu' })
  await t.rejects(initialize({ model: new Net(), config, device: 'cuda' }), {
    code: 'DEVICE',
    message: /'cuda' beside an engine on 'cpu'/,
  })
  const same = await initialize({ model: new Net(), config, device: 'cpu' })
  await same.close()
  t.ok((await engine.trainBatch(batch)).loss > 0, 'the refusal took nothing from the first')
  await engine.close()
  const again = await initialize({ model: new Net(), config, device: 'cpu' })
  await again.close()
})

/** A folder of Hugging Face weights whose index names a file that is not there. */
function withoutShard(): string {
  const path = join(folder, 'missing-shard')
  mkdirSync(path, { recursive: true })
  const gpt2 = { model_type: 'gpt2', n_embd: 16, n_layer: 1, n_head: 2, n_positions: 8, vocab_size: 32 }
  writeFileSync(join(path, 'config.json'), JSON.stringify(gpt2))
  const weight_map = { 'wte.weight': 'model-00001-of-00001.safetensors' }
  writeFileSync(join(path, 'model.safetensors.index.json'), JSON.stringify({ weight_map }))
  return path
}

const offload = (device: Record<string, unknown>) => ({
  zero_optimization: { stage: 3, offload_param: device, offload_optimizer: device },
})
interface Case {
  more: Record<string, unknown>
  message: RegExp
  limit?: number
  groups?: ParamGroup[]
}
const cases: Record<string, Case> = {
  'a missing shard': {
    more: { model: { path: withoutShard(), weights: true } },
    message: /model-00001-of-00001|index/,
  },
  'a rate of a group, of which the others have 0': {
    more: { optimizer: { type: 'AdamW', params: { lr: 0 } } },
    groups: [{ match: /second/, lr: 1e-2 }],
    message: /group 0 .*lr 0.01 is no multiple of optimizer.params.lr, which is 0/,
  },
  'a schedule that is none': { more: { scheduler: { type: 'OneCycle', params: {} } }, message: /cycle_/ },
  'no memory for the second layer': { more: {}, message: /no memory/, limit: 100_000 },
  'no memory, with parameters on disk': {
    more: offload({ device: 'nvme', nvme_path: folder }),
    message: /no memory/,
    limit: 20_000,
  },
  'no memory for the scales of fp8': {
    more: { bf16: { enabled: true }, fp8: { enabled: true } },
    message: /no memory/,
    limit: 70_000,
  },
}
for (const [name, { more, message, limit, groups }] of Object.entries(cases)) {
  t.test(`${name}: initialize() throws, and nothing of it is left`, async (t) => {
    const before = alive()
    if (limit) process.env.ZEROSHARD_MEMORY_LIMIT = String(limit)
    try {
      await t.rejects(make(more, groups), { message })
    } finally {
      delete process.env.ZEROSHARD_MEMORY_LIMIT
    }
    t.equal(alive(), before)
    t.ok(isAlone())
    const [one, two] = [await make(), await make()]
    t.notOk(isAlone(), 'only engines that are there are counted')
    await one.close()
    t.ok(isAlone())
    await two.close()
  })
}

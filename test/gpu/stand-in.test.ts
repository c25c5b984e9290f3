// Trainings on the stand-in for a CUDA device (test/native/cuda/stand_in): everything that drives a GPU, from the command line to
// the kernels' sources, without one. `node scripts/native-tests.mjs` builds it.

import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { closeCurves, losses, Workspace, whole } from '../helpers/program.js'

const folder = join(dirname(fileURLToPath(import.meta.url)), '../../cmake-build/test/native/cuda')
const standIn = {
  ZEROSHARD_CUDA: join(folder, 'libzeroshard_cuda13.so'),
  ZEROSHARD_CUBLASLT: join(folder, 'libcublasLt.so'),
}
const skip = existsSync(standIn.ZEROSHARD_CUDA) ? false : `${standIn.ZEROSHARD_CUDA} is not built`
const cuda = { args: ['--device', 'cuda'], env: standIn }

t.test('a training has the curve of the CPU, on streams, on one, and by two ranks at stage 3', { skip }, async (t) => {
  const space = new Workspace(t)
  const config = space.config({ train: { steps: 3, seed: 3 }, gradient_clipping: 1 })
  const stage3 = { zero_optimization: { stage: 3, stage3_param_persistence_threshold: 100 } }
  const cpu = losses(whole(t, await space.train(config, { args: ['--device', 'cpu'] })))
  const streams = losses(whole(t, await space.train(config, cuda)))
  closeCurves(t, streams, cpu, 'streams')
  const serial = await space.train(config, { ...cuda, args: [...cuda.args, '--serial'] })
  t.strictSame(losses(whole(t, serial)), streams, 'one stream: the same bits')
  const shared = await space.train({ ...config, ...stage3 }, { ...cuda, ranks: 2 })
  closeCurves(t, losses(whole(t, shared)), cpu, 'two ranks')
  const offloaded = {
    ...stage3.zero_optimization,
    offload_optimizer: { device: 'cpu' },
    offload_param: { device: 'cpu' },
  }
  const away = await space.train({ ...config, zero_optimization: offloaded }, { ...cuda, ranks: 2 })
  t.strictSame(losses(whole(t, away)), losses(shared), 'offloaded: the same bits')
})

t.test('16 bits, recomputation and dropout', { skip }, async (t) => {
  const space = new Workspace(t)
  const model = {
    model_type: 'gpt2',
    n_layer: 2,
    n_head: 2,
    n_embd: 32,
    n_positions: 16,
    vocab_size: 256,
    resid_pdrop: 0.1,
  }
  for (const more of [{ bf16: { enabled: true } }, { fp16: { enabled: true, loss_scale: 256 } }]) {
    const config = space.config({
      model: { config: model },
      train: { steps: 3, seed: 3 },
      activation_checkpointing: { number_checkpoints: 2 },
      ...more,
    })
    const curve = losses(whole(t, await space.train(config, cuda)))
    const cpu = losses(whole(t, await space.train(config, { args: ['--device', 'cpu'] })))
    const gap = Math.max(...curve.map((loss, index) => Math.abs(loss - (cpu[index] as number))))
    t.ok(curve.length === 3 && gap < 5e-3, `${JSON.stringify(more)}: ${gap}`)
  }
})

t.test('throws where the device has too little memory, or there is none', { skip }, async (t) => {
  const space = new Workspace(t)
  const train = (env: NodeJS.ProcessEnv) => space.train(space.config(), { ...cuda, env: { ...standIn, ...env } })
  const little = await train({ ZEROSHARD_STAND_IN_MEMORY: '100000' })
  t.equal(little.status, 1)
  t.match(little.stderr, /OUT_OF_MEMORY|no memory/)
  const none = await train({ ZEROSHARD_STAND_IN_DEVICES: '0' })
  t.equal(none.status, 2)
  t.match(none.stderr, /device cuda: the driver finds no device/)
})

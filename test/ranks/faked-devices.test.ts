// Ranks with a device each, end to end on faked ones (test/native/fake) that exchange what lies on them: ranks are worker
// threads of this process. What the devices exchange is counted, and gives the bits of what goes through the host.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { Worker } from 'node:worker_threads'
import t from 'tap'

const backend = resolve('cmake-build/Release/libfake_cuda.so')
const options = existsSync(backend) ? {} : { skip: 'node scripts/native-tests.mjs builds the faked device' }
const folder = mkdtempSync(join(tmpdir(), 'zeroshard-'))
t.teardown(() => rmSync(folder, { recursive: true }))
// The process's own: workers have copies, native code has not.
process.env.ZEROSHARD_CUDA = backend
process.env.ZEROSHARD_FAKE_LOG = join(folder, 'exchanges')

interface Training {
  config: Record<string, unknown>
  model: Record<string, unknown>
  steps: number
  offloadAt?: number[]
}

interface Outcome {
  losses: number[]
  parameters: Record<string, string>
}

const freePort = (): Promise<number> =>
  new Promise((found) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => found(port))
    })
  })

/** What so many ranks have in the end, and how often the devices did what. `between`: false through the host. */
async function run(ranks: number, given: Training, { between = true, buffers = 'off' } = {}) {
  process.env.NCCL_MULTI_RANK_GPU_ENABLE = '1'
  if (!between) delete process.env.NCCL_MULTI_RANK_GPU_ENABLE
  process.env.ZEROSHARD_NCCL_BUFFERS = buffers
  writeFileSync(join(folder, 'exchanges'), '')
  const port = await freePort()
  const outcomes = await Promise.all(
    Array.from({ length: ranks }, (_, rank) => {
      const env = {
        ...process.env,
        ...{ RANK: `${rank}`, WORLD_SIZE: `${ranks}`, MASTER_PORT: `${port}`, ZEROSHARD_TIMEOUT: '60' },
      }
      const worker = new Worker(resolve('test/ranks/scripts/faked-device.mjs'), { env, workerData: given })
      return new Promise<Outcome>((done, failed) => worker.on('message', done).on('error', failed))
    }),
  )
  const counts: Record<string, number> = {}
  for (const word of readFileSync(join(folder, 'exchanges'), 'utf8').split('\n'))
    if (word) counts[word] = (counts[word] ?? 0) + 1
  return { outcomes, counts }
}

const gpt2 = { model_type: 'gpt2', n_embd: 16, n_layer: 2, n_head: 2, n_positions: 8, vocab_size: 32 }
const base = { train_micro_batch_size_per_gpu: 2, optimizer: { type: 'AdamW' } }

t.test('a ring goes round between devices', options, async (t) => {
  for (const [context, steps] of [
    [2, 2],
    [4, 1],
  ] as const) {
    const config = { ...base, mesh: { context }, context_parallel: { type: 'ring' } }
    const host = await run(context, { config, model: gpt2, steps }, { between: false })
    t.strictSame(host.counts, {}, 'through the host')
    const device = await run(context, { config, model: gpt2, steps })
    t.strictSame(device.outcomes, host.outcomes)
    // Of 2 layers: keys and values in forward, in backward, and their gradients; and the links' first ones.
    const messages = steps * 2 * context * (context - 1 + context - 1 + context) + context
    t.equal(device.counts['send'], messages)
    t.equal(device.counts['recv'], messages)
  }
})

t.test('parameters in host memory are gathered between devices', options, async (t) => {
  const stage3 = (more = {}) => ({
    config: { ...base, zero_optimization: { stage: 3, stage3_param_persistence_threshold: 0, ...more } },
    ...{ model: gpt2, steps: 2 },
  })
  const there = await run(2, stage3())
  const offloaded = await run(2, stage3({ offload_param: { device: 'cpu' } }))
  t.strictSame(offloaded.outcomes, there.outcomes)
  t.ok((there.counts['allGather'] as number) > 2 * 2 * 2 * 2, 'twice in each step, for each of two layers')
  t.strictSame(offloaded.counts, there.counts)
})

t.test('states that go to the host and back have other windows than before', options, async (t) => {
  const model = { ...gpt2, n_embd: 160, n_layer: 1 }
  const config = { ...base, zero_optimization: { stage: 1 } }
  const still = await run(2, { config, model, steps: 3 }, { buffers: 'symmetric' })
  const windows = still.counts['window'] as number
  t.ok(windows >= 4, 'parameters and gradients of a block, on two ranks')
  t.equal(still.counts['dropped'], windows)
  const moved = await run(2, { config, model, steps: 3, offloadAt: [1, 2] }, { buffers: 'symmetric' })
  t.strictSame(moved.outcomes, still.outcomes)
  t.equal(moved.counts['window'], 3 * windows)
  t.equal(moved.counts['dropped'], 3 * windows)
})

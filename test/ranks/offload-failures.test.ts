// Offload where it hurts: folders that are none, disks that are full or cut off, memory that is too small without it.

import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readlinkSync, truncateSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { losses, mayMount, processesOf, Workspace, whole } from '../helpers/program.js'

/** Large against its activations. */
const large = (layers: number) => ({
  model: { config: { model_type: 'gpt2', n_layer: layers, n_head: 2, n_embd: 128, n_positions: 8, vocab_size: 256 } },
  train_batch_size: 4,
})

t.test('a folder that cannot be used is named, with the cure', async (t) => {
  const space = new Workspace(t)
  space.write('plain', '')
  const cases: [nvmePath: string | undefined, status: number, pattern: RegExp][] = [
    [undefined, 2, /offload_optimizer\.nvme_path is missing/],
    [space.path('none'), 1, /nvme_path '.*none': there is no such folder; create it/],
    [space.path('plain'), 1, /nvme_path '.*plain': it is not a folder/],
    ['/proc', 1, /nvme_path '\/proc'/],
  ]
  for (const [nvme_path, status, pattern] of cases) {
    const offload_optimizer = { device: 'nvme', ...(nvme_path && { nvme_path }) }
    const run = await space.train(space.config({ zero_optimization: { stage: 1, offload_optimizer } }))
    t.equal(run.status, status)
    t.match(run.stderr, pattern)
  }
  const early = { stage: 2, offload_param: { device: 'nvme', nvme_path: space.folder } }
  const run = await space.train(space.config({ zero_optimization: early }))
  t.equal(run.status, 2)
  t.match(run.stderr, /offload_param.* needs stage 3, not 2/)
})

t.test(
  'a full disk is found before the first step, with both sizes',
  { skip: mayMount() ? false : 'a small disk needs root' },
  async (t) => {
    const space = new Workspace(t)
    const disk = space.path('disk')
    mkdirSync(disk)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk])
    t.teardown(() => execFileSync('umount', ['-l', disk]))
    const zero_optimization = { stage: 1, offload_optimizer: { device: 'nvme', nvme_path: disk } }
    const run = await space.train(space.config({ ...large(6), zero_optimization }), { ranks: 2 })
    t.equal(run.status, 1)
    t.match(run.stderr, /disk' has \d+ bytes left, \d+ are needed on this rank; free some/)
    t.equal(run.steps.length, 0)
    whole(t, await space.train(space.config({ zero_optimization }), { ranks: 2 }))
    t.strictSame(readdirSync(disk), [], 'nothing is left there')
  },
)

t.test('a file that is cut off ends the run with its place; the checkpoint before is whole and goes on', async (t) => {
  const space = new Workspace(t)
  const disk = space.path('disk')
  mkdirSync(disk)
  const output = space.path('out')
  const config = space.config({
    train: { steps: 1_000_000, save_interval: 2, keep_checkpoints: 2, seed: 3 },
    bf16: { enabled: true },
    zero_optimization: { stage: 2, offload_optimizer: { device: 'nvme', nvme_path: disk } },
  })
  const file = space.write('cut.json', config)
  const { done } = space.start([
    'train',
    file,
    '--nproc',
    '2',
    '--output',
    output,
    '--metrics',
    space.path('cut.jsonl'),
  ])
  while (space.steps('cut.jsonl').length < 6) await sleep(50)
  const descriptors = processesOf(file).flatMap((pid) =>
    readdirSync(`/proc/${pid}/fd`)
      .map((fd) => `/proc/${pid}/fd/${fd}`)
      .filter((link) => readlinkSync(link).startsWith(disk)),
  )
  t.equal(descriptors.length, 2, 'a swap file on each rank')
  t.strictSame(readdirSync(disk), [], 'without a name')
  truncateSync(descriptors[1] as string, 4096)
  const outcome = await done
  t.equal(outcome.status, 1)
  t.match(outcome.stderr, /rank \d.*disk\/zeroshard-.*\.swap' at offset \d+: short read, \d+ of \d+ bytes were read/)
  const verify = await space.start(['inspect', output, '--verify']).done
  t.equal(verify.status, 0, verify.stderr)
  const step = Number(/step +(\d+)/.exec(verify.stdout)?.[1])
  t.ok(step >= 2, `step ${step}`)
  const rest = await space.train(config, { ranks: 2, output, args: ['--resume', 'auto', '--steps', String(step + 2)] })
  t.equal(whole(t, rest).steps.at(-1)?.step, step + 2)
})

t.test('states beyond the memory limit train through the disk, and end with the table without', async (t) => {
  const space = new Workspace(t)
  const base = { ...large(4), train: { steps: 3, seed: 3 } }
  const swapped = { stage: 1, offload_optimizer: { device: 'nvme', nvme_path: space.folder } }
  const free = whole(t, await space.train(space.config(base)))
  const bytes = (key: string): number => free.steps[0]?.memory[key] as number
  const limit = bytes('parameters') + bytes('gradients') + Math.round(0.75 * bytes('optimizer'))
  const env = { ZEROSHARD_MEMORY_LIMIT: String(limit) }
  const without = await space.train(space.config(base), { env })
  t.equal(without.status, 1)
  t.match(
    without.stderr,
    /no memory for .*; live: parameters .* MiB, gradients .* MiB, optimizer .* MiB, .*, limit .* MiB/,
  )
  const run = whole(t, await space.train(space.config({ ...base, zero_optimization: swapped }), { env }))
  t.strictSame(losses(run), losses(free))
  for (const { memory } of run.steps) t.equal(memory.optimizer, 0)
  const wrong = await space.train(space.config(base), { env: { ZEROSHARD_MEMORY_LIMIT: 'much' } })
  t.match(wrong.stderr, /ZEROSHARD_MEMORY_LIMIT is 'much'; it must be an integer/)
})

t.test('no rank ever holds the whole model: initial values, training, saving, loading', async (t) => {
  const space = new Workspace(t)
  const disk = { device: 'nvme', nvme_path: space.folder }
  const config = (more: object) =>
    space.config({
      ...large(12),
      train: { steps: 4, save_interval: 2, seed: 3 },
      checkpoint: { async_save: true }, // not of what lies on disk
      zero_optimization: {
        stage: 3,
        stage3_param_persistence_threshold: 200,
        stage3_prefetch_bucket_size: 0,
        ...more,
      },
    })
  const free = whole(t, await space.train(config({}), { ranks: 4 }))
  const model = 4 * (free.steps[0]?.memory.parameters as number)
  t.ok(model > 9e6, `${model} bytes`)
  const env = { ZEROSHARD_MEMORY_LIMIT: String(Math.round(0.8 * model)) }
  const both = { offload_optimizer: disk, offload_param: { ...disk, max_in_cpu: 0 } }
  const output = space.path('limited')
  const run = whole(t, await space.train(config(both), { ranks: 4, env, output }))
  t.strictSame(losses(run), losses(free))
  const from = `${output}/checkpoints/step-00000002`
  const rest = await space.train(config(both), { ranks: 4, env, args: ['--resume', from] })
  t.strictSame(losses(whole(t, rest)), losses(free).slice(2), 'resumed')
  const { status, stderr } = await space.train(config({ offload_optimizer: disk, stage: 2 }), { ranks: 4, env })
  t.equal(status, 1)
  t.match(stderr, /no memory/, 'stage 2 holds it')
})

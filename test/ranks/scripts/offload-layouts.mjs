// One rank of test/ranks/offload.test.ts: the same training with its states in every place, at some stages; each place
// also goes on from the checkpoint of the place before. Prints what the test compares, one JSON line (rank 0).
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { initialize, memory, nn, ops, tensor } from '../../../dist/index.js'

const [folder, stages, precision, accumulation, type] = process.argv.slice(2)
const disk = { device: 'nvme', nvme_path: folder }
const placesOf = (stage) => ({
  none: {},
  cpu: { offload_optimizer: { device: 'cpu' } },
  nvme: { offload_optimizer: disk },
  half: { offload_optimizer: { ...disk, ratio: 0.5, buffer_count: 1 } },
  ...(stage === 3 && {
    'parameters cpu': { offload_param: { device: 'cpu' } },
    'parameters nvme': { offload_param: { ...disk, max_in_cpu: 0 } },
    'both nvme': { offload_optimizer: disk, offload_param: { ...disk, max_in_cpu: 0 } },
    mixed: { offload_optimizer: { ...disk, ratio: 0.6 }, offload_param: { ...disk, max_in_cpu: 40_000 } },
  }),
})

class Block extends nn.Module {
  up = new nn.Linear(64, 256)
  down = new nn.Linear(256, 64)
  forward(x) {
    return ops.add(x, this.down.forward(ops.gelu(this.up.forward(x))))
  }
}

class Net extends nn.Module {
  first = new nn.Linear(8, 64)
  frozen = new nn.Linear(64, 64)
  blocks = [new Block(), new Block(), new Block()]
  last = new nn.Linear(64, 1)
  constructor() {
    super()
    for (const parameter of this.frozen.parameters()) parameter.trainable = false
  }
  forward(x, y) {
    let h = this.frozen.forward(this.first.forward(x))
    for (const block of this.blocks) h = block.forward(h)
    return ops.mean(ops.cast(ops.square(ops.sub(this.last.forward(h), y)), 'f32'))
  }
}

const dtype = { fp32: 'f32', bf16: 'bf16', fp16: 'f16' }[precision]
const start = (stage, place) =>
  initialize({
    model: new Net(),
    config: {
      train_micro_batch_size_per_gpu: 4,
      gradient_accumulation_steps: Number(accumulation),
      ...(precision !== 'fp32' && { [precision]: { enabled: true } }),
      // So high that the first updates are left out.
      ...(precision === 'fp16' && { fp16: { enabled: true, initial_scale_power: 17, hysteresis: 1 } }),
      optimizer: { type, params: { lr: 3e-3, weight_decay: 0.1, ...(type === 'SGD' && { momentum: 0 }) } },
      zero_optimization: {
        stage,
        stage3_param_persistence_threshold: 100,
        stage3_prefetch_bucket_size: 40_000,
        ...place,
      },
      aio: { block_size: 8192, queue_depth: 4, intra_op_parallelism: 2 },
    },
  })

const values = (first, columns, salt) => {
  const wide = tensor(
    Float32Array.from({ length: 4 * columns }, (_, i) => Math.sin((first * columns + i) * 0.37 + salt)),
    [4, columns],
  )
  if (dtype === 'f32') return wide
  const narrow = ops.cast(wide, dtype)
  wide.dispose()
  return narrow
}
const next = (first) => [values(first, 8, 0), values(first, 1, 1)]

/** By category, without those of other engines. */
const bytes = () =>
  Object.fromEntries(Object.entries(memory.stats().live).map(([key, value]) => [key, value - before.live[key]]))

async function train(engine, steps) {
  const rows = []
  for (let i = 0; i < steps; i++) {
    const { loss, gradNorm, skipped } = await engine.trainBatch(next)
    rows.push([loss, gradNorm, skipped])
  }
  return rows
}

// Open through all of it: the ranks meet once.
const first = await initialize({ model: new nn.Linear(1, 1), config: { train_micro_batch_size_per_gpu: 1 } })
const { rank } = first.group
const before = memory.stats()
const result = {}
let previous
for (const stage of stages.split(',').map(Number)) {
  previous = undefined // stages differ in the order of sums
  for (const [name, place] of Object.entries(placesOf(stage))) await tryPlace(`${stage} ${name}`, stage, place)
}
await first.close()
if (rank === 0) console.log(JSON.stringify(result))

async function tryPlace(name, stage, place) {
  const engine = await start(stage, place)
  const rows = await train(engine, 3)
  const live = bytes()
  const states = Object.keys(engine.parts.zero.units.at(-1).states)
  const probe = {}
  for (const kind of ['parameter', ...states]) {
    const whole = await engine.access.getFull('blocks.1.up.weight', kind)
    const part = await engine.access.getLocal('blocks.1.up.weight', kind)
    probe[kind] = [whole.reduce((sum, x, i) => sum + x * Math.cos(i), 0), part?.start, part?.values.at(-1)]
  }
  // Changed by name, by a whole gathered parameter, by a move to the host and back: then the checkpoint undoes it.
  const path = await engine.saveCheckpoint(join(folder, `saved-${name.replaceAll(' ', '-')}`))
  engine.access.setFull('blocks.0.down.bias', new Float32Array(64).fill(0.5))
  for (const kind of states) engine.access.setFull('blocks.0.down.weight', new Float32Array(64 * 256).fill(0.25), kind)
  await engine.gathered(
    [engine.model.first.weight],
    () => {
      engine.model.first.weight.tensor.write(new (dtype === 'f32' ? Float32Array : Uint16Array)(8 * 64))
    },
    { modifierRank: 0 },
  )
  engine.offloadStates()
  engine.reloadStates()
  const changed = [
    (await engine.access.getFull('blocks.0.down.bias'))[63],
    (await engine.access.getFull('first.weight')).reduce((sum, x) => sum + Math.abs(x), 0),
    ...(await Promise.all(states.map((kind) => engine.access.getFull('blocks.0.down.weight', kind)))).map((x) => x[9]),
  ]
  const again = bytes()
  await train(engine, 1)
  await engine.loadCheckpoint(previous ?? path)
  previous = path
  const rest = await train(engine, 3)
  const visible = readdirSync(folder).filter((entry) => entry.endsWith('.swap')).length
  await engine.close()
  const tensors = memory.stats().tensors - before.tensors
  result[name] = { rows, rest, live, again, probe, changed, visible, tensors }
}

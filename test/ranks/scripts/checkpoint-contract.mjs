// One rank of test/ranks/checkpoint-contract.test.ts: saves in the background, what they fail with, and what loading can
// be asked for. Prints one JSON object (rank 0); a failed expectation is listed under `failed`.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { initialize, memory, nn, ops, tensor } from '../../../dist/index.js'

const [stageText, folder] = process.argv.slice(2)
const failed = []
const expect = (name, condition, detail = '') => condition || failed.push(`${name} ${detail}`)
const throws = async (name, code, pattern, fn) => {
  try {
    await fn()
    failed.push(`${name}: nothing was thrown`)
  } catch (error) {
    expect(name, error.code === code && pattern.test(error.message), `threw ${error.code}: ${error.message}`)
  }
}

class Mlp extends nn.Module {
  constructor(hidden = 10, more = false) {
    super()
    this.up = new nn.Linear(6, hidden)
    this.down = new nn.Linear(hidden, 1)
    if (more) this.gate = new nn.Linear(1, 1)
  }
  forward(x, y) {
    const out = this.down.forward(ops.gelu(this.up.forward(x)))
    return ops.meanSquaredError(this.gate ? this.gate.forward(out) : out, y)
  }
}
const make = (more = {}, model = new Mlp()) =>
  initialize({
    model,
    config: {
      train_micro_batch_size_per_gpu: 2,
      optimizer: { type: 'AdamW', params: { lr: 1e-2, weight_decay: 0.1 } },
      zero_optimization: { stage: Number(stageText), stage3_param_persistence_threshold: 0 },
      ...more,
    },
  })
const values = (rows, columns, salt) =>
  Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 0.7 + salt))
const batch = (first) => [tensor(values(2, 6, first), [2, 6]), tensor(values(2, 1, first + 9), [2, 1])]
const steps = async (engine, count) => {
  const losses = []
  for (let i = 0; i < count; i++) losses.push((await engine.trainBatch(batch)).loss)
  return losses
}
const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i])
const weightsOf = async (engine, kind) => [...(await engine.access.getFull('up.weight', kind))]

const engine = await make()
const { rank, size } = engine.group
const { meeting } = engine.parts
const output = join(folder, 'out')
const checkpoints = (where = output) => readdirSync(join(where, 'checkpoints')).sort()
const latest = (where = output) => readFileSync(join(where, 'checkpoints', 'latest'), 'utf8').trim()

// In the background: what is written is the state at the call, though the training has gone on.
await steps(engine, 3)
const { tensors } = memory.stats()
const three = await engine.saveCheckpoint(output, { async: true, client: { note: 'three' } })
const held = memory.stats().live.host
const all = (await meeting.exchange('host memory', String(held))).reduce((sum, bytes) => sum + Number(bytes), 0)
expect('the copy is counted', all === 3 * 4 * (60 + 10 + 10 + 1), `${all} bytes`)
const curve = await steps(engine, 2)
await engine.finishSaving()
expect('the copy is freed', memory.stats().live.host === 0 && memory.stats().tensors === tensors)
expect('it is there', latest() === 'step-00000003' && three.endsWith(latest()), three)
const other = await make({ train: { seed: 99 } })
const { client, path } = await other.loadCheckpoint(three)
expect('client state', client.note === 'three' && path === three)
expect('same state', other.globalSteps === 3 && same(await steps(other, 2), curve))

// One that fails surfaces at a later step, at the same one on all ranks, and the training can go on.
const file = join(folder, 'file')
if (rank === 0) writeFileSync(file, '')
await meeting.exchange('file', '')
await engine.saveCheckpoint(join(file, 'below'), { async: true })
await throws('background', 'IO', /file/, async () => {
  for (let i = 0; i < 5000; i++) await steps(engine, 1)
})
const surfaced = await meeting.exchange('surfaced', String(engine.globalSteps))
expect('at the same step', new Set(surfaced).size === 1, surfaced.join())
expect('nothing is held', memory.stats().live.host === 0)
await engine.saveCheckpoint(join(file, 'below'), { async: true })
await throws('at the next save', 'IO', /file/, () => engine.saveCheckpoint(output))
await throws('in the foreground', 'IO', /file/, () => engine.saveCheckpoint(join(file, 'below')))
expect('the one before is untouched', same(checkpoints(), ['latest', 'step-00000003']), checkpoints().join())

// One waits for the other; the same step again replaces it.
await engine.saveCheckpoint(output, { async: true, client: { note: 'first' } })
const again = await engine.saveCheckpoint(output, { client: { note: 'second' } })
expect('replaced', (await other.loadCheckpoint(output)).client.note === 'second')
expect('two are left', same(checkpoints(), ['latest', 'step-00000003', latest()]) && again.endsWith(latest()))

// Retention keeps the newest, also in the background.
for (let i = 0; i < 4; i++) {
  await steps(engine, 1)
  await engine.saveCheckpoint(output, { async: true, retain: 2 })
}
await engine.finishSaving()
const kept = [engine.globalSteps - 1, engine.globalSteps].map((step) => `step-${String(step).padStart(8, '0')}`)
expect('retention', same(checkpoints(), ['latest', ...kept]) && latest() === kept[1], checkpoints().join())

// Parts of a checkpoint.
const weights = await weightsOf(engine)
const moments = await weightsOf(engine, 'exp_avg')
const weightsOnly = await make({ train: { seed: 7 } })
await weightsOnly.loadCheckpoint(output, { optimizer: false })
expect('weights only', same(await weightsOf(weightsOnly), weights) && weightsOnly.globalSteps === 0)
expect(
  'no moments',
  (await weightsOf(weightsOnly, 'exp_avg')).every((value) => value === 0),
)
await weightsOnly.close()
const statesOnly = await make({ train: { seed: 7 } })
const initial = await weightsOf(statesOnly)
await statesOnly.loadCheckpoint(output, { weights: false })
expect('states only', same(await weightsOf(statesOnly), initial) && statesOnly.globalSteps === engine.globalSteps)
expect('moments', same(await weightsOf(statesOnly, 'exp_avg'), moments))
await statesOnly.close()

// Another model, another optimizer.
await throws('option', 'ARGUMENT', /'optimiser'.*'optimizer'/, () => other.loadCheckpoint(output, { optimiser: false }))
const wide = await make({}, new Mlp(12))
await throws('shape', 'CHECKPOINT', /up\.weight is \[.*10.*\], the model's \[.*12.*\]/, () =>
  wide.loadCheckpoint(output),
)
await wide.close()
const gated = await make({ train: { seed: 7 } }, new Mlp(10, true))
await throws('strict', 'CHECKPOINT', /lacks gate\./, () => gated.loadCheckpoint(output))
await gated.loadCheckpoint(output, { strict: false })
expect('not strict', same(await weightsOf(gated), weights) && same(await weightsOf(gated, 'exp_avg'), moments))
const more = join(folder, 'more')
await gated.saveCheckpoint(more)
await throws('besides', 'CHECKPOINT', /besides gate\./, () => other.loadCheckpoint(more))
await gated.close()
const plain = await make({ optimizer: { type: 'SGD', params: { lr: 0.1 } } })
const stateless = join(folder, 'stateless')
await plain.saveCheckpoint(stateless)
await throws('states', 'CHECKPOINT', /exp_avg.*optimizer: false/, () => other.loadCheckpoint(stateless))
await other.loadCheckpoint(stateless, { optimizer: false })
expect('weights of another optimizer', same(await weightsOf(other), await weightsOf(plain)))
await plain.close()

// In bf16, with parameters that are frozen and have no f32 copy; an odd number of them, so that what follows lies askew.
class Frozen extends nn.Module {
  still = new nn.Linear(6, 7)
  out = new nn.Linear(7, 1)
  constructor() {
    super()
    for (const parameter of this.still.parameters()) parameter.trainable = false
  }
  forward(x, y) {
    const out = this.out.forward(ops.gelu(this.still.forward(ops.cast(x, 'bf16'))))
    return ops.meanSquaredError(ops.cast(out, 'f32'), y)
  }
}
const half = await make({ bf16: { enabled: true } }, new Frozen())
await steps(half, 2)
const halves = join(folder, 'halves')
await half.saveCheckpoint(halves, { async: true })
const halfCurve = await steps(half, 2)
const halfAgain = await make({ bf16: { enabled: true }, train: { seed: 5 } }, new Frozen())
await half.finishSaving()
await halfAgain.loadCheckpoint(halves)
expect('frozen, in bf16', same(await steps(halfAgain, 2), halfCurve))
await half.close()
await halfAgain.close()

// Where there is nothing to load.
await throws('nowhere', 'CHECKPOINT', /does not exist/, () => other.loadCheckpoint(join(folder, 'nowhere')))
await throws('no checkpoint', 'CHECKPOINT', /holds no checkpoint.*step-/, () =>
  other.loadCheckpoint(join(output, 'checkpoints', 'step-7')),
)
await meeting.exchange('before removal', '')
if (rank === 0) rmSync(join(output, 'checkpoints', kept[1]), { recursive: true })
await meeting.exchange('after removal', '')
await throws('latest', 'CHECKPOINT', new RegExp(`latest: names ${kept[1]}.*there are ${kept[0]}`), () =>
  other.loadCheckpoint(output),
)
expect('resume takes the one before', (await other.resume(output, () => {}))?.endsWith(kept[0]))

// close() waits.
await other.saveCheckpoint(join(folder, 'last'), { async: true })
await other.close()
expect('durable after close', existsSync(join(folder, 'last', 'checkpoints', 'latest')))
await engine.saveCheckpoint(join(file, 'below'), { async: true })
await throws('close tells', 'IO', /file/, () => engine.close())
if (rank === 0) console.log(JSON.stringify({ failed, tensors: memory.stats().tensors, size }))

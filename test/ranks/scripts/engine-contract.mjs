// One rank of test/ranks/engine.test.ts: the engine's contract beyond trainBatch, at one ZeRO stage. Prints one JSON
// object of named facts (rank 0); a failed expectation is listed under `failed`.
import { backwardFrom, initialize, memory, nn, ops, tensor } from '../../../dist/index.js'

const stage = Number(process.argv[2])
const failed = []
const expect = (name, condition, detail = '') => condition || failed.push(`${name} ${detail}`)
const throws = async (name, code, fn) => {
  try {
    await fn()
    failed.push(`${name}: nothing was thrown`)
  } catch (error) {
    expect(name, error.code === code, `threw ${error.code}: ${error.message}`)
  }
}

class Mlp extends nn.Module {
  up = new nn.Linear(6, 10)
  down = new nn.Linear(10, 1)
  forward(x, y) {
    return ops.meanSquaredError(this.down.forward(ops.gelu(this.up.forward(x))), y)
  }
}
const config = (more = {}) => ({
  train_micro_batch_size_per_gpu: 2,
  gradient_accumulation_steps: 2,
  optimizer: { type: 'AdamW', params: { lr: 1e-2, weight_decay: 0.1 } },
  gradient_clipping: 0.05,
  zero_optimization: { stage, stage3_param_persistence_threshold: 0 },
  ...more,
})
const values = (rows, columns, salt) =>
  Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 0.7 + salt))
const batch = (first) => [tensor(values(2, 6, first), [2, 6]), tensor(values(2, 1, first + 9), [2, 1])]
const dispose = (tensors) => {
  for (const t of tensors) t.dispose()
}

// Two engines in one process; groups with their own rate and decay.
const engine = await initialize({ model: new Mlp(), config: config() })
const other = await initialize({
  model: new Mlp(),
  config: config(),
  parameterGroups: [
    { match: /bias$/, weightDecay: 0 },
    { match: /^down/, lr: 0 },
  ],
})
const { rank, size } = engine.group

const micro = (e, backward) => {
  const inputs = batch(e.nextSample)
  const loss = e.forward(...inputs)
  backward(loss)
  dispose(inputs)
}
// By hand: forward, backward, step of each micro-batch.
expect('first micro-batch is no boundary', !engine.isGradientAccumulationBoundary)
await throws('step without backward', 'AUTOGRAD', () => engine.step())
micro(engine, (loss) => engine.backward(loss))
await throws('save in the middle', 'CHECKPOINT', () => engine.saveCheckpoint('/nowhere'))
await throws('batch size in the middle', 'ARGUMENT', async () => engine.setTrainBatchSize(8))
expect('no update yet', (await engine.step()) === undefined)
expect('second is the boundary', engine.isGradientAccumulationBoundary)
micro(engine, (loss) => engine.backward(loss))
const gradient = await engine.access.getFull('up.weight', 'gradient')
const result = await engine.step()
expect('an update', result?.step === 1 && engine.wasStepApplied && !result.skipped)
expect('norms', result.gradNorm > 0.05 && engine.clippedGradientNorm === 0.05, `${result.gradNorm}`)

// The other engine sees nothing of that, and does the same through the user's own backward.
const before = await other.access.getFull('up.weight')
for (let i = 0; i < 2; i++) {
  const inputs = batch(other.nextSample)
  const loss = other.forward(...inputs)
  const scaled = other.scale(loss)
  backwardFrom(scaled)
  for (const t of [loss, scaled, ...inputs]) t.dispose()
  if (i === 1) {
    const mine = await other.access.getFull('up.weight', 'gradient')
    if (stage >= 2)
      expect(
        'own backward',
        mine.every((v, j) => Math.abs(v - gradient[j]) < 1e-6),
      )
  }
  await other.step()
}
expect(
  'it moved',
  (await other.access.getFull('up.weight')).some((v, j) => v !== before[j]),
)
const frozen = await other.access.getFull('down.weight')
await other.trainBatch(batch)
expect(
  'rate 0 does not move',
  (await other.access.getFull('down.weight')).every((v, j) => v === frozen[j]),
)

// noSync: two backwards without reduction, stages 0 and 1 only.
if (stage >= 2) await throws('noSync', 'UNSUPPORTED', async () => engine.noSync(() => {}))
else {
  const { nextSample, samples } = engine
  const expected = await engine.evalBatch([0, 1, 2].map((i) => batch(nextSample + 2 * size * i)))
  engine.noSync(() => {
    for (let i = 0; i < 2; i++) micro(engine, (loss) => engine.backward(loss, { scaleForAccumulation: false }))
  })
  expect('each is a micro-batch', engine.nextSample === nextSample + 4 * size, engine.nextSample)
  await throws('in the middle', 'ARGUMENT', async () => engine.setTrainBatchSize(4 * size))
  engine.setGradientAccumulationBoundary(true)
  micro(engine, (loss) => engine.backward(loss, { scaleForAccumulation: false }))
  const { step, loss } = await engine.step()
  expect('noSync step', step === 2)
  expect('the mean of three micro-batches', Math.abs(loss - expected) < 1e-6, `${loss}, not ${expected}`)
  expect('as many samples as there were', engine.samples === samples + 6 * size, engine.samples)
  engine.setGradientAccumulationBoundary(undefined)
}

// Batch size: only multiples.
await throws('batch size', 'ARGUMENT', async () => engine.setTrainBatchSize(3))
engine.setTrainBatchSize(2 * size * 3)
expect('three micro-batches', engine.accumulationSteps === 3 && engine.batchSize === 6 * size)

// States by name.
await throws('unknown name', 'ARGUMENT', () => engine.access.getFull('up.wieght'))
await throws('unknown kind', 'ARGUMENT', () => engine.access.getFull('up.weight', 'exp_avg_cubed'))
await throws('wrong size', 'SHAPE', async () => engine.access.setFull('up.bias', new Float32Array(3)))
const moment = await engine.access.getFull('up.weight', 'exp_avg')
expect(
  'moments',
  moment.some((v) => v !== 0),
)
engine.access.setFull(
  'up.bias',
  Float32Array.from({ length: 10 }, (_, i) => i / 10),
)
const set = await engine.access.getFull('up.bias')
expect(
  'set',
  set.every((v, i) => Math.abs(v - i / 10) < 1e-7),
)
const part = await engine.access.getLocal('up.weight')
const whole = await engine.access.getFull('up.weight')
if (part)
  expect(
    'local part',
    part.values.every((v, i) => v === whole[part.start + i]),
  )

// Whole parameters on demand.
const { weight } = engine.model.up
await engine.gathered([weight], async () => {
  const seen = await weight.tensor.data()
  expect(
    'gathered',
    seen.every((v, i) => v === whole[i]),
  )
})
await throws('a change without a writer', 'ARGUMENT', () =>
  engine.gathered([weight], () => weight.tensor.write(new Float32Array(60).fill(rank))),
)
await engine.gathered([weight], () => weight.tensor.write(new Float32Array(60).fill(rank + 7)), {
  modifierRank: 1 % size,
})
const written = await engine.access.getFull('up.weight')
expect(
  'the writer counts',
  written.every((v) => v === 7 + (1 % size)),
)

// States to host memory and back.
const live = memory.stats().live
engine.offloadStates(['optimizer'])
const away = memory.stats().live
expect('offloaded', away.host > 0 && away.optimizer < live.optimizer && away.total === live.total)
engine.reloadStates(['optimizer'])
expect('reloaded', memory.stats().live.optimizer === live.optimizer)
await throws('unknown states', 'ARGUMENT', async () => engine.offloadStates(['optimiser']))
await engine.trainBatch(batch)

await other.close()
const last = await engine.trainBatch(batch)
expect('still alive', Number.isFinite(last.loss))
await engine.close()
if (rank === 0) console.log(JSON.stringify({ failed, tensors: memory.stats().tensors }))

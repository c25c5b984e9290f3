// One rank of test/ranks/behaviours.test.ts: what DeepSpeed tests of itself, at one ZeRO stage. Prints one JSON object
// (rank 0): expectations that failed, their number, live tensors left.
import { join } from 'node:path'
import { backwardFrom, checkpoint, initialize, memory, nn, ops, tensor } from '../../../dist/index.js'
import { expect as check, failed, gap } from './helpers.mjs'

const stage = Number(process.argv[2])
const folder = process.argv[3]
let checks = 0
const expect = (...args) => {
  checks++
  check(...args)
}
const rejects = async (name, code, fn) => {
  const error = await Promise.resolve()
    .then(fn)
    .then(
      () => undefined,
      (cause) => cause,
    )
  expect(name, error?.code === code, `${error?.code ?? 'nothing'}: ${error?.message}`)
}
const same = (a, b) => a.length === b.length && a.every((value, index) => value === b[index])

const config = (more = {}) => ({
  train_micro_batch_size_per_gpu: 2,
  optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
  gradient_clipping: 0,
  ...more,
  zero_optimization: {
    stage,
    stage3_param_persistence_threshold: 0,
    stage3_prefetch_bucket_size: 0,
    ...more.zero_optimization,
  },
})
const values = (count, salt) => Float32Array.from({ length: count }, (_, i) => Math.sin(i * 0.7 + salt))
const batch = (first, rows = 2) => [
  tensor(values(rows * 6, first), [rows, 6]),
  tensor(values(rows, first + 9), [rows, 1]),
]
const make = (model, more) => initialize({ model, config: config(more) })
const steps = async (engine, count, rows) => {
  const losses = []
  for (let i = 0; i < count; i++) losses.push((await engine.trainBatch((first) => batch(first, rows?.[i]))).loss)
  return losses
}
const weights = async (engine) => {
  const all = []
  for (const name of engine.access.names()) all.push(...(await engine.access.getFull(name)))
  return all
}

/** `forms`: what a block gives beside plain tensors. */
class Net extends nn.Module {
  up = new nn.Linear(6, 10)
  layers = [new nn.Linear(10, 10), new nn.Linear(10, 10), new nn.Linear(10, 10)]
  down = new nn.Linear(10, 1)
  constructor({ dtype = 'f32', freeze = false, recompute = false } = {}) {
    super()
    Object.assign(this, { dtype, recompute })
    if (freeze) for (const parameter of this.layers[1].parameters()) parameter.trainable = false
  }
  body(h) {
    for (const layer of this.layers) h = ops.gelu(layer.forward(h))
    return h
  }
  forward(x, y) {
    const h = this.up.forward(ops.cast(x, this.dtype))
    const out = this.recompute ? checkpoint((inner) => this.body(inner), h) : this.body(h)
    return ops.meanSquaredError(ops.cast(this.down.forward(out), 'f32'), y)
  }
}

// 15: a sum over the ranks is the mean times their number. Stage 3 refuses the sum.
if (stage < 3) {
  const gradients = []
  for (const gradient_allreduce_op of ['mean', 'sum']) {
    const engine = await make(new Net(), { gradient_allreduce_op })
    const inputs = batch(engine.nextSample)
    engine.backward(engine.forward(...inputs))
    for (const input of inputs) input.dispose()
    gradients.push(await engine.access.getFull('layers.0.weight', 'gradient'))
    await engine.step()
    gradients.push([engine.gradientNorm])
    await engine.close()
  }
  const size = Number(process.env.WORLD_SIZE)
  const [mean, meanNorm, sum, sumNorm] = gradients
  const scaled = mean.map((value) => value * size)
  expect('sum of gradients', gap(sum, scaled) < 1e-7 && mean.some((value) => value !== 0), `${gap(sum, scaled)}`)
  expect('norm of the sum', Math.abs(sumNorm[0] / meanNorm[0] / size - 1) < 1e-5, `${sumNorm} ${meanNorm}`)
}

// 17: two engines under one loss do what each does under its own.
{
  const apart = []
  const together = []
  for (const seed of [1, 2]) {
    const engine = await make(new Net(), { train: { seed } })
    await steps(engine, 2)
    apart.push(await weights(engine))
    await engine.close()
  }
  const engines = [await make(new Net(), { train: { seed: 1 } }), await make(new Net(), { train: { seed: 2 } })]
  for (let step = 0; step < 2; step++) {
    const inputs = batch(engines[0].nextSample)
    const losses = engines.map((engine) => engine.forward(...inputs))
    const loss = ops.add(...losses)
    const scaled = engines[0].scale(loss)
    backwardFrom(scaled)
    for (const each of [...inputs, ...losses, loss, scaled]) each.dispose()
    for (const engine of engines) await engine.step()
  }
  for (const engine of engines) together.push(await weights(engine))
  for (const engine of engines) await engine.close()
  expect('two engines, one loss', same(apart[0], together[0]) && same(apart[1], together[1]))
}

// 24: at each layer its own unit is there in full and no other; between layers none.
{
  const seen = []
  const live = () => seen.push(memory.stats().live.parameters)
  class Seen extends nn.Linear {
    forward(x) {
      live()
      return super.forward(x)
    }
  }
  class Watched extends Net {
    layers = [new Seen(10, 10), new Seen(10, 10), new Seen(10, 10)]
    body(h) {
      live()
      for (const layer of this.layers) {
        h = ops.gelu(layer.forward(h))
        live()
      }
      return h
    }
  }
  const engine = await make(new Watched())
  const shards = memory.stats().live.parameters
  for (let step = 0; step < 2; step++) {
    seen.length = 0
    await steps(engine, 1)
    const unit = stage === 3 ? 4 * 128 : 0 // 110 elements, padded to 4 shards of 16 (2 ranks) or of 32
    const expected = Array.from({ length: 7 }, (_, i) => shards + (i % 2 ? unit : 0))
    expect('gathered and released', same(seen, expected), `${seen.map((bytes) => bytes - shards)}`)
    expect('all released', memory.stats().live.parameters === shards)
  }
  await engine.close()
}

// 27: blocks that give objects, lists and nestings of them.
{
  class Forms extends Net {
    layers = [new Several(), new Several(), new Several()]
    body(h) {
      for (const layer of this.layers) {
        const { first, rest } = layer.forward(h)
        const [second, { third }] = rest
        h = ops.add(ops.add(first, second), third)
      }
      return h
    }
  }
  class Several extends nn.Module {
    inner = new nn.Linear(10, 10)
    forward(x) {
      const y = this.inner.forward(x)
      return { first: ops.tanh(y), rest: [ops.gelu(y), { third: ops.affine(x, 0.5) }] }
    }
  }
  const engine = await make(new Forms())
  const losses = await steps(engine, 1)
  const before = memory.stats().tensors
  losses.push(...(await steps(engine, 3)))
  // The tape held all of them for backward, and holds none after it.
  expect('forms are freed', memory.stats().tensors === before, `${memory.stats().tensors - before}`)
  const list = await weights(engine)
  await engine.close()
  class Plain extends Forms {
    body(h) {
      for (const layer of this.layers) {
        const y = layer.inner.forward(h)
        h = ops.add(ops.add(ops.tanh(y), ops.gelu(y)), ops.affine(h, 0.5))
      }
      return h
    }
  }
  const plain = await make(new Plain())
  expect('forms: losses', same(await steps(plain, 4), losses))
  expect('forms: weights', same(await weights(plain), list))
  await plain.close()
}

// 32: gradients that are reduced together: the same bits, fewer collectives.
{
  const counts = []
  const results = []
  for (const reduce_bucket_size of [1, 5e8]) {
    const engine = await make(new Net(), { zero_optimization: { reduce_bucket_size } })
    const { group } = engine.parts.zero.options
    let count = 0
    for (const call of ['allReduce', 'reduceScatter']) {
      const original = group[call].bind(group)
      group[call] = (...args) => {
        count++
        return original(...args)
      }
    }
    const inputs = batch(engine.nextSample)
    engine.backward(engine.forward(...inputs))
    for (const input of inputs) input.dispose()
    counts.push(count)
    await engine.step()
    results.push(await weights(engine))
    await engine.close()
  }
  // Alone: 10 parameters. Together: blocks, and what is outside of them (at stage 3 by module).
  expect('collectives', same(counts, [10, stage === 3 ? 5 : 4]), counts.join())
  expect('their bits', same(...results))
}

// 34: types of the model × types of what travels; reduce_scatter off.
for (const dtype of ['f32', 'bf16', 'f16']) {
  const model = () => new Net({ dtype })
  const precision = {
    ...(dtype === 'bf16' && { bf16: { enabled: true } }),
    ...(dtype === 'f16' && { fp16: { enabled: true, loss_scale: 128 } }),
  }
  const curves = {}
  for (const communication_data_type of ['fp32', 'bf16', 'fp16']) {
    const engine = await make(model(), { ...precision, communication_data_type })
    curves[communication_data_type] = await steps(engine, 4)
    await engine.close()
  }
  const engine = await make(model(), { ...precision, zero_optimization: { reduce_scatter: false } })
  expect(`${dtype}: reduce_scatter off`, same(await steps(engine, 4), curves.fp32))
  await engine.close()
  for (const [name, curve] of Object.entries(curves)) {
    const off = gap(curve, curves.fp32)
    expect(`${dtype}, ${name} travels`, name === 'fp32' ? off === 0 : off > 0 && off < 2e-2, `${off}`)
  }
}

// 35: Adam's step count. A constant gradient moves every weight by the rate, if the bias correction counts updates.
{
  class Flat extends nn.Module {
    out = new nn.Linear(6, 1)
    forward(x) {
      return ops.mean(this.out.forward(x))
    }
  }
  const engine = await make(new Flat(), {
    gradient_accumulation_steps: 3,
    optimizer: { type: 'Adam', params: { lr: 1e-2, weight_decay: 0 } },
  })
  const start = await weights(engine)
  for (let update = 1; update <= 3; update++) {
    await engine.trainBatch(() => [tensor(new Float32Array(12).fill(0.5), [2, 6])])
    const moved = (await weights(engine)).map((value, i) => (start[i] - value) / (update * 1e-2))
    expect('rate', gap(moved, new Array(7).fill(1)) < 1e-4, moved.join())
  }
  await engine.close()
}

// 36: recomputed modules, a frozen one among them. 40: one norm on all ranks. 58: shapes that change.
{
  const curves = []
  for (const recompute of [false, true]) {
    const engine = await make(new Net({ freeze: true, recompute }))
    const frozen = await engine.access.getFull('layers.1.weight')
    curves.push(await steps(engine, 6, [2, 5, 1, 5, 2, 3]))
    expect('frozen stays', same(frozen, await engine.access.getFull('layers.1.weight')))
    const norms = await engine.parts.meeting.exchange(`norm ${recompute}`, String(engine.gradientNorm))
    expect('one norm', new Set(norms).size === 1 && engine.gradientNorm > 0, norms.join())
    const parts = await engine.parts.meeting.exchange(`weights ${recompute}`, JSON.stringify(await weights(engine)))
    expect('one model', new Set(parts).size === 1)
    await engine.close()
  }
  expect('recomputed', same(...curves), curves.join(' against '))
}

// 41: in fp16 a backward that the loss scale did not reach makes no update.
{
  const engine = await make(new Net({ dtype: 'f16' }), { fp16: { enabled: true, loss_scale: 128 } })
  const inputs = batch(engine.nextSample)
  const loss = engine.forward(...inputs)
  const before = await weights(engine)
  backwardFrom(loss)
  for (const each of [loss, ...inputs]) each.dispose()
  await rejects('without the scale', 'AUTOGRAD', () => engine.step())
  expect('no update', same(before, await weights(engine)))
  await engine.close()
}

// 45: saved right after the start, and right after a load.
{
  const engine = await make(new Net())
  const before = await weights(engine)
  await engine.saveCheckpoint(join(folder, `first-${stage}`))
  const losses = await steps(engine, 3)
  const other = await make(new Net(), { train: { seed: 99 } })
  await other.loadCheckpoint(join(folder, `first-${stage}`))
  expect('from the start', same(await weights(other), before) && other.globalSteps === 0)
  await other.saveCheckpoint(join(folder, `second-${stage}`))
  expect('its losses', same(await steps(other, 3), losses))
  await engine.loadCheckpoint(join(folder, `second-${stage}`))
  expect('after a load', same(await weights(engine), before) && same(await steps(engine, 3), losses))
  await other.close()
  await engine.close()
}

const { tensors } = memory.stats()
if (failed.length) throw new Error(`rank ${process.env.RANK}: ${failed.join('; ')}`)
if ((process.env.RANK ?? '0') === '0') console.log(JSON.stringify({ checks, tensors }))

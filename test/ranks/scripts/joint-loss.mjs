// One rank of test/ranks/joint-loss.test.ts: two engines whose models make one loss, against one engine of both models.
// `form`: side (the outputs are added) or chain (one's output is the other's input). Prints what differs (rank 0).
import { backwardFrom, initialize, memory, nn, ops, tensor, tidy } from '../../../dist/index.js'
import { close, expect, failed } from './helpers.mjs'

const [stage, form, leads] = process.argv.slice(2)

class Mlp extends nn.Module {
  up = new nn.Linear(6, 10)
  down = new nn.Linear(10, 6)
  forward(x) {
    return this.down.forward(ops.gelu(this.up.forward(x)))
  }
}
class Pair extends nn.Module {
  a = new Mlp()
  b = new Mlp()
  forward(x) {
    return form === 'chain' ? this.b.forward(this.a.forward(x)) : ops.add(this.a.forward(x), this.b.forward(x))
  }
}
const config = (more = {}) => ({
  train_micro_batch_size_per_gpu: 2,
  gradient_accumulation_steps: 2,
  optimizer: { type: 'SGD', params: { lr: 0.5 } },
  gradient_clipping: 0,
  zero_optimization: { stage: Number(stage), stage3_param_persistence_threshold: 0 },
  ...more,
})
const values = (salt) => Float32Array.from({ length: 12 }, (_, i) => Math.sin(i * 0.7 + salt))
const half = (x) => ops.cast(x, 'f16')
const wide = (x) => ops.cast(x, 'f32')

/** Three updates by `backward`; answers the losses that each engine's steps tell. */
async function train(engines, forward, backward, sixteen) {
  const told = engines.map(() => [])
  for (let micro = 0; micro < 6; micro++) {
    const first = engines[0].nextSample
    const [x, y] = [tensor(values(first), [2, 6]), tensor(values(first + 9), [2, 6])]
    const input = sixteen ? half(x) : x
    const parts = forward(input)
    const output = parts.at(-1)
    const loss = tidy(() => ops.meanSquaredError(sixteen ? wide(output) : output, y))
    backward(loss, micro)
    for (const t of new Set([x, y, input, ...parts])) t.dispose()
    for (const [index, engine] of engines.entries()) {
      const result = await engine.step()
      if (result) told[index].push(result.loss)
    }
  }
  return told
}

async function compare(name, [moreA, moreB], { sixteen = false, tolerance = 1e-6 } = {}) {
  const start = memory.stats().tensors
  const both = { ...(sixteen && { fp16: { enabled: true, loss_scale: 64 } }) }
  const whole = await initialize({ model: new Pair(), config: config(both) })
  const [a, b] = [
    await initialize({ model: new Mlp(), config: config({ ...both, ...moreA }) }),
    await initialize({ model: new Mlp(), config: config({ ...both, ...moreB }) }),
  ]
  for (const [prefix, engine] of Object.entries({ a, b }))
    for (const parameter of engine.access.names())
      engine.access.setFull(parameter, await whole.access.getFull(`${prefix}.${parameter}`))
  const before = await a.access.getFull('up.weight')
  const [expected] = await train(
    [whole],
    (x) => [whole.forward(x)],
    (loss) => whole.backward(loss),
    sixteen,
  )
  const forward = (x) => {
    const first = a.forward(x)
    if (form === 'chain') return [first, b.forward(first)]
    const second = b.forward(x)
    return [first, second, ops.add(first, second)]
  }
  const leader = (micro) => ({ a, b, turns: micro % 2 ? b : a, own: a })[leads]
  const backward = (loss, micro) => {
    if (leads !== 'own') return leader(micro).backward(loss)
    const scaled = leader(micro).scale(loss)
    backwardFrom(scaled)
    scaled.dispose()
    loss.dispose()
  }
  const told = await train([a, b], forward, backward, sixteen)
  for (const losses of told) close(`${name}: losses`, losses, expected, tolerance)
  expect(`${name}: three updates`, told[0].length === 3 && a.globalSteps === 3 && b.globalSteps === 3)
  for (const [prefix, engine] of Object.entries({ a, b }))
    for (const parameter of engine.access.names())
      close(
        `${name}: ${prefix}.${parameter}`,
        await engine.access.getFull(parameter),
        await whole.access.getFull(`${prefix}.${parameter}`),
        tolerance,
      )
  expect(
    `${name}: it moved`,
    (await a.access.getFull('up.weight')).some((value, i) => Math.abs(value - before[i]) > 1e-3),
  )
  for (const engine of [a, b, whole]) await engine.close()
  expect(`${name}: nothing is left`, memory.stats().tensors === start, `${memory.stats().tensors} tensors`)
}

// Stays in the job while others come and go.
const one = await initialize({ model: new Mlp(), config: config() })
await compare('f32', [{}, {}])
const scaled = (loss_scale) => ({ fp16: { enabled: true, loss_scale } })
await compare('loss scales of their own', [scaled(64), scaled(2048)], { sixteen: true, tolerance: 2e-3 })

// A backward through a model that nobody leads is told.
const two = await initialize({ model: new Mlp(), config: config() })
const x = tensor(values(0), [2, 6])
const loss = tidy(() => ops.meanSquaredError(one.forward(x), x))
try {
  backwardFrom(loss)
  failed.push('a backward without a leader')
} catch (error) {
  expect('a backward without a leader', error.code === 'AUTOGRAD' && /engine.backward/.test(error.message), error)
}
const { rank } = one.group
for (const engine of [one, two]) await engine.close()
loss.dispose()
x.dispose()
if (rank === 0) console.log(JSON.stringify({ failed, tensors: memory.stats().tensors }))

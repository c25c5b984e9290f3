// One rank of test/ranks/tensor.test.ts: every parallel layer, its output and gradients, against the plain one that
// each rank computes whole; replicated and with the sequence cut, in one piece and in three. Prints one JSON line.

import { joinWorld } from '../../../dist/engine/initialize.js'
import { backwardFrom, memory, nn, noGrad, ops, tensor, tidy } from '../../../dist/index.js'
import { LanguageModelHead } from '../../../dist/nn/models/index.js'
import { beginDraws } from '../../../dist/ops/random.js'
import {
  ColumnParallelLinear,
  Region,
  RowParallelLinear,
  scatter,
  VocabParallelEmbedding,
  VocabParallelHead,
  vocabParallelCrossEntropy,
} from '../../../dist/parallel/index.js'
import { SequenceDropout, SequenceEmbedding } from '../../../dist/parallel/sequence/layers.js'
import { close, expect, failed, filled, part } from './helpers.mjs'

const world = await joinWorld()
const { group } = world
const { rank, size } = group
const before = memory.stats().tensors
const [B, T, C, H] = [3, 2 * size, 12, 8 * size]
const own = (n) => [[(rank * n) / size, ((rank + 1) * n) / size]]
let checks = 0
const same = (...args) => {
  checks++
  close(...args)
}

class Pair extends nn.Module {
  constructor(conv) {
    super()
    this.up = conv ? new nn.Conv1D(C, H, nn.normal(0.3), 'geluTanh') : new nn.Linear(C, H, { activation: 'gelu' })
    this.other = new nn.Linear(C, H, { bias: false })
    this.down = conv ? new nn.Conv1D(H, C, nn.normal(0.3)) : new nn.Linear(H, C)
  }
  forward(x) {
    return this.down.forward(ops.mul(this.up.forward(x), this.other.forward(x)))
  }
}

/** Output and gradients of f(x), with a loss that weighs y by `weights`; all disposed. */
async function run(model, x, f, weights) {
  x.requiresGrad = true
  const y = tidy(() => f(x))
  const values = await y.data()
  tidy(() => backwardFrom(ops.sum(ops.mul(y, weights))))
  y.dispose()
  const gradients = { x: await x.grad.data() }
  for (const [name, { tensor }] of model.namedParameters()) {
    gradients[name] = tensor.grad && (await tensor.grad.data())
    tensor.grad?.dispose()
    tensor.grad = undefined
  }
  x.grad.dispose()
  x.dispose()
  weights.dispose()
  return { y: values, gradients }
}
const summed = async (values) => {
  const t = tensor(values, [values.length])
  group.allReduce(t)
  const sum = await t.data()
  t.dispose()
  return sum
}

for (const conv of [false, true]) {
  const dense = new Pair(conv).materialize({ seed: 5 })
  const expected = await run(dense, filled([B, T, C]), (x) => dense.forward(x), filled([B, T, C], 2))
  for (const sequence of [false, true])
    for (const chunks of [1, 3]) {
      const name = `${conv ? 'Conv1D' : 'Linear'}${sequence ? ', sequence' : ''}, ${chunks} pieces:`
      const cut = new Pair(conv)
      cut.namedParameters()
      const region = new Region(group, { sequence: sequence ? () => true : undefined, chunks })
      cut.up = new ColumnParallelLinear(cut.up, region)
      cut.other = new ColumnParallelLinear(cut.other, region)
      cut.down = new RowParallelLinear(cut.down, region)
      cut.materialize({ seed: 5 })
      const take = (shape, salt) => {
        const whole = filled(shape, salt)
        if (!sequence) return whole
        const shard = scatter(whole, 1, group)
        whole.dispose()
        return shard
      }
      const actual = await run(cut, take([B, T, C]), (x) => cut.forward(x), take([B, T, C], 2))
      const shard = (values) => (sequence ? part(values, [B, T, C], 1, own(T)) : values)
      same(`${name} output`, actual.y, shard(expected.y))
      same(`${name} dx`, actual.gradients.x, shard(expected.gradients.x))
      for (const [parameter, { slice, wholeShape, partialGradient, replicas }] of cut.namedParameters()) {
        const whole = expected.gradients[parameter]
        const here = actual.gradients[parameter]
        if (slice) same(`${name} d${parameter}`, here, part(whole, wholeShape, slice.dim, slice.ranges))
        else {
          same(`${name} d${parameter}`, partialGradient ? await summed(here) : here, whole)
          expect(
            `${name} replicas of ${parameter}`,
            partialGradient === sequence && (replicas === undefined) === (parameter !== 'down.bias'),
          )
        }
      }
      cut.dispose()
    }
  dense.dispose()
}

// Used alone: outputs gathered, inputs split; the same layer twice; nothing recorded.
{
  class Alone extends nn.Module {
    constructor() {
      super()
      this.up = new nn.Linear(C, H)
      this.down = new nn.Linear(H, C)
    }
    forward(x) {
      return this.down.forward(ops.tanh(this.up.forward(x)))
    }
  }
  const dense = new Alone().materialize({ seed: 2 })
  const cut = new Alone()
  cut.up = new ColumnParallelLinear(cut.up, group, { gatherOutput: true })
  cut.down = new RowParallelLinear(cut.down, group, { splitInput: true })
  cut.materialize({ seed: 2 })
  const expected = await run(
    dense,
    filled([5, C]),
    (x) => ops.add(dense.forward(x), dense.forward(x)),
    filled([5, C], 2),
  )
  const actual = await run(cut, filled([5, C]), (x) => ops.add(cut.forward(x), cut.forward(x)), filled([5, C], 2))
  same('alone: output', actual.y, expected.y)
  same('alone: dx', actual.gradients.x, expected.gradients.x)
  same('alone: down', actual.gradients['down.weight'], part(expected.gradients['down.weight'], [C, H], 1, own(H)))
  const x = filled([5, C])
  const y = tidy(() => noGrad(() => cut.forward(x)))
  const z = tidy(() => noGrad(() => dense.forward(x)))
  same('alone: nothing recorded', await y.data(), await z.data())
  for (const t of [x, y, z]) t.dispose()
  dense.dispose()
  cut.dispose()
}

// Vocabulary: uneven rows, one table for both ends, ignored targets, logits in chunks, evaluation.
const V = 4 * size + 3
class Words extends nn.Module {
  constructor() {
    super()
    this.embed = new nn.Embedding(V, C, nn.normal(0.5))
    this.place = new nn.Embedding(T, C, nn.normal(0.5))
    this.drop = new nn.Dropout(0.4)
    this.norm = new nn.LayerNorm(C)
    this.head = new LanguageModelHead(C, V, nn.normal(0.5))
    Object.assign(this.head, { weight: this.embed.weight })
  }
  forward(ids, targets) {
    const places = tensor(
      Int32Array.from({ length: T }, (_, i) => i),
      [T],
    )
    const x = ops.add(this.embed.forward(ids), this.place.forward(places))
    return this.head.forward(this.norm.forward(this.drop.forward(x)), targets)
  }
}
const ids = tensor(
  Int32Array.from({ length: B * T }, (_, i) => (i * 7) % V),
  [B, T],
)
const targets = tensor(
  Int32Array.from({ length: B * T }, (_, i) => (i * 5 + 1) % V),
  [B, T],
)
const gradientsOf = async (model) => {
  beginDraws({ seed: 0, step: 0, firstSample: 0, forward: 0 }) // the same draws in each run
  const loss = tidy(() => model.forward(ids, targets))
  const value = await loss.data()
  backwardFrom(loss)
  loss.dispose()
  const found = { loss: value }
  for (const [name, { tensor }] of model.namedParameters()) {
    found[name] = await tensor.grad.data()
    tensor.grad.dispose()
    tensor.grad = undefined
  }
  return found
}
{
  const dense = new Words().materialize({ seed: 4 })
  const expected = await gradientsOf(dense)
  for (const sequence of [false, true]) {
    const name = `vocabulary${sequence ? ', sequence' : ''}:`
    const cut = new Words()
    cut.namedParameters()
    const region = new Region(group, { sequence: sequence ? () => cut.training : undefined })
    cut.embed = new VocabParallelEmbedding(cut.embed, region)
    cut.head = new VocabParallelHead(cut.head, region)
    if (sequence) {
      cut.place = new SequenceEmbedding(cut.place, region)
      cut.drop = new SequenceDropout(cut.drop, region)
    }
    cut.materialize({ seed: 4 })
    const actual = await gradientsOf(cut)
    for (const [key, value] of Object.entries(expected)) {
      const { slice, wholeShape } = cut.namedParameters().get(key) ?? {}
      const here = slice || key === 'loss' || !sequence ? actual[key] : await summed(actual[key])
      same(`${name} ${key}`, here, slice ? part(value, wholeShape, slice.dim, slice.ranges) : value)
    }
    cut.eval()
    dense.eval()
    const [mine, whole] = [cut, dense].map((model) => tidy(() => noGrad(() => model.forward(ids, targets))))
    same(`${name} evaluation`, await mine.data(), await whole.data())
    const x = filled([2, C])
    const logits = [cut, dense].map((model) => tidy(() => noGrad(() => model.head.logits(x))))
    same(`${name} logits`, await logits[0].data(), await logits[1].data())
    for (const t of [mine, whole, x, ...logits]) t.dispose()
    if (sequence) {
      const hidden = filled([B, T, C])
      hidden.requiresGrad = true
      try {
        cut.head.forward(hidden, targets)
        failed.push('a differentiated forward in evaluation mode was not refused')
      } catch (error) {
        expect('evaluation mode', /call train\(\)/.test(error.message), error.message)
      }
      hidden.dispose()
      cut.train()
      const odd = tensor(new Int32Array(B * (T + 1)), [B, T + 1])
      try {
        cut.embed.forward(odd)
        failed.push('an odd length was not refused')
      } catch (error) {
        expect(
          'odd length',
          /not divisible by \d tensor ranks; make data.sequence_length/.test(error.message),
          error.message,
        )
      }
      odd.dispose()
    }
    dense.train()
    cut.dispose()
  }
  dense.dispose()
}

// The classifier alone: ignored rows, and one row of logits at a time, which backward computes again.
for (const logitBytes of [undefined, 4 * V]) {
  const options = { ignoreIndex: 1, numTargets: B * T - 3, ...(logitBytes && { logitBytes }) }
  class Head extends nn.Module {
    head = new LanguageModelHead(C, V, nn.normal(0.5))
  }
  const [dense, cut] = [new Head().materialize({ seed: 8 }), new Head()]
  cut.namedParameters()
  cut.head = new VocabParallelHead(cut.head, group)
  cut.materialize({ seed: 8 })
  const weigh = (loss) => ops.affine(ops.reshape(loss, [1]), 3)
  const expected = await run(
    dense,
    filled([B, T, C]),
    (x) => weigh(ops.linearCrossEntropy(x, dense.head.weight.tensor, targets, options)),
    filled([1]),
  )
  const actual = await run(
    cut,
    filled([B, T, C]),
    (x) => weigh(vocabParallelCrossEntropy(x, cut.head.weight, targets, group, options)),
    filled([1]),
  )
  same(`classifier ${logitBytes}: loss`, actual.y, expected.y)
  same(`classifier ${logitBytes}: dx`, await summed(actual.gradients.x), expected.gradients.x)
  const { slice } = cut.head.weight
  const rows = part(expected.gradients['head.weight'], [V, C], 0, slice.ranges)
  same(`classifier ${logitBytes}: dweight`, actual.gradients['head.weight'], rows)
  dense.dispose()
  cut.dispose()
}

targets.dispose()
ids.dispose()
const left = memory.stats().tensors
expect('nothing is left', left === before, `${left} tensors, ${before} before`)

// A target outside the vocabulary is named.
{
  const cut = new VocabParallelHead(new LanguageModelHead(C, V, nn.normal(1)), group).materialize()
  const wrong = tensor(new Int32Array(2).fill(V), [1, 2])
  const x = filled([1, 2, C])
  try {
    const loss = cut.forward(x, wrong)
    await loss.data()
    failed.push('a target outside the vocabulary was not refused')
  } catch (error) {
    expect('target', error.message.includes(`target ${V} of row 0 is outside the vocabulary of ${V}`), error.message)
  }
  // The stream has failed with that error; the process ends here.
}
if (failed.length) throw new Error(`rank ${rank}: ${failed.join('; ')}`)
if (rank === 0) console.log(JSON.stringify({ checks }))
process.exit(0)

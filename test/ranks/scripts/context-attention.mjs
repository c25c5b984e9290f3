// One rank of test/ranks/context.test.ts: attention of a cut sequence against ops.attention of the whole, values and
// gradients; rank 0 prints for each case the largest difference on any rank, relative to the largest value.

import { joinWorld, leaveWorld } from '../../../dist/engine/initialize.js'
import { backwardFrom, ops, tensor, tidy } from '../../../dist/index.js'
import { beginDraws } from '../../../dist/ops/random.js'
import { takeTokens } from '../../../dist/parallel/context/layout.js'
import { ringAttention, ringPackedAttention } from '../../../dist/parallel/context/ring.js'
import { ulyssesAttention, ulyssesPackedAttention } from '../../../dist/parallel/context/ulysses.js'
import { memory } from '../../../dist/tensor/memory.js'

const cases = JSON.parse(process.argv[2])
const world = await joinWorld()
const { group } = world

const values = (shape, salt) =>
  tensor(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 12.9898 + salt) * 1.5),
    shape,
  )

const inType = (x, dtype) => (dtype === 'f32' ? x : ops.cast(x, dtype))
const leaf = (x) => Object.assign(x, { requiresGrad: true })
async function read(x) {
  const wide = x.dtype === 'f32' ? x : ops.cast(x, 'f32')
  const result = await wide.data()
  if (wide !== x) wide.dispose()
  return result
}

/** Values and gradients of one attention over inputs (B, T, …). */
async function run(attend, inputs, weights) {
  beginDraws({ seed: 0, step: 0, firstSample: 0, forward: 0 }) // the same draws in each run
  const y = attend(...inputs)
  tidy(() => backwardFrom(ops.sum(ops.mul(y.dtype === 'f32' ? y : ops.cast(y, 'f32'), weights))))
  const results = [await read(y)]
  for (const input of inputs) results.push(Float32Array.from(await input.grad.data()))
  y.dispose()
  for (const input of inputs) {
    input.grad.dispose()
    input.grad = undefined
  }
  return results
}

/** Elements of this rank's tokens. */
async function own(whole, shape, place) {
  const x = tensor(whole, shape)
  const part = tidy(() => takeTokens(x, place))
  const result = await part.data()
  x.dispose()
  part.dispose()
  return result
}

async function compare({ kind, b, t, hq, hkv, d, dtype = 'f32', packed = false, causal = true, p = 0 }) {
  const place = { kind, rank: group.rank, size: group.size }
  const options = { numHeads: hq, numKeyValueHeads: hkv, causal, scale: 0.4, dropout: { p, site: 'here' } }
  const widths = packed ? [(hq + 2 * hkv) * d] : [hq * d, hkv * d, hkv * d]
  const [cut, plain] = packed
    ? [kind === 'ring' ? ringPackedAttention : ulyssesPackedAttention, ops.packedAttention]
    : [kind === 'ring' ? ringAttention : ulyssesAttention, ops.attention]
  const inputs = widths.map((width, index) => leaf(tidy(() => inType(values([b, t, width], index), dtype))))
  const weights = values([b, t, hq * d], 9)
  const expected = await run((...x) => plain(...x, options), inputs, weights)
  const parts = inputs.map((x) => leaf(tidy(() => takeTokens(Object.assign(x, { requiresGrad: false }), place))))
  const partWeights = tidy(() => takeTokens(weights, place))
  const attend = (...x) => cut(...x, options, group)
  const actual = await run(attend, parts, partWeights)
  const again = await run(attend, parts, partWeights)
  let worst = 0
  for (const [index, part] of actual.entries()) {
    const whole = await own(expected[index], [b, t, index ? widths[index - 1] : hq * d], place)
    const scale = Math.max(...expected[index].map(Math.abs))
    if (!part.every((value, i) => value === again[index][i])) worst = Infinity // not the same bits twice
    part.forEach((value, i) => {
      const gap = Math.abs(value - whole[i]) / scale
      worst = Math.max(worst, Number.isNaN(gap) ? Infinity : gap)
    })
  }
  for (const x of [...inputs, weights, ...parts, partWeights]) x.dispose()
  return worst
}

const before = memory.stats().tensors
const worst = []
for (const each of cases) worst.push(await compare(each))
const left = memory.stats().tensors - before
const all = tidy(() => {
  const mine = tensor(Float32Array.from([...worst, left]))
  return group.allGather(tensor(new Float32Array(mine.count * group.size)), mine)
})
const gathered = await all.data()
all.dispose()
if (group.rank === 0) {
  const ranks = Array.from({ length: group.size }, (_, rank) =>
    Array.from(gathered.slice(rank * (cases.length + 1), (rank + 1) * (cases.length + 1))),
  )
  console.log(JSON.stringify(ranks[0].map((_, index) => Math.max(...ranks.map((row) => row[index] ?? Infinity)))))
}
await leaveWorld(world)

// What a rank computes of its part of a sequence: dropout, rotation and attention block by block, against the whole.

import t from 'tap'
import { backwardFrom } from '../../lib/autograd/functions.js'
import { packedParts } from '../../lib/ops/attention.js'
import {
  type AttentionBlock,
  attendBlock,
  attendBlockBackward,
  drawsAt,
  shifted,
} from '../../lib/ops/attention-block.js'
import * as ops from '../../lib/ops/index.js'
import { beginDraws } from '../../lib/ops/random.js'
import { type ContextKind, partOf, takeTokens } from '../../lib/parallel/context/layout.js'
import { tidy } from '../../lib/tensor/scope.js'
import { type DType, empty, type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive, difference, values } from '../helpers/compare.js'

const numbers = (shape: number[], salt = 0): Tensor =>
  tensor(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 12.9898 + salt)),
    shape,
  )

/** Before each draw: a second one of its site is another. */
const begin = (): void => beginDraws({ seed: 5, step: 2, firstSample: 3, forward: 0 })

const cuts: [ContextKind, number][] = [
  ['ulysses', 2],
  ['ulysses', 3],
  ['ring', 2],
  ['ring', 3],
]

t.test('dropout and rotation of a part are those of the whole there', async (t) => {
  const before = alive()
  const x = numbers([2, 24, 20])
  const table = numbers([30, 10], 1)
  begin()
  const [dropped, turned] = tidy(() => [ops.dropout(x, 0.4, 'here'), ops.rotary(x, table, 2)])
  for (const [kind, size] of cuts) {
    for (let rank = 0; rank < size; rank++) {
      const place = { kind, rank, size }
      const part = partOf(place, 24 / size)
      begin()
      const results = tidy(() => {
        const own = takeTokens(x, place)
        const pairs: [Tensor, Tensor][] = [
          [ops.dropout(own, 0.4, 'here', part), takeTokens(dropped, place)],
          [ops.rotary(own, table, 2, part), takeTokens(turned, place)],
        ]
        return pairs.flat()
      })
      const [a, b, c, d] = (await Promise.all(results.map((y) => y.data()))) as Float32Array[]
      t.strictSame(a, b, `dropout, ${kind} ${rank} of ${size}`)
      t.strictSame(c, d, `rotation, ${kind} ${rank} of ${size}`)
      for (const y of results) y.dispose()
    }
  }
  t.throws(() => ops.rotary(x, table, 2, { first: 7, length: 31 }), /positions 7 to 31/, 'behind the table')
  for (const y of [x, table, dropped, turned]) y.dispose()
  t.equal(alive(), before, 'nothing is left')
})

t.test('the gradient of a rotated part is the part of the gradient', async (t) => {
  const before = alive()
  const place = { kind: 'ring' as const, rank: 1, size: 2 }
  const [x, table, weights] = [numbers([1, 16, 8]), numbers([16, 4], 1), numbers([1, 16, 8], 2)]
  const gradient = async (input: Tensor, w: Tensor, part?: ops.SequencePart): Promise<Float32Array> => {
    input.requiresGrad = true
    tidy(() => backwardFrom(ops.sum(ops.mul(ops.rotary(input, table, 2, part), w))))
    return values(input.grad as Tensor)
  }
  const [own, ownWeights] = tidy(() => [takeTokens(x, place), takeTokens(weights, place)])
  await gradient(x, weights)
  const expected = tidy(() => takeTokens(x.grad as Tensor, place))
  t.strictSame(await gradient(own, ownWeights, partOf(place, 8)), await values(expected))
  for (const y of [x.grad, own.grad, x, table, weights, own, ownWeights, expected]) y?.dispose()
  t.equal(alive(), before, 'nothing is left')
})

/** Attention of qkv by pieces of queries and of keys, in f32 beside bf16, joined; forward and backward. */
async function inBlocks(qkv: Tensor, dy: Tensor, options: ops.AttentionOptions, piece: number) {
  const { g, parts } = packedParts(qkv, options)
  const { b, tq: t, hq, d } = g
  const [q, k, v] = parts
  const [o, lse, dqkv] = [empty([b, t, hq * d]), empty([b, hq, t]), empty(qkv.shape, { zero: true })]
  function* blocks(): Generator<AttentionBlock> {
    for (let first = 0; first < t; first += piece) {
      for (let key = 0; key <= first; key += piece) {
        yield {
          ...g,
          tq: Math.min(piece, t - first),
          tk: Math.min(piece, t - key),
          draws: drawsAt(g.draws, first, key),
          causal: key === first,
          q: shifted(q, first),
          k: shifted(k, key),
          v: shifted(v, key),
          first,
          tokens: t,
          continues: key > 0,
        }
      }
    }
  }
  for (const block of blocks()) attendBlock(block, o, lse)
  const narrow = o.dtype === qkv.dtype ? o : ops.cast(o, qkv.dtype)
  for (const block of blocks())
    attendBlockBackward({ ...block, continues: true }, { dq: dqkv, dk: dqkv, dv: dqkv }, { dy, o: narrow, lse })
  const result = [await values(o), await values(dqkv)] as const
  for (const y of [o, lse, dqkv]) y.dispose()
  if (narrow !== o) narrow.dispose()
  return result
}

t.test('attention joined from blocks is the attention of the whole', async (t) => {
  const before = alive()
  for (const [dtype, hkv, length, piece, p] of [
    ['f32', 4, 24, 7, 0],
    ['f32', 2, 150, 70, 0.3],
    ['bf16', 2, 24, 8, 0.3],
    ['f16', 1, 24, 8, 0],
  ] as [DType, number, number, number, number][]) {
    const options = { numHeads: 4, numKeyValueHeads: hkv, scale: 0.5, dropout: { p, site: 'here' } }
    const make = (shape: number[], salt: number): Tensor =>
      tidy(() => (dtype === 'f32' ? numbers(shape, salt) : ops.cast(numbers(shape, salt), dtype)))
    const [qkv, dy] = [make([2, length, (4 + 2 * hkv) * 8], 0), make([2, length, 32], 1)]
    begin()
    const o = tidy(() => ops.packedAttention(qkv, options))
    qkv.requiresGrad = true
    begin()
    tidy(() => {
      const y = ops.packedAttention(qkv, options)
      backwardFrom(ops.sum(ops.mul(y, dy)))
    })
    const limit = { f32: 2e-6, bf16: 2e-2, f16: 2e-3 }[dtype as 'f32']
    begin()
    const [actual, gradient] = await inBlocks(qkv, dy, options, piece)
    const gaps = [difference(actual, await values(o)), difference(gradient, await values(qkv.grad as Tensor))]
    t.ok(Math.max(...gaps) <= limit, `${dtype}, ${hkv} of 4 heads, ${piece} of ${length}: ${gaps.join(', ')}`)
    for (const y of [qkv.grad, qkv, dy, o]) y?.dispose()
  }
  t.equal(alive(), before, 'nothing is left')
})

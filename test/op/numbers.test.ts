// Operations without gradients against their definitions: casts between all element types, fill, top-k, the norm.

import t from 'tap'
import { binding } from '../../lib/binding/native.js'
import * as ops from '../../lib/ops/index.js'
import { type DType, empty, runOp, type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'
import { globalNorm, largest, rounded } from '../reference/numbers.js'
import { random } from '../reference/ops.js'

binding().native.configure({ threads: 2, serial: false })

const all: DType[] = ['f32', 'bf16', 'f16', 'i32', 'u8', 'i64']
const floats: DType[] = ['f32', 'bf16', 'f16']

/** As numbers: 16-bit floats through f32, which holds them exactly. */
async function numbers(x: Tensor): Promise<number[]> {
  if (x.dtype !== 'bf16' && x.dtype !== 'f16') return [...(await x.data())].map(Number)
  const wide = empty(x.shape)
  runOp('cast', [wide], [x])
  const values = [...(await wide.data())].map(Number)
  wide.dispose()
  return values
}

function cast(x: Tensor, dtype: DType): Tensor {
  const y = empty(x.shape, { dtype })
  runOp('cast', [y], [x])
  return y
}

/** Values that every type of the pair can hold but for rounding. */
function samples(from: DType, to: DType): number[] {
  const next = random(from.length * 31 + to.length)
  if (floats.includes(from) && floats.includes(to)) {
    const special = [0, -0, 1, -1, Infinity, -Infinity, 65504, 65519, 65520, -7e4, 6e-8, 2.9e-8, 3e-8, 1e-40, 3.39e38]
    const ties = [1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 2 ** -25, 3 * 2 ** -25]
    return [
      ...special,
      ...ties,
      ...Array.from({ length: 500 }, () => (next() - 0.5) * 2 ** Math.floor(next() * 60 - 40)),
    ]
  }
  const [low, high] = [from, to].includes('u8') ? [0, 256] : [-2048, 2049]
  return Array.from({ length: 300 }, (_, i) =>
    i % 2 ? low + next() * (high - low) : Math.floor(low + next() * (high - low)),
  )
}

for (const from of all) {
  t.test(`cast from ${from}`, async (t) => {
    const before = alive()
    for (const to of all) {
      const given = samples(from, to).map((value) => rounded(rounded(value, 'f32'), from))
      const wide =
        from === 'i64' ? tensor(BigInt64Array.from(given, BigInt)) : tensor(given, undefined, { dtype: 'f32' })
      const x = cast(wide, from)
      const y = cast(x, to)
      t.strictSame(
        await numbers(y),
        given.map((value) => rounded(value, to)),
        `to ${to}`,
      )
      for (const tensor of [wide, x, y]) tensor.dispose()
    }
    t.equal(alive(), before, 'nothing is left')
  })
}

t.test('NaN stays NaN', async (t) => {
  for (const from of floats)
    for (const to of floats) {
      const parts = [tensor([Number.NaN])]
      parts.push(cast(parts[0] as Tensor, from))
      parts.push(cast(parts[1] as Tensor, to))
      t.ok(Number.isNaN((await numbers(parts[2] as Tensor))[0]), `${from} to ${to}`)
      for (const part of parts) part.dispose()
    }
})

t.test('fill writes the rounded value everywhere, and nowhere else', async (t) => {
  const before = alive()
  for (const dtype of all)
    for (const count of [1, 37, 5000]) {
      const whole = empty([count + 8], { dtype, zero: true })
      const part = whole.view([count], 3)
      runOp('fill', [part], [], [3.3])
      const values = await numbers(whole)
      const expected = Array.from({ length: count + 8 }, (_, i) => (i >= 3 && i < 3 + count ? rounded(3.3, dtype) : 0))
      t.strictSame(values, expected, `${count} of ${dtype}`)
      part.dispose()
      whole.dispose()
    }
  t.equal(alive(), before, 'nothing is left')
})

t.test('topK finds the largest in order, equal ones by lower index', async (t) => {
  const before = alive()
  const next = random(3)
  for (const [rows, cols, k] of [
    [1, 1, 1],
    [3, 40, 40],
    [5, 1000, 7],
  ] as const) {
    const given = Array.from({ length: rows * cols }, () => Math.floor(next() * 50) - 25)
    const x = tensor(given, [rows, cols])
    const found = ops.topK(x, k)
    const expected = Array.from({ length: rows }, (_, r) => largest(given.slice(r * cols, (r + 1) * cols), k))
    t.strictSame([...(await found.ids.data())].map(Number), expected.flat())
    t.strictSame(
      await numbers(found.values),
      expected.flatMap((ids, r) => ids.map((id) => given[r * cols + id])),
    )
    for (const tensor of [x, found.ids, found.values]) tensor.dispose()
  }
  t.equal(alive(), before, 'nothing is left')
})

/** The norm of values that lie in parts, as ZeRO takes it. */
async function norm(values: readonly number[], cuts: readonly number[], dtype: DType): Promise<number> {
  const edges = [0, ...cuts, values.length]
  const wide = edges.slice(1).map((end, i) => tensor(values.slice(edges[i], end), [end - (edges[i] as number)]))
  const parts = wide.map((part) => cast(part, dtype))
  const [top, sum, y] = [empty([1], { zero: true }), empty([2], { dtype: 'i64', zero: true }), empty([])]
  for (const part of parts) runOp('absmax', [top], [part])
  for (const part of parts) runOp('sum_squares', [sum], [part, top])
  runOp('norm_finish', [y], [sum, top])
  const result = Number((await y.data())[0])
  for (const tensor of [...wide, ...parts, top, sum, y]) tensor.dispose()
  return result
}

t.test('the global norm is right at every scale, and the same bits for any cut and order', async (t) => {
  const before = alive()
  const next = random(11)
  for (const dtype of floats)
    for (const scale of dtype === 'f16' ? [1e-3, 1, 1e3] : [1e-30, 1e-3, 1, 1e18, 1e30]) {
      const values = Array.from({ length: 3001 }, () =>
        rounded((next() - 0.5) * scale * 2 ** (next() * 20 - 20), dtype),
      )
      const whole = await norm(values, [], dtype)
      t.ok(Math.abs(whole / globalNorm(values) - 1) < 1e-6, `${dtype}, ${scale}: ${whole}`)
      t.equal(await norm(values, [1, 37, 2000], dtype), whole, 'cut')
      t.equal(await norm(values.toReversed(), [1500], dtype), whole, 'turned round')
    }
  t.equal(await norm([0, 0, 0], [1], 'f32'), 0)
  t.equal(await norm([1, Infinity], [1], 'f32'), Infinity)
  t.ok(Number.isNaN(await norm([1, Number.NaN, Infinity], [2], 'f32')))
  t.equal(await norm([], [], 'f32'), 0)
  t.equal(alive(), before, 'nothing is left')
})

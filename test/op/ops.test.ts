// Every differentiable operation against float64, forward and backward, in every float dtype and at odd sizes.

import t from 'tap'
import { binding } from '../../lib/binding/native.js'
import * as ops from '../../lib/ops/index.js'
import { type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { type Case, compare } from '../helpers/compare.js'
import * as ref from '../reference/ops.js'

binding().native.configure({ threads: 2, serial: false })

const ids = (...list: number[]): Tensor => tensor(Int32Array.from(list))
const withIds = (list: number[], fn: (ids: Tensor) => Tensor, shape?: number[]): Tensor => {
  const index = tensor(Int32Array.from(list), shape)
  try {
    return fn(index)
  } finally {
    index.dispose()
  }
}
const halves = (name: 'gelu' | 'geluTanh') => (x: ref.Array64) =>
  ref.map(x, ref.functions[name] as (v: number) => number)

const cases: Case[] = [
  ...Object.entries(ref.functions).flatMap(([name, fn]): Case[] =>
    [[1], [37], [3, 67]].map((shape) => ({
      name,
      shapes: [shape],
      ...(['log', 'sqrt', 'reciprocal'].includes(name) ? { low: 0.3, high: 3 } : { low: -4, high: 4 }),
      reference: (x) => ref.map(x, fn),
      run: (x) => (ops as unknown as Record<string, (x: Tensor) => Tensor>)[name]?.(x) as Tensor,
    })),
  ),
  ...(['add', 'sub', 'mul', 'div'] as const).flatMap((name): Case[] =>
    [
      [
        [5, 7],
        [5, 7],
      ],
      [[5, 7], [7]],
      [
        [4, 1, 3],
        [2, 1],
      ],
      [[3], []],
      [[1], [6]],
    ].map((shapes) => ({
      name,
      shapes,
      low: 0.5,
      reference: (a, b) => ref.broadcast(a, b, (x, y) => ({ add: x + y, sub: x - y, mul: x * y, div: x / y })[name]),
      run: (a, b) => ops[name](a, b),
    })),
  ),
  { name: 'affine', shapes: [[19]], reference: (x) => ref.map(x, (v) => 3 * v - 1), run: (x) => ops.affine(x, 3, -1) },
  {
    name: 'swiglu',
    shapes: [
      [3, 21],
      [3, 21],
    ],
    reference: ref.swiglu,
    run: ops.swiglu,
  },
  ...[
    [1, 1, 1],
    [3, 5, 7],
    [17, 33, 65],
    [2, 130, 9],
  ].map(
    ([m, k, n]): Case => ({
      name: 'matmul',
      shapes: [
        [m as number, k as number],
        [k as number, n as number],
      ],
      reference: ref.matmul,
      run: ops.matmul,
    }),
  ),
  {
    name: 'matmul, batched',
    shapes: [
      [2, 3, 5, 4],
      [2, 3, 4, 3],
    ],
    reference: ref.matmul,
    run: ops.matmul,
  },
  {
    name: 'matmul, shared matrix',
    shapes: [
      [2, 5, 4],
      [4, 3],
    ],
    reference: ref.matmul,
    run: ops.matmul,
  },
  ...[false, true].flatMap((inFirst) =>
    [undefined, 'gelu', 'geluTanh'].map(
      (activation): Case => ({
        name: `linear ${inFirst} ${activation}`,
        shapes: [[2, 5, 9], inFirst ? [9, 11] : [11, 9], [11]],
        reference: (x, w, b) => {
          const sum = ref.broadcast(ref.matmul(x, inFirst ? w : ref.transpose2d(w)), b, (p, q) => p + q)
          return activation ? halves(activation as 'gelu')(sum) : sum
        },
        run: (x, w, b) => ops.linear(x, w, b, { inFirst, activation: activation as 'gelu' | undefined }),
      }),
    ),
  ),
  ...[
    [4, 1],
    [3, 17],
    [2, 2, 130],
  ].flatMap((shape): Case[] => {
    const n = shape.at(-1) as number
    return [
      { name: 'softmax', shapes: [shape], reference: (x) => ref.softmax(x), run: ops.softmax },
      { name: 'logSoftmax', shapes: [shape], reference: (x) => ref.softmax(x, true), run: ops.logSoftmax },
      {
        name: 'layerNorm',
        shapes: [shape, [n], [n]],
        reference: (x, w, b) => ref.norm(x, w, b, 1e-2, true),
        run: (x, w, b) => ops.layerNorm(x, w, b, 1e-2),
      },
      {
        name: 'rmsNorm',
        shapes: [shape, [n]],
        reference: (x, w) => ref.norm(x, w, undefined, 1e-2, false),
        run: (x, w) => ops.rmsNorm(x, w, 1e-2),
      },
      {
        name: 'addLayerNorm',
        shapes: [shape, shape, [n], [n]],
        reference: (x, r, w, b) => {
          const sum = ref.broadcast(x, r, (p, q) => p + q)
          return ref.broadcast(ref.norm(sum, w, b, 1e-2, true), sum, (p, q) => p + q)
        },
        run: (x, r, w, b) => {
          const { y, sum } = ops.addLayerNorm(x, r, w, b, 1e-2)
          const both = ops.add(y, sum)
          y.dispose()
          sum.dispose()
          return both
        },
      },
    ]
  }),
  ...(
    [
      [1, 1, 1, 1, 1, 3],
      [2, 5, 5, 4, 2, 8],
      [1, 3, 7, 2, 1, 5],
      [1, 70, 70, 2, 2, 4],
    ] as const
  ).flatMap(([b, tq, tk, h, kv, d]) =>
    [true, false].map(
      (causal): Case => ({
        name: `attention ${causal}`,
        shapes: [
          [b, tq, h * d],
          [b, tk, kv * d],
          [b, tk, kv * d],
        ],
        gradients: tq < 70,
        reference: (q, k, v) => ref.attention(q, k, v, h, kv, causal),
        run: (q, k, v) => ops.attention(q, k, v, { numHeads: h, numKeyValueHeads: kv, causal }),
      }),
    ),
  ),
  {
    name: 'packedAttention',
    shapes: [[2, 6, 3 * 8]],
    reference: (x) => {
      const part = (i: number) =>
        ref.array([2, 6, 8], (index) => x.data[Math.floor(index / 8) * 24 + i * 8 + (index % 8)] as number)
      return ref.attention(part(0), part(1), part(2), 2, 2, true)
    },
    run: (x) => ops.packedAttention(x, { numHeads: 2 }),
  },
  {
    name: 'rotary',
    shapes: [[2, 5, 3 * 6]],
    reference: (x) => ref.rotary(x, 3, 4),
    run: (x) => {
      const table = tensor(
        Float32Array.from(
          ref.array([16, 6], (index) => {
            const [at, c] = [Math.floor(index / 6), index % 6]
            const angle = at * 10000 ** ((-2 * (c % 3)) / 6)
            return c < 3 ? Math.cos(angle) : Math.sin(angle)
          }).data,
        ),
        [16, 6],
      )
      const y = ops.rotary(x, table, 3, 4)
      table.dispose()
      return y
    },
  },
  {
    name: 'embedding',
    shapes: [[7, 5]],
    reference: (w) => ref.rows(w, [3, 0, 3, 6], [2, 2]),
    run: (w) => withIds([3, 0, 3, 6], (i) => ops.embedding(w, i), [2, 2]),
  },
  {
    name: 'gather',
    shapes: [[6, 3, 2]],
    reference: (x) => ref.rows(x, [5, 1, 1], [3]),
    run: (x) => withIds([5, 1, 1], (i) => ops.gather(x, i)),
  },
  {
    name: 'crossEntropy',
    shapes: [[4, 9]],
    reference: (x) => ref.crossEntropy(x, [8, 0, -100, 3]),
    run: (x) => withIds([8, 0, -100, 3], (i) => ops.crossEntropy(x, i)),
  },
  ...[2 ** 28, 40].map(
    (logitBytes): Case => ({
      name: `linearCrossEntropy ${logitBytes}`,
      shapes: [
        [5, 6],
        [11, 6],
      ],
      reference: (x, w) => ref.crossEntropy(ref.matmul(x, ref.transpose2d(w)), [10, 0, 4, 4, 7]),
      run: (x, w) => withIds([10, 0, 4, 4, 7], (i) => ops.linearCrossEntropy(x, w, i, { logitBytes })),
    }),
  ),
  {
    name: 'sum',
    shapes: [[13, 3]],
    reference: (x) => ref.array([], () => x.data.reduce((a, b) => a + b, 0)),
    run: ops.sum,
  },
  {
    name: 'mean',
    shapes: [[13, 3]],
    reference: (x) => ref.array([], () => x.data.reduce((a, b) => a + b, 0) / 39),
    run: ops.mean,
  },
  {
    name: 'meanSquaredError',
    shapes: [
      [4, 3],
      [4, 3],
    ],
    dtypes: ['f32'],
    reference: (x, y) =>
      ref.array([], () => ref.broadcast(x, y, (p, q) => (p - q) ** 2).data.reduce((a, b) => a + b, 0) / 12),
    run: ops.meanSquaredError,
  },
  {
    name: 'permute',
    shapes: [[2, 3, 4, 5]],
    reference: (x) => ref.permute(x, [2, 0, 3, 1]),
    run: (x) => ops.permute(x, [2, 0, 3, 1]),
  },
  { name: 'transpose', shapes: [[3, 5]], reference: ref.transpose2d, run: (x) => ops.transpose(x) },
  {
    name: 'reshape',
    shapes: [[6, 4]],
    reference: (x) => ({ shape: [3, 8], data: x.data }),
    run: (x) => ops.reshape(x, [3, -1]),
  },
  {
    name: 'slice',
    shapes: [[3, 5, 2]],
    reference: (x) => ref.array([3, 2, 2], (i) => x.data[Math.floor(i / 4) * 10 + 2 + (i % 4)] as number),
    run: (x) => ops.slice(x, 1, 1, 3),
  },
  {
    name: 'concat',
    shapes: [
      [2, 3],
      [2, 1],
    ],
    reference: (a, b) =>
      ref.array(
        [2, 4],
        (i) => (i % 4 < 3 ? a.data[Math.floor(i / 4) * 3 + (i % 4)] : b.data[Math.floor(i / 4)]) as number,
      ),
    run: (a, b) => ops.concat([a, b], 1),
  },
]

for (const test of cases) {
  for (const dtype of test.dtypes ?? (['f32', 'bf16', 'f16'] as const)) {
    t.test(`${test.name} ${JSON.stringify(test.shapes)} ${dtype}`, (t) => compare(t, test, dtype))
  }
}

t.test('empty tensors give empty results', async (t) => {
  const none = tensor(new Float32Array(0), [0, 4])
  const weight = tensor(new Float32Array(12), [3, 4])
  t.strictSame(ops.gelu(none).shape, [0, 4])
  t.strictSame(ops.add(none, none).shape, [0, 4])
  t.strictSame(ops.linear(none, weight).shape, [0, 3])
  t.strictSame(ops.softmax(none).shape, [0, 4])
  t.equal(await ops.sum(none).item(), 0)
  const inner = ops.matmul(tensor(new Float32Array(0), [2, 0]), tensor(new Float32Array(0), [0, 3]))
  t.strictSame([...(await inner.data())], [0, 0, 0, 0, 0, 0], 'a sum over nothing is 0')
})

t.test('topK finds the largest, equal values by lower index', async (t) => {
  const { values, ids: at } = ops.topK(tensor([1, 5, 3, 5, 2, 9], [2, 3]), 2)
  t.strictSame([...(await values.data())], [5, 3, 9, 5])
  t.strictSame([...(await at.data())], [1, 2, 2, 0])
})

t.test('results of views that begin anywhere are the same', async (t) => {
  const all = tensor(Float32Array.from({ length: 200 }, (_, i) => Math.sin(i)))
  for (const offset of [0, 1, 3, 7]) {
    const part = all.view([33], offset)
    const expected = Array.from({ length: 33 }, (_, i) =>
      Math.fround(ref.functions.silu?.(Math.fround(Math.sin(i + offset))) as number),
    )
    const actual = (await ops.silu(part).data()) as Float32Array
    t.ok(
      expected.every((value, i) => Math.abs(value - (actual[i] as number)) < 1e-6),
      `offset ${offset}`,
    )
  }
  t.ok(ids(1).count === 1)
})

// The public gradient check on every differentiable operation, in f32 at small sizes: none may be left out.

import t from 'tap'
import { checkpoint, customFunction } from '../../lib/autograd/functions.js'
import { gradCheck } from '../../lib/autograd/gradient-check.js'
import { binding } from '../../lib/binding/native.js'
import * as nn from '../../lib/nn/index.js'
import * as ops from '../../lib/ops/index.js'
import { tidy } from '../../lib/tensor/scope.js'
import { type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'
import { random } from '../reference/ops.js'

binding().native.configure({ threads: 1, serial: false })

interface Check {
  shapes: number[][]
  run(...inputs: Tensor[]): Tensor
  /** Values lie in [low, high). */
  low?: number
  high?: number
}
const ids = (...values: number[]): Tensor => tensor(Int32Array.from(values))
const unary = (name: 'exp', more: object = {}): Check => ({ shapes: [[2, 3]], run: (x) => ops[name](x), ...more })
const positive = { low: 0.6, high: 2 }
const table = (): Tensor =>
  tensor(
    Float32Array.from({ length: 24 }, (_, i) =>
      (i % 4 < 2 ? Math.cos : Math.sin)((Math.floor(i / 4) * ((i % 2) + 1)) / 2),
    ),
    [6, 4],
  )

const checks: Record<keyof typeof ops, Check[] | 'has no gradient'> = {
  add: [{ shapes: [[2, 3], [3]], run: ops.add }],
  sub: [
    {
      shapes: [
        [2, 1],
        [2, 3],
      ],
      run: ops.sub,
    },
  ],
  mul: [{ shapes: [[2, 3], []], run: ops.mul }],
  div: [{ shapes: [[2, 3], [3]], run: ops.div, ...positive }],
  affine: [{ shapes: [[4]], run: (x) => ops.affine(x, -2, 3) }],
  scale: [{ shapes: [[4]], run: (x) => ops.scale(x, 0.5) }],
  ...(Object.fromEntries(
    (['gelu', 'geluTanh', 'silu', 'tanh', 'sigmoid', 'exp', 'square'] as const).map((name) => [
      name,
      [unary(name as 'exp')],
    ]),
  ) as Record<'gelu' | 'geluTanh' | 'silu' | 'tanh' | 'sigmoid' | 'exp' | 'square', Check[]>),
  relu: [unary('relu' as 'exp', positive), unary('relu' as 'exp', { low: -2, high: -0.6 })],
  abs: [unary('abs' as 'exp', positive), unary('abs' as 'exp', { low: -2, high: -0.6 })],
  log: [unary('log' as 'exp', positive)],
  sqrt: [unary('sqrt' as 'exp', positive)],
  reciprocal: [unary('reciprocal' as 'exp', positive)],
  swiglu: [
    {
      shapes: [
        [2, 3],
        [2, 3],
      ],
      run: ops.swiglu,
    },
  ],
  attention: [
    {
      shapes: [
        [1, 3, 8],
        [1, 4, 4],
        [1, 4, 4],
      ],
      run: (q, k, v) => ops.attention(q, k, v, { numHeads: 2, numKeyValueHeads: 1 }),
    },
    {
      shapes: [
        [2, 3, 2],
        [2, 3, 2],
        [2, 3, 2],
      ],
      run: (q, k, v) =>
        ops.attention(q, k, v, { numHeads: 1, causal: false, scale: 2, dropout: { p: 0.3, site: 'a' } }),
    },
  ],
  packedAttention: [{ shapes: [[1, 3, 12]], run: (x) => ops.packedAttention(x, { numHeads: 2 }) }],
  rotary: [{ shapes: [[1, 3, 8]], run: (x) => ops.rotary(x, table(), 2, 1) }],
  embedding: [{ shapes: [[4, 3]], run: (w) => ops.embedding(w, ids(3, 0, 3)) }],
  gather: [{ shapes: [[4, 2]], run: (x) => ops.gather(x, ids(1, 1, 3)) }],
  reshape: [{ shapes: [[2, 3]], run: (x) => ops.reshape(x, [3, -1]) }],
  cast: [{ shapes: [[3]], run: (x) => ops.cast(x, 'f32') }],
  permute: [{ shapes: [[2, 3, 2]], run: (x) => ops.permute(x, [1, 2, 0]) }],
  transpose: [{ shapes: [[2, 3]], run: (x) => ops.transpose(x) }],
  slice: [{ shapes: [[3, 4]], run: (x) => ops.slice(x, 1, 1, 3) }],
  concat: [
    {
      shapes: [
        [2, 2],
        [2, 1],
      ],
      run: (a, b) => ops.concat([a, b, a], 1),
    },
  ],
  sum: [{ shapes: [[2, 3]], run: ops.sum }],
  mean: [{ shapes: [[2, 3]], run: ops.mean }],
  topK: 'has no gradient',
  matmul: [
    {
      shapes: [
        [2, 3, 2],
        [2, 2, 3],
      ],
      run: ops.matmul,
    },
    {
      shapes: [
        [2, 3, 2],
        [2, 3],
      ],
      run: ops.matmul,
    },
  ],
  linear: [
    { shapes: [[3, 4], [2, 4], [2]], run: (x, w, b) => ops.linear(x, w, b) },
    {
      shapes: [
        [3, 4],
        [4, 2],
      ],
      run: (x, w) => ops.linear(x, w, undefined, { inFirst: true, activation: 'gelu' }),
    },
    { shapes: [[3, 4], [2, 4], [2]], run: (x, w, b) => ops.linear(x, w, b, { activation: 'geluTanh' }) },
  ],
  softmax: [{ shapes: [[2, 4]], run: ops.softmax }],
  logSoftmax: [{ shapes: [[2, 4]], run: ops.logSoftmax }],
  meanSquaredError: [
    {
      shapes: [
        [2, 3],
        [2, 3],
      ],
      run: ops.meanSquaredError,
    },
  ],
  crossEntropy: [{ shapes: [[3, 4]], run: (x) => ops.crossEntropy(x, ids(3, -100, 0)) }],
  linearCrossEntropy: [2 ** 20, 16].map((logitBytes) => ({
    shapes: [
      [3, 2],
      [4, 2],
    ],
    run: (x, w) => ops.linearCrossEntropy(x, w, ids(3, 1, 1), { logitBytes }),
  })),
  layerNorm: [{ shapes: [[2, 4], [4], [4]], run: (x, w, b) => ops.layerNorm(x, w, b, 0.1) }],
  rmsNorm: [{ shapes: [[2, 4], [4]], run: (x, w) => ops.rmsNorm(x, w, 0.1) }],
  addLayerNorm: [
    {
      shapes: [[2, 4], [2, 4], [4], [4]],
      run: (x, r, w, b) => {
        const { y, sum } = ops.addLayerNorm(x, r, w, b, 0.1)
        return ops.concat([y, sum], 0)
      },
    },
  ],
  addRmsNorm: [
    {
      shapes: [[2, 4], [2, 4], [4]],
      run: (x, r, w) => {
        const { y, sum } = ops.addRmsNorm(x, r, w, 0.1)
        return ops.mul(y, sum)
      },
    },
  ],
  dropout: [{ shapes: [[3, 4]], run: (x) => ops.dropout(x, 0.4) }],
}

const next = random(5)
async function check(test: Check): Promise<{ worst: number; compared: number }> {
  const { low = -1.5, high = 1.5 } = test
  const inputs = test.shapes.map((shape) =>
    tensor(
      Float32Array.from({ length: shape.reduce((p, s) => p * s, 1) }, () => low + (high - low) * next()),
      shape,
    ),
  )
  try {
    return await gradCheck((...given) => tidy(() => test.run(...given)), inputs)
  } finally {
    for (const input of inputs) input.dispose()
  }
}

for (const [name, list] of Object.entries(checks)) {
  if (typeof list === 'string') continue
  t.test(name, async (t) => {
    const before = alive()
    for (const test of list) {
      const { worst, compared } = await check(test)
      t.ok(worst < 1e-3 && compared > 0, `${JSON.stringify(test.shapes)}: ${worst}`)
    }
    t.equal(alive(), before, 'nothing is left')
  })
}

t.test('every exported operation is in the table', async (t) => {
  t.strictSame(Object.keys(checks).sort(), Object.keys(ops).sort())
})

t.test('custom functions, checkpoints and modules', async (t) => {
  const before = alive()
  const power = (x: Tensor): Tensor =>
    customFunction(
      'power',
      [x],
      () => {
        const squared = ops.square(x)
        return { result: ops.mul(squared, squared), saved: [squared] }
      },
      ([dy]) => [dy && ops.mul(dy, ops.scale(ops.mul(ops.square(x), x), 4))],
      [x],
    )
  const mlp = new nn.Sequential(
    new nn.Linear(3, 4, { activation: 'gelu' }),
    new nn.LayerNorm(4, 0.1),
    new nn.Dropout(0.5),
  )
  mlp.materialize({ seed: 3 })
  mlp.visit(() => {})
  const { worst } = await check({ shapes: [[2, 3]], run: power })
  t.ok(worst < 1e-3, `custom: ${worst}`)
  for (const run of [(x: Tensor) => mlp.forward(x), (x: Tensor) => checkpoint((y) => mlp.forward(power(y)), x)]) {
    const found = await check({ shapes: [[2, 3]], run })
    t.ok(found.worst < 1e-3, `module: ${found.worst}`)
  }
  for (const { tensor } of mlp.parameters()) {
    tensor.grad?.dispose()
    tensor.grad = undefined
  }
  mlp.dispose()
  t.equal(alive(), before, 'nothing is left')
})

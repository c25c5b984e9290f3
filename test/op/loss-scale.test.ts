// A loss in f16 whose gradient per logit is far below what f16 can hold: many rows, a flat distribution. The scale of the
// loss must reach the gradient before it is rounded, and a scale that f16 cannot hold must not become infinite.

import t from 'tap'
import { backwardFrom } from '../../lib/autograd/functions.js'
import * as ops from '../../lib/ops/index.js'
import { type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { random } from '../reference/ops.js'

const [rows, vocabulary, width] = [4096, 3000, 8]
const scale = 65536
const next = random(5)
const values = (count: number, size: number): Float32Array =>
  Float32Array.from({ length: count }, () => size * (2 * next() - 1))
const targets = tensor(Int32Array.from({ length: rows }, (_, row) => (row * 7) % 11))
const hidden = values(rows * width, 1)
const weights = values(vocabulary * width, 0.5)

/** Gradients of x, and of the weights of tokens that are no target, unscaled. */
async function gradients(dtype: 'f32' | 'f16', loss: (x: Tensor, w: Tensor) => Tensor): Promise<number[][]> {
  const x = ops.cast(tensor(hidden, [rows, width]), dtype)
  const w = ops.cast(tensor(weights, [vocabulary, width]), dtype)
  for (const leaf of [x, w]) leaf.requiresGrad = true
  backwardFrom(loss(x, w), scale)
  return Promise.all(
    [x, w].map(async (leaf) => {
      const data = await ops.cast(leaf.grad as Tensor, 'f32').data()
      const values = Array.from(data as Float32Array, (value) => value / scale)
      return leaf === w ? values.slice(11 * width) : values
    }),
  )
}

const losses: Record<string, (x: Tensor, w: Tensor) => Tensor> = {
  'linearCrossEntropy, whole': (x, w) => ops.linearCrossEntropy(x, w, targets),
  'linearCrossEntropy, in chunks': (x, w) => ops.linearCrossEntropy(x, w, targets, { logitBytes: 2 ** 22 }),
  crossEntropy: (x, w) => ops.crossEntropy(ops.linear(x, w), targets),
}

for (const [name, loss] of Object.entries(losses)) {
  t.test(`${name}: gradients in f16 are those of f32, rounded`, async (t) => {
    const expected = await gradients('f32', loss)
    const actual = await gradients('f16', loss)
    for (const [index, leaf] of ['x', 'weights'].entries()) {
      const [got, want] = [actual[index] as number[], expected[index] as number[]]
      const error = Math.hypot(...got.map((value, i) => value - (want[i] as number))) / Math.hypot(...want)
      t.ok(error < 0.01, `${leaf}: relative error ${error}`)
    }
  })
}

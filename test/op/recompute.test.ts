// Recomputed activations: the same bits, dropout included, and less memory.

import t from 'tap'
import { backwardFrom, checkpoint } from '../../lib/autograd/functions.js'
import { binding } from '../../lib/binding/native.js'
import { createModel, type Recompute } from '../../lib/nn/models/index.js'
import * as ops from '../../lib/ops/index.js'
import { beginDraws } from '../../lib/ops/random.js'
import { memory } from '../../lib/tensor/memory.js'
import { tidy } from '../../lib/tensor/scope.js'
import { type DType, type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive, sameBits } from '../helpers/compare.js'

binding().native.configure({ threads: 2, serial: false })

const [B, T, C, layers] = [2, 24, 32, 6]
const configs = {
  gpt2: {
    model_type: 'gpt2',
    n_layer: layers,
    n_head: 4,
    n_embd: C,
    n_positions: T,
    vocab_size: 61,
    resid_pdrop: 0.2,
    embd_pdrop: 0.1,
    attn_pdrop: 0.3,
  },
  llama: {
    model_type: 'llama',
    num_hidden_layers: layers,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    hidden_size: C,
    intermediate_size: 48,
    max_position_embeddings: T,
    vocab_size: 61,
    attention_dropout: 0.3,
  },
}

interface Run {
  loss: number
  gradients: Map<string, Float32Array>
  /** Highest bytes of activations, in forward and backward together, above what lived before. */
  peak: number
}

function train(config: Record<string, unknown>, recompute: Recompute, dtype: DType): Run {
  const model = createModel(config).materialize({ seed: 4, dtype })
  model.recompute = recompute
  beginDraws({ seed: 11, step: 3, firstSample: 0, forward: 0 })
  const ids = Int32Array.from({ length: B * T }, (_, i) => (i * 7 + 3) % 61)
  const [inputs, targets] = [0, 1].map((shift) =>
    tensor(
      ids.map((id) => (id + shift) % 61),
      [B, T],
    ),
  ) as [Tensor, Tensor]
  const before = memory.stats().live.activations
  memory.resetPeak()
  const loss = model.forward(inputs, targets)
  backwardFrom(loss)
  const peak = memory.stats().peak.activations - before
  const gradients = new Map(
    [...model.namedParameters()].map(([name, { tensor }]) => [name, tensor.grad?.dataSync() as Float32Array]),
  )
  const value = Number(loss.dataSync()[0])
  for (const tensor of [loss, inputs, targets]) tensor.dispose()
  model.dispose()
  return { loss: value, gradients, peak }
}

for (const [family, config] of Object.entries(configs)) {
  for (const dtype of ['f32', 'bf16'] as const) {
    t.test(`${family} ${dtype}: every way of recomputing gives the loss and gradients of none`, async (t) => {
      const before = alive()
      const plain = train(config, { groups: 0, attention: false }, dtype)
      t.ok(plain.loss > 3 && plain.loss < 6, `loss ${plain.loss}`)
      const ways: Recompute[] = [
        ...[1, 2, 3, 4, 6, 99].map((groups) => ({ groups, attention: false })),
        { groups: 0, attention: true },
        { groups: 2, attention: true },
      ]
      for (const way of ways) {
        const again = train(config, way, dtype)
        t.equal(again.loss, plain.loss, `${JSON.stringify(way)}: loss`)
        for (const [name, gradient] of plain.gradients) {
          if (!sameBits(again.gradients.get(name), gradient)) t.fail(`${JSON.stringify(way)}: gradient of ${name}`)
        }
      }
      t.equal(alive(), before, 'nothing is left')
    })
  }

  t.test(`${family}: memory falls as the groups say`, async (t) => {
    const peak = (groups: number, attention = false): number => train(config, { groups, attention }, 'f32').peak
    const all = peak(0)
    const [one, two, three, six] = [1, 2, 3, 6].map((groups) => peak(groups)) as [number, number, number, number]
    const selective = peak(0, true)
    // From groups of three blocks to groups of two: one block less, one input more.
    const input = B * T * C * 4
    const block = two - three + input
    t.comment(`none ${all}, groups 1 ${one}, 2 ${two}, 3 ${three}, 6 ${six}, selective ${selective}, block ${block}`)
    t.ok(six < three && three < two && two < one, 'more groups, less memory')
    t.ok(one <= all * 1.05, 'one group is no more than none')
    t.ok(six < 0.45 * all, `${six} of ${all}`)
    t.ok(Math.abs(one - two - (3 * block - input)) < 2 * input, 'from one group to two: three blocks less')
    t.ok(selective < all - layers * 3 * input, `${selective} of ${all}`)
    t.ok(selective > six, 'selective keeps the rest of each block')
  })
}

t.test(
  'a checkpoint within a checkpoint, draws with and without names, a parameter used inside and outside',
  async (t) => {
    const before = alive()
    const run = (outer: boolean, inner: boolean): { y: Float32Array; dw: Float32Array; dx: Float32Array } =>
      tidy(() => {
        beginDraws({ seed: 2, step: 1, firstSample: 0, forward: 0 })
        const w = tensor(
          Float32Array.from({ length: 16 }, (_, i) => Math.sin(i)),
          [4, 4],
        )
        const x = tensor(
          Float32Array.from({ length: 12 }, (_, i) => Math.cos(i)),
          [3, 4],
        )
        let complete = 0
        w.onGradient = () => complete++
        for (const leaf of [w, x]) leaf.requiresGrad = true
        const part = (a: Tensor): Tensor => ops.tanh(ops.dropout(ops.dropout(ops.linear(a, w), 0.3), 0.2, 'named'))
        const whole = (a: Tensor): Tensor => ops.dropout(part(inner ? checkpoint(part, a) : part(a)), 0.5)
        const y = ops.linear(outer ? checkpoint(whole, x) : whole(x), w)
        const after = ops.dropout(y, 0.5)
        // Other micro-batches may run before this one's backward.
        beginDraws({ seed: 2, step: 2, firstSample: 7, forward: 1 })
        for (const site of [undefined, 'named']) ops.dropout(x, 0.5, site)
        backwardFrom(ops.sum(ops.square(after)))
        t.equal(complete, 1, 'the gradient of w is complete once')
        const result = [after, w.grad as Tensor, x.grad as Tensor].map((tensor) => tensor.dataSync() as Float32Array)
        w.grad?.dispose()
        x.grad?.dispose()
        return { y: result[0], dw: result[1], dx: result[2] } as { y: Float32Array; dw: Float32Array; dx: Float32Array }
      })
    const plain = run(false, false)
    for (const [outer, inner] of [
      [true, false],
      [false, true],
      [true, true],
    ] as const) {
      const again = run(outer, inner)
      t.ok(sameBits(again.y, plain.y) && sameBits(again.dx, plain.dx), `${outer} ${inner}`)
      // The uses of w are added in another order where one of them is deferred.
      const gap = Math.max(...again.dw.map((value, i) => Math.abs(value - (plain.dw[i] as number))))
      t.ok(gap < 1e-5, `${gap}`)
    }
    t.equal(alive(), before, 'nothing is left')
  },
)

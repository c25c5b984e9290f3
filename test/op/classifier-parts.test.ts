// classifier_part and classifier_merge: cross entropy of logits whose columns are cut into parts, one of them empty,
// against float64; parts that are all on one process stand for the ranks'.

import t from 'tap'
import { record } from '../../lib/autograd/tape.js'
import * as ops from '../../lib/ops/index.js'
import { tidy } from '../../lib/tensor/scope.js'
import { empty, runOp, type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { type Case, compare } from '../helpers/compare.js'
import * as ref from '../reference/ops.js'

const cuts = [0, 4, 4, 5, 9]

/** Mean over all rows but those with target -100 counted as zeros. */
function inParts(x: Tensor, list: readonly number[]): Tensor {
  return tidy(() => {
    const [rows, columns] = x.shape as [number, number]
    const targets = tensor(Int32Array.from(list), [rows])
    const scored = list.filter((target) => target !== -100).length
    const all = empty([cuts.length - 1, rows, 3])
    const parts = cuts.slice(1).map((end, index) => {
      const start = cuts[index] as number
      const logits = ops.slice(x, 1, start, end)
      const stats = all.view([rows, 3], index * rows * 3)
      runOp('classifier_part', [stats], [logits, targets], [rows, end - start, -100, start, columns])
      return logits
    })
    const losses = empty([rows])
    parts.forEach((logits, index) => {
      const width = logits.shape[1] as number
      const scalars = [rows, width, -100, cuts[index] as number, parts.length, 1, 1 / scored]
      runOp('classifier_merge', [logits, losses], [targets, all], scalars)
    })
    const gradient = ops.concat(parts, 1)
    const loss = empty([])
    runOp('reduce', [loss], [losses], [1, rows, 1, 0, 0, 1 / scored])
    record('inParts', [loss], [x], [gradient], ([dy]) => {
      if (!dy) return []
      const dx = empty(x.shape, { dtype: x.dtype })
      const factor = ops.cast(dy, x.dtype)
      runOp('binary', [dx], [gradient, factor], [2])
      return [dx]
    })
    return loss
  })
}

const cases: Case[] = [
  [8, 0, 4, 3],
  [5, 5, 1, 7],
].map((targets) => ({
  name: `classifier in parts ${targets}`,
  shapes: [[4, 9]],
  low: -20,
  high: 20,
  reference: (x) => ref.crossEntropy(x, targets),
  run: (x) => inParts(x, targets),
}))

for (const test of cases)
  for (const dtype of ['f32', 'bf16', 'f16'] as const) t.test(`${test.name} ${dtype}`, (t) => compare(t, test, dtype))

t.test('ignored rows have no loss', async (t) => {
  const x = tensor(
    new Float32Array(18).map((_, i) => i % 5),
    [2, 9],
  )
  const loss = ops.mul(inParts(x, [3, -100]), tensor([2], []))
  const [value] = (await loss.data()) as Float32Array
  const row = Array.from({ length: 9 }, (_, i) => i % 5)
  const lse = Math.log(row.reduce((sum, v) => sum + Math.exp(v), 0))
  t.ok(Math.abs((value as number) / 2 - (lse - 3)) < 1e-5, String(value))
  x.dispose()
  loss.dispose()
})

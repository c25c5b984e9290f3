// Rows of a table by token id.

import { record } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'
import { checkDType, checkFloat } from './check.js'

/**
 * table (V, C) by ids i32 (…) → (…, C). Where the table has rows [first, first + V) of a larger one of `full` rows,
 * other ids give zeros.
 * @throws ARGUMENT, at the next wait, where an id is outside [0, full).
 * @example
 * ops.embedding(tensor([1, 2, 3, 4], [2, 2]), tensor(Int32Array.of(1, 0))) // [3, 4, 1, 2]
 */
export function embedding(table: Tensor, ids: Tensor, first = 0, full = first + (table.shape[0] ?? 0)): Tensor {
  checkFloat('embedding', table)
  checkDType('embedding', ids, 'i32')
  if (table.shape.length !== 2)
    throw new ZeroshardError('SHAPE', `[embedding] the table must be (V, C), got ${table.describe()}`)
  const [v, c] = table.shape as [number, number]
  const scalars = [ids.count, c, first, v]
  const y = empty([...ids.shape, c], { dtype: table.dtype })
  runOp('embedding_forward', [y], [table, ids], [...scalars, full])
  record('embedding', [y], [table], [ids], ([dy], context) => {
    if (!dy) return []
    const sink = context.sink(0)
    const wide = sink ?? empty(table.shape, { zero: true })
    runOp('embedding_backward', [wide], [dy, ids], scalars)
    if (sink) return [undefined]
    if (!table.producer || table.dtype === 'f32') return [wide]
    const narrow = empty(table.shape, { dtype: table.dtype })
    runOp('cast', [narrow], [wide])
    return [narrow]
  })
  return y
}

// The garbage collector's backstop must not become a leak of its own.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { tensor } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

t.test('a long-lived tensor that every step holds costs no memory per step', async (t) => {
  const before = alive()
  const parameter = tensor([1, 2, 3])
  const steps = (count: number): void => {
    for (let i = 0; i < count; i++) parameter.hold().unhold()
  }
  steps(10_000)
  collect()
  const start = process.memoryUsage().heapUsed
  steps(100_000)
  await new Promise(setImmediate)
  collect()
  const grown = process.memoryUsage().heapUsed - start
  t.ok(grown < 1e6, `the heap grew by ${grown} bytes`)
  parameter.dispose()
  t.equal(alive(), before)
})

// One rank of test/ranks/tensor.test.ts: the gradient of each collective on the tape against differences of a loss over
// all ranks. Prints one JSON line (rank 0): what failed, the number of checks, the live tensors left.

import { joinWorld, leaveWorld } from '../../../dist/engine/initialize.js'
import { backwardFrom, memory, noGrad, ops, tensor, tidy } from '../../../dist/index.js'
import {
  allGather,
  allReduce,
  allToAll,
  gather,
  identity,
  reduceScatter,
  scatter,
} from '../../../dist/parallel/index.js'
import { close, expect, failed } from './helpers.mjs'

const world = await joinWorld()
const { group } = world
const { rank, size } = group
const before = memory.stats().tensors

const shape = [2, 2 * size, 3]
const count = shape.reduce((a, b) => a * b, 1)
const sine = (salt, length) => Float32Array.from({ length }, (_, i) => Math.sin(i * 0.7 + salt))

/** Name, the operation, whether all ranks have the same input, and the same output. */
const cases = [
  ['identity', (x) => identity(x, group), true, false],
  ['allReduce', (x) => allReduce(x, group), false, true],
  ...[0, 1, 2, -1].map((dim) => [`allGather ${dim}`, (x) => allGather(x, dim, group), false, false]),
  ...[1].map((dim) => [`reduceScatter ${dim}`, (x) => reduceScatter(x, dim, group), false, false]),
  ['scatter', (x) => scatter(x, 1, group), true, false],
  ...[0, 1].map((dim) => [`gather ${dim}`, (x) => gather(x, dim, group), false, true]),
  ['allToAll 1 2', (x) => allToAll(x, 1, 2, group), false, false],
  ['allToAll 1 0', (x) => allToAll(x, 1, 0, group), false, false],
]

for (const [name, run, sameInput, sameOutput] of cases) {
  const values = sine(sameInput ? 0 : rank, count)
  /** The sum over ranks of <c, y>; of one rank where all have the same y. */
  const loss = (x) =>
    tidy(() => {
      const y = run(x)
      return ops.sum(ops.mul(y, tensor(sine(sameOutput ? 9 : 9 + rank, y.count), [...y.shape])))
    })
  const total = async (x) => {
    const own = noGrad(() => loss(x))
    const summed = tensor(await own.data(), [1])
    own.dispose()
    if (!sameOutput) group.allReduce(summed)
    const [value] = await summed.data()
    summed.dispose()
    return value
  }
  const x = tensor(values, shape)
  x.requiresGrad = true
  const l = loss(x)
  backwardFrom(l)
  l.dispose()
  const slopes = new Float32Array(count)
  const base = await total(x)
  for (let owner = 0; owner < (sameInput ? 1 : size); owner++) {
    for (let i = 0; i < count; i++) {
      const moved = Float32Array.from(values)
      if (sameInput || owner === rank) moved[i] += 1
      const other = tensor(moved, shape)
      const slope = (await total(other)) - base
      other.dispose()
      if (sameInput || owner === rank) slopes[i] = slope
    }
  }
  close(`${name}: gradient`, await x.grad.data(), slopes, 2e-5)
  x.grad.dispose()
  x.dispose()
}

// What does not fit is refused on every rank, before anything is sent.
const x = tensor(new Float32Array(size * 2 + 1), [size * 2 + 1])
for (const [name, run, pattern] of [
  ['reduceScatter', () => reduceScatter(x, 0, group), /not divisible by group size/],
  ['scatter', () => scatter(x, 0, group), /pad it to/],
  ['allToAll', () => allToAll(x, 0, 0, group), /must differ/],
  ['allGather', () => allGather(x, 3, group), /dim 3/],
]) {
  try {
    run()
    failed.push(`${name}: nothing was thrown`)
  } catch (error) {
    expect(name, pattern.test(error.message), error.message)
  }
}
expect('alone, the input comes back', allReduce(x, group.alone) === x && allGather(x, 0, group.alone) === x)
x.dispose()

await group.barrier()
expect('nothing is left', memory.stats().tensors === before, `${memory.stats().tensors} of ${before}`)
await leaveWorld(world)
if (failed.length) throw new Error(`rank ${rank}: ${failed.join('; ')}`)
if (rank === 0) console.log(JSON.stringify({ checked: cases.length }))

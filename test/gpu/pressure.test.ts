// The allocator with little room on the device of ZEROSHARD_TEST_DEVICE: running out is an error that leaves all as it
// was, sizes that fit no cached block are found room for, and memory that changes hands between streams keeps its values.

import t from 'tap'
import { binding } from '../../lib/binding/native.js'
import * as ops from '../../lib/ops/index.js'
import { memory } from '../../lib/tensor/memory.js'
import { COMPUTE, COPY, empty, runOp, type Tensor } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'
import { device } from '../helpers/device.js'
import { random } from '../reference/ops.js'

const { native } = binding()
const limit = 64 * 2 ** 20
native.configure({ threads: 2, serial: false, device, memoryLimit: limit })

/** What all elements are, or a difference. */
async function value(x: Tensor): Promise<number> {
  const data = (await x.data()) as Float32Array
  const first = data[0] as number
  return data.every((element) => element === first) ? first : Number.NaN
}

/** Tensors of a size until there is no room for another. */
function fill(elements: number): Tensor[] {
  const held: Tensor[] = []
  for (;;) {
    try {
      held.push(empty([elements]))
    } catch (error) {
      t.match(error, { code: 'OUT_OF_MEMORY', message: /limit/ })
      return held
    }
  }
}

t.test('out of memory is told with what lives, and what was there goes on', async (t) => {
  const before = alive()
  const kept = empty([1000])
  runOp('fill', [kept], [], [7])
  const held = fill(2 ** 20)
  t.ok(held.length >= 14 && held.length <= 16, `${held.length} of 4 MiB`)
  t.throws(() => empty([2 ** 20]), { code: 'OUT_OF_MEMORY', message: /activations/ })
  t.equal(await value(kept), 7)
  for (const x of [...held, kept]) x.dispose()
  t.equal(alive(), before)
})

t.test('room is found for other sizes than those that were there', async (t) => {
  const before = alive()
  for (const elements of [2 ** 20, 3 * 2 ** 18, 2 ** 22, 12_345, 15 * 2 ** 20]) {
    const held = fill(elements)
    const used = held.length * elements * 4
    t.ok(used <= limit && used + elements * 4 > limit - 2 ** 20, `${held.length} of ${elements} elements`)
    for (const x of held) x.dispose()
  }
  t.equal(alive(), before)
})

interface Held {
  x: Tensor
  content: number
}

/** Reads a tensor on one stream and gives it back at once: the next owner's kernels wait for the reader. */
async function replace(held: Held[], index: number, turn: number): Promise<void> {
  const { x, content } = held[index] as Held
  const copy = ops.affine(x, 1, 0)
  held.splice(index, 1)
  x.dispose()
  try {
    if (turn % 10 === 0) t.equal(await value(copy), content, `turn ${turn}`)
  } finally {
    copy.dispose()
  }
}

t.test('what is freed while streams are busy is not overwritten too early', async (t) => {
  const before = alive()
  const next = random(11)
  const held: Held[] = []
  let refused = 0
  for (let turn = 0; turn < 600; turn++) {
    const elements = 1 + Math.floor(next() ** 3 * 3 * 2 ** 20)
    const stream = turn % 3 === 0 ? COPY : COMPUTE
    try {
      const x = empty([elements])
      runOp('fill', [x], [], [turn], stream)
      held.push({ x, content: turn })
      while (held.length > 8 + Math.floor(next() * 16)) await replace(held, Math.floor(next() * held.length), turn)
    } catch (error) {
      t.match(error, { code: 'OUT_OF_MEMORY' })
      refused++
      for (const { x } of held.splice(0, 4)) x.dispose()
    }
  }
  for (const { x, content } of held) {
    t.equal(await value(x), content)
    x.dispose()
  }
  t.ok(refused > 0, `${refused} times there was no room`)
  t.comment(`${memory.stats().reserved} bytes reserved, ${limit} allowed to live`)
  t.equal(alive(), before)
})

// The tape: what is recorded, how often a tensor may be used, who holds what, and what is said where it goes wrong.

import t, { type Test } from 'tap'
import { backwardFrom, checkpoint, customFunction } from '../../lib/autograd/functions.js'
import { gradCheck } from '../../lib/autograd/gradient-check.js'
import { noGrad, withGrad } from '../../lib/autograd/tape.js'
import { binding } from '../../lib/binding/native.js'
import * as ops from '../../lib/ops/index.js'
import { keep, tidy } from '../../lib/tensor/scope.js'
import { type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'

binding().native.configure({ threads: 1, serial: false })

const leaf = (values: number[], shape?: number[]): Tensor => {
  const x = keep(tensor(values, shape))
  x.requiresGrad = true
  return x
}
const numbers = (x: Tensor | undefined): number[] => [...((x as Tensor).dataSync() as Float32Array)]
/** The gradient that `loss` gives to `x`, which is freed. */
function gradient(x: Tensor, loss: () => Tensor): number[] {
  tidy(() => backwardFrom(loss()))
  const values = numbers(x.grad)
  x.grad?.dispose()
  x.grad = undefined
  return values
}
const ends = (t: Test, before: string, ...tensors: Tensor[]): void => {
  for (const x of tensors) {
    x.grad?.dispose()
    x.dispose()
  }
  t.equal(alive(), before, 'nothing is left')
}

t.test('noGrad records nothing and keeps nothing', async (t) => {
  const before = alive()
  const x = leaf([1, 2, 3])
  const y = noGrad(() => tidy(() => ops.sum(ops.square(x))))
  t.notOk(y.requiresGrad)
  t.throws(() => backwardFrom(y), { code: 'AUTOGRAD', message: /noGrad/ })
  t.throws(
    () =>
      noGrad(() => {
        throw new Error('inside')
      }),
    /inside/,
  )
  const z = tidy(() => ops.sum(x))
  t.ok(z.requiresGrad, 'recording goes on after a throw inside noGrad')
  backwardFrom(z)
  ends(t, before, x, y, z)
})

t.test('a tensor used twice gets both gradients, in one operation too', async (t) => {
  const before = alive()
  const x = leaf([1, -2, 3])
  t.strictSame(
    gradient(x, () => ops.sum(ops.mul(x, x))),
    [2, -4, 6],
  )
  t.strictSame(
    gradient(x, () => ops.sum(ops.add(x, x))),
    [2, 2, 2],
  )
  t.strictSame(
    gradient(x, () => ops.sum(ops.sub(x, x))),
    [0, 0, 0],
  )
  const middle = (): Tensor => {
    const y = ops.scale(x, 3)
    return ops.sum(ops.add(ops.mul(y, y), ops.concat([y], 0)))
  }
  t.strictSame(
    gradient(x, middle),
    [1, -2, 3].map((v) => 18 * v + 3),
    'a result used three times',
  )
  ends(t, before, x)
})

t.test('gradients of several backwards add up; a completed leaf says so once', async (t) => {
  const before = alive()
  const x = leaf([1, 2])
  let complete = 0
  x.onGradient = () => complete++
  for (let i = 1; i <= 3; i++) {
    tidy(() => backwardFrom(ops.sum(ops.add(ops.square(x), ops.mul(x, x)))))
    t.strictSame(numbers(x.grad), [4 * i, 8 * i])
    t.equal(complete, i)
  }
  ends(t, before, x)
})

t.test('scale multiplies, and only leaves that want a gradient get one', async (t) => {
  const before = alive()
  const [x, frozen] = [leaf([1, 2]), leaf([5, 6])]
  frozen.requiresGrad = false
  tidy(() => backwardFrom(ops.sum(ops.mul(x, frozen)), 0.5))
  t.strictSame(numbers(x.grad), [2.5, 3])
  t.equal(frozen.grad, undefined)
  ends(t, before, x, frozen)
})

t.test('views in the graph (reshape, slice, permute) carry gradients; view() does not', async (t) => {
  const before = alive()
  const x = leaf([1, 2, 3, 4, 5, 6], [2, 3])
  const weights = keep(tensor([1, 10, 100, 1000, 10000, 100000]))
  t.strictSame(
    gradient(x, () => ops.sum(ops.mul(ops.reshape(ops.reshape(x, [3, 2]), [6]), weights))),
    [1, 10, 100, 1000, 10000, 100000],
  )
  t.strictSame(
    gradient(x, () => ops.sum(ops.mul(ops.reshape(ops.transpose(x), [6]), weights))),
    [1, 100, 10000, 10, 1000, 100000],
  )
  t.strictSame(
    gradient(x, () => ops.add(ops.sum(ops.slice(x, 1, 1, 3)), ops.sum(ops.reshape(x, [-1])))),
    [1, 2, 2, 1, 2, 2],
    'a view and a part of the same tensor',
  )
  const view = x.view([6])
  t.notOk(view.requiresGrad)
  t.throws(() => tidy(() => backwardFrom(ops.sum(view))), { code: 'AUTOGRAD' })
  // A reshaped result whose source is disposed before backward: they share memory.
  const loss = tidy(() => {
    const y = ops.square(x)
    const flat = ops.reshape(y, [6])
    y.dispose()
    return ops.sum(ops.square(flat))
  })
  backwardFrom(loss)
  t.strictSame(
    numbers(x.grad),
    [1, 2, 3, 4, 5, 6].map((v) => 4 * v ** 3),
  )
  ends(t, before, x, weights, view, loss)
})

t.test('backward twice, of no scalar, of nothing, of a disposed loss: each has its error', async (t) => {
  const before = alive()
  const x = leaf([1, 2])
  const y = ops.square(x)
  t.throws(() => backwardFrom(y), { code: 'AUTOGRAD', message: /scalar.*\[2\]/ })
  const [one, two] = [ops.sum(y), ops.mean(y)]
  backwardFrom(one)
  t.throws(() => backwardFrom(one), { code: 'AUTOGRAD', message: /graph of sum was already used/ })
  t.throws(() => backwardFrom(two), { code: 'AUTOGRAD', message: /graph of square was already used/ }, 'a shared part')
  t.strictSame(numbers(x.grad), [2, 4], 'nothing was added by what failed')
  const plain = tensor([1])
  t.throws(() => backwardFrom(plain), { code: 'AUTOGRAD' })
  plain.dispose()
  t.throws(() => backwardFrom(plain), { code: 'DISPOSED' })
  t.throws(() => ops.square(plain), { code: 'DISPOSED', message: /\[square\]/ })
  ends(t, before, x, y, one, two, plain)
})

t.test('what backward needs outlives dispose, and nothing more', async (t) => {
  const before = alive()
  const x = leaf([0.5, 1])
  const a = ops.exp(x)
  const b = ops.mul(a, a)
  const loss = ops.sum(b)
  a.dispose()
  b.dispose()
  t.throws(() => ops.square(a), { code: 'DISPOSED' }, 'what the tape alone holds is not for use')
  backwardFrom(loss)
  t.ok(numbers(x.grad).every((slope, i) => Math.abs(slope - 2 * Math.exp(2 * (i ? 1 : 0.5))) < 1e-5))
  t.throws(() => a.handle, { code: 'DISPOSED' })
  ends(t, before, x, loss)
})

t.test('a graph that no backward used is freed with its last result', async (t) => {
  const before = alive()
  const x = leaf([0.5, 1])
  const during = alive()
  const [one, two] = tidy(() => {
    const y = ops.exp(x)
    return [ops.sum(ops.square(y)), checkpoint((a) => ops.sum(ops.square(a)), y)]
  }) as [Tensor, Tensor]
  one.dispose()
  t.not(alive(), during, 'the other result still needs its part')
  backwardFrom(two)
  t.ok(Math.abs((numbers(x.grad)[0] as number) - 2 * Math.exp(1)) < 1e-5)
  two.dispose()
  x.grad?.dispose()
  x.grad = undefined
  t.equal(alive(), during, 'both are gone')
  for (let i = 0; i < 3; i++) tidy(() => void ops.mean(ops.square(ops.reshape(ops.exp(x), [2, 1]))))
  t.equal(alive(), during, 'results that left no scope')
  const deep = tidy(() => {
    let y = ops.scale(x, 1)
    for (let i = 0; i < 20_000; i++) {
      const next = ops.scale(y, 1)
      y.dispose()
      y = next
    }
    return y
  })
  deep.dispose()
  ends(t, before, x)
})

t.test('part of the graph that leads to no loss does no harm', async (t) => {
  const before = alive()
  const [x, unused] = [leaf([1, 2]), leaf([3, 4])]
  tidy(() => {
    const { y, sum } = ops.addRmsNorm(x, unused)
    ops.sum(y) // never used
    backwardFrom(ops.sum(sum))
  })
  t.strictSame(numbers(x.grad), [1, 1])
  t.strictSame(numbers(unused.grad), [1, 1])
  x.grad?.dispose()
  x.grad = undefined
  // Only the integer path: x is an input of a node whose output has no gradient.
  t.strictSame(
    gradient(x, () => ops.add(ops.sum(x), ops.sum(ops.topK(x, 1).values))),
    [1, 1],
    'topK has none',
  )
  ends(t, before, x, unused)
})

t.test('custom functions: saved tensors, missing gradients, several inputs', async (t) => {
  const before = alive()
  const [x, y] = [leaf([1, 2]), leaf([3, 4])]
  const product = (a: Tensor, b: Tensor): Tensor =>
    customFunction(
      'product',
      [a, b],
      () => {
        const [left, right] = [ops.scale(a, 1), ops.scale(b, 1)]
        return { result: ops.mul(left, right), saved: [left, right] }
      },
      ([dy]) => [dy && ops.mul(dy, y), undefined],
      [y],
    )
  const during = alive()
  t.strictSame(
    gradient(x, () => ops.sum(product(x, y))),
    [3, 4],
  )
  t.equal(alive(), during, 'what was saved is freed by backward')
  t.equal(y.grad, undefined, 'no gradient given, none stored')
  const identity = (a: Tensor): Tensor =>
    customFunction(
      'identity',
      [a],
      () => a,
      ([dy]) => [dy && ops.scale(dy, -2)],
    )
  t.strictSame(
    gradient(x, () => ops.sum(identity(x))),
    [-2, -2],
    'a forward that gives its input back',
  )
  t.strictSame(
    gradient(x, () => ops.sum(checkpoint((a) => a, x))),
    [1, 1],
    'checkpoint likewise',
  )
  await gradCheck(
    (a, b) =>
      customFunction(
        'f',
        [a, b],
        () => ops.mul(a, b),
        ([dy]) => [dy && ops.mul(dy, b), dy && ops.mul(dy, a)],
        [a, b],
      ),
    [x, y],
  )
  ends(t, before, x, y)
})

t.test('a rule that throws or gives the wrong shape frees everything and says where', async (t) => {
  const before = alive()
  const x = leaf([1, 2])
  const broken = (rule: (dy: Tensor) => Tensor): Tensor =>
    tidy(() => {
      const y = customFunction(
        'broken',
        [x],
        () => ops.scale(x, 1),
        ([dy]) => [rule(dy as Tensor)],
      )
      return ops.sum(
        ops.add(
          ops.square(y),
          checkpoint((a) => ops.square(a), y),
        ),
      )
    })
  const thrown = broken(() => {
    throw new Error('in the rule')
  })
  t.throws(() => backwardFrom(thrown), /in the rule/)
  t.throws(() => backwardFrom(thrown), { code: 'AUTOGRAD', message: /already used/ })
  const wrong = broken((dy) => ops.sum(dy))
  t.throws(() => backwardFrom(wrong), { code: 'AUTOGRAD', message: /rule of broken gave f32 \[\].*input 0.*\[2\]/ })
  x.onGradient = () => {
    throw new Error('in the callback')
  }
  const called = tidy(() => ops.sum(x))
  t.throws(() => backwardFrom(called), /in the callback/)
  x.onGradient = undefined
  x.grad?.dispose()
  x.grad = undefined
  t.strictSame(
    gradient(x, () => ops.sum(ops.square(x))),
    [2, 4],
    'the next backward is as if nothing had been',
  )
  const again = tidy(() =>
    ops.sum(
      checkpoint((a) => {
        if (a !== x) throw new Error('the second time')
        return ops.square(a)
      }, x),
    ),
  )
  t.throws(() => backwardFrom(again), /the second time/)
  ends(t, before, x, thrown, wrong, called, again)
})

t.test('backward inside of a rule is a pass of its own', async (t) => {
  const before = alive()
  const [x, w] = [leaf([1, 2]), leaf([3])]
  const done: string[] = []
  w.onGradient = () => done.push('w')
  x.onGradient = () => done.push('x')
  const inner = (): Tensor =>
    customFunction(
      'inner',
      [x],
      () => ops.scale(x, 1),
      ([dy]) => {
        const own = leaf([7])
        backwardFrom(withGrad(() => ops.sum(ops.square(own))))
        t.strictSame(numbers(own.grad), [14])
        own.grad?.dispose()
        own.dispose()
        return [dy]
      },
    )
  tidy(() => backwardFrom(ops.sum(ops.add(ops.mul(inner(), w), ops.mul(x, w)))))
  t.strictSame(numbers(x.grad), [6, 6])
  t.strictSame(numbers(w.grad), [6])
  t.strictSame(done.sort(), ['w', 'x'])
  ends(t, before, x, w)
})

t.test('gradCheck finds a wrong rule, names where, and leaves its inputs alone', async (t) => {
  const before = alive()
  const x = leaf([0.5, -1, 2], [3])
  const { worst, compared } = await gradCheck((a) => ops.tanh(a), [x])
  t.ok(worst < 1e-3 && compared === 3, `${worst}`)
  t.equal(x.grad, undefined)
  const wrong = (a: Tensor): Tensor =>
    customFunction(
      'wrong',
      [a],
      () => ops.square(a),
      ([dy]) => [dy && ops.mul(dy, a)],
      [a],
    )
  await t.rejects(gradCheck(wrong, [x]), { code: 'AUTOGRAD', message: /input 0 f32 \[3\], element 0.*gradient is/ })
  const missing = (a: Tensor): Tensor =>
    customFunction(
      'missing',
      [a],
      () => ops.square(a),
      () => [],
    )
  await t.rejects(gradCheck(missing, [x]), { code: 'AUTOGRAD' })
  const detached = (a: Tensor): Tensor => noGrad(() => ops.square(a))
  await t.rejects(gradCheck(detached, [x]), { code: 'AUTOGRAD', message: /gradient is 0/ })
  await t.rejects(
    gradCheck((a) => ops.cast(a, 'bf16'), [x]),
    { code: 'DTYPE' },
  )
  await t.rejects(
    gradCheck((a) => a, [x], { eps: 0 }),
    { code: 'ARGUMENT' },
  )
  const ids = tensor(Int32Array.of(1, 0))
  await t.rejects(
    gradCheck(() => ids, [ids]),
    { code: 'DTYPE', message: /f32 input/ },
  )
  await gradCheck((a) => ops.dropout(a, 0.5), [x])
  ends(t, before, x, ids)
})

// Mistakes in a user's own loop: each throws its code, with a message that names the operation, the values and the
// cure, and leaves no tensor behind.

import t from 'tap'
import { backwardFrom } from '../../lib/autograd/functions.js'
import {
  type ErrorCode,
  initialize,
  keep,
  nn,
  ops,
  type Tensor,
  tensor,
  tidy,
  ZeroshardError,
} from '../../lib/index.js'
import { empty } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'

const x = (count: number, shape?: number[]): Tensor =>
  tensor(
    Float32Array.from({ length: count }, (_, i) => i),
    shape,
  )
const whole = (...list: number[]): Tensor => tensor(Int32Array.from(list))
const leaf = (count: number): Tensor => {
  const made = x(count)
  made.requiresGrad = true
  return made
}

type Case = [what: string, code: ErrorCode, message: RegExp, mistake: () => unknown]
const cases: Case[] = [
  ['shapes that do not broadcast', 'SHAPE', /\[add\] f32 \[3\] and f32 \[2\].*3 against 2/, () => ops.add(x(3), x(2))],
  [
    'matrices that do not multiply',
    'SHAPE',
    /\[matmul\].*\[2, 3\].*\[2, 2\]/,
    () => ops.matmul(x(6, [2, 3]), x(4, [2, 2])),
  ],
  ['a reshape of other size', 'SHAPE', /\[reshape\] f32 \[3\].*\[2, 2\]/, () => ops.reshape(x(3), [2, 2])],
  ['a slice beyond the end', 'SHAPE', /\[slice\] \[1, 5\).*dim 0 of f32 \[2\]/, () => ops.slice(x(2), 0, 1, 5)],
  ['a dim that is not there', 'SHAPE', /\[slice\] dim 3/, () => ops.slice(x(2), 3, 0, 1)],
  ['a negative size', 'SHAPE', /\[empty\] dim 0 has size -1/, () => empty([-1])],
  ['an array of other size', 'SHAPE', /\[write\].*1 does not fill f32 \[2\]/, () => x(2).write(Float32Array.of(1))],
  ['an item of two', 'SHAPE', /\[item\] needs one element, f32 \[2\] has 2/, () => x(2).item()],
  ['two dtypes', 'DTYPE', /\[add\] f32 \[1\] and bf16 \[1\].*cast one/, () => ops.add(x(1), ops.cast(x(1), 'bf16'))],
  ['a whole number in an activation', 'DTYPE', /\[gelu\].*got i32 \[1\]; cast it/, () => ops.gelu(whole(1))],
  [
    'ids that are no whole numbers',
    'DTYPE',
    /\[embedding\] needs i32, got f32/,
    () => ops.embedding(x(4, [2, 2]), x(1)),
  ],
  [
    'a target outside the vocabulary',
    'ARGUMENT',
    /target 5 of row 0.*vocabulary of 2/,
    () => ops.crossEntropy(x(2, [1, 2]), whole(5)).data(),
  ],
  [
    'an id outside the table',
    'ARGUMENT',
    /\[gather\] id 7 at 1.*\[0, 2\)/,
    () => ops.gather(x(4, [2, 2]), whole(0, 7)).data(),
  ],
  ...[2, -1].map(
    (id): Case => [
      `token ${id} of a vocabulary of 2`,
      'ARGUMENT',
      new RegExp(`\\[embedding_forward\\] id ${id} at 1.*\\[0, 2\\)`),
      () => ops.embedding(x(4, [2, 2]), whole(0, id)).data(),
    ],
  ),
  [
    'a disposed tensor',
    'DISPOSED',
    /\[add\] tensor 'w' f32 \[2\] was used after dispose/,
    () => disposed((w) => ops.add(w, w)),
  ],
  [
    'reading a disposed tensor',
    'DISPOSED',
    /'w' f32 \[2\] was used after dispose.*keep\(\)/,
    () => disposed((w) => w.data()),
  ],
  ['a tensor that left its scope', 'DISPOSED', /was used after dispose/, () => ops.exp(escaped())],
  [
    'backward of no scalar',
    'AUTOGRAD',
    /needs a scalar loss, got f32 \[2\]; reduce it/,
    () => backwardFrom(ops.scale(leaf(2), 2)),
  ],
  ['backward of nothing', 'AUTOGRAD', /no parameter.*noGrad/, () => backwardFrom(ops.sum(x(2)))],
  [
    'backward twice',
    'AUTOGRAD',
    /already used; run forward again/,
    () => {
      const w = leaf(2)
      const loss = ops.sum(ops.square(w))
      backwardFrom(loss)
      w.grad?.dispose()
      backwardFrom(loss)
    },
  ],
  ['more memory than there is', 'OUT_OF_MEMORY', /no memory for .* TiB.*live: parameters/, () => empty([2 ** 45])],
  [
    'an asynchronous scope',
    'ARGUMENT',
    /\[tidy\] the function is asynchronous/,
    () => tidy((async () => x(1)) as never),
  ],
  [
    'a layer without memory',
    'ARGUMENT',
    /has no memory yet; call initialize/,
    () => new nn.Linear(2, 2).forward(x(2, [1, 2])),
  ],
]

const disposed = <T>(use: (w: Tensor) => T): T => {
  const w = x(2)
  w.name = 'w'
  w.dispose()
  return use(w)
}

function escaped(): Tensor {
  const held: Tensor[] = []
  tidy(() => {
    held.push(x(2))
  })
  return held[0] as Tensor
}

/** What it threw or rejected with. Frees all that it made before. */
async function outcome(mistake: () => unknown): Promise<unknown> {
  const promises: Promise<unknown>[] = []
  try {
    tidy(() => {
      const result = mistake()
      if (result instanceof Promise) promises.push(result)
    })
  } catch (error) {
    return error
  }
  return Promise.all(promises).then(
    () => undefined,
    (error: unknown) => error,
  )
}

for (const [what, code, message, mistake] of cases) {
  t.test(what, async (t) => {
    const before = alive()
    const error = await outcome(mistake)
    t.type(error, ZeroshardError)
    t.equal((error as ZeroshardError)?.code, code, String(error))
    t.match((error as Error)?.message, message)
    t.equal(alive(), before, 'nothing is left')
    // The streams run again after what failed in one of them.
    const y = tidy(() => ops.add(x(3), x(3)))
    t.strictSame([...(await y.data())], [0, 2, 4])
    y.dispose()
  })
}

class Net extends nn.Module {
  readonly layer = new nn.Linear(4, 1)
  forward(input: Tensor): Tensor {
    return ops.mean(ops.square(this.layer.forward(input)))
  }
}

const config = { train_batch_size: 2, optimizer: { type: 'AdamW', params: { lr: 0.1 } } }

t.test('the engine: steps out of order, a wrong configuration, a loss that is no number', async (t) => {
  const before = alive()
  await t.rejects(initialize({ model: new Net(), config: { ...config, optimiser: {} } }), {
    code: 'CONFIG',
    message: /optimiser.*optimizer/,
  })
  await t.rejects(initialize({ model: new Net(), config: 'nowhere.json' }), {
    code: 'CONFIG',
    message: /nowhere\.json/,
  })
  t.equal(alive(), before, 'nothing is left')
  const engine = await initialize({ model: new Net(), config })
  await t.rejects(engine.step(), { code: 'AUTOGRAD', message: /\[step\] needs a backward/ })
  const input = keep(x(8, [2, 4]))
  const loss = engine.forward(input)
  engine.backward(loss)
  t.throws(() => engine.backward(loss), { code: 'AUTOGRAD', message: /\[backward\] called twice without step/ })
  await t.rejects(engine.saveCheckpoint('/tmp/never'), { code: 'CHECKPOINT', message: /in the middle/ })
  await engine.step()
  input.write(new Float32Array(8).fill(Number.NaN))
  engine.backward(engine.forward(input))
  await t.rejects(engine.step(), { code: 'NOT_FINITE', message: /loss of step 2 is NaN.*learning rate/ })
  input.dispose()
  await engine.close()
  t.equal(alive(), before, 'nothing is left')
})

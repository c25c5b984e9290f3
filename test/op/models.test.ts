// GPT-2 and Llama against Hugging Face transformers (test/reference/models.py made the numbers).

import { readFileSync } from 'node:fs'
import t from 'tap'
import { backwardFrom } from '../../lib/autograd/functions.js'
import { noGrad } from '../../lib/autograd/tape.js'
import { binding } from '../../lib/binding/native.js'
import { createModel } from '../../lib/nn/models/index.js'
import { tidy } from '../../lib/tensor/scope.js'
import { tensor } from '../../lib/tensor/tensor.js'
import { alive, difference } from '../helpers/compare.js'

interface Reference {
  config: Record<string, unknown>
  loss: number
  lastLogits: number[]
  gradients: Record<string, { norm: number; first: number[] }>
}
const reference = JSON.parse(readFileSync(new URL('../reference/models.json', import.meta.url), 'utf8')) as Record<
  string,
  Reference
>

binding().native.configure({ threads: 2, serial: false })

/** The same formula as in models.py. */
function weight(name: string, count: number): Float32Array {
  const phase = [...name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % 97
  const base = /ln_|norm/.test(name) && name.endsWith('weight') ? 1 : 0
  return Float32Array.from(
    { length: count },
    (_, i) => base + 0.15 * Math.sin(0.37 * i + phase) + 0.05 * Math.cos((1.13 * i * i) % 6.283),
  )
}

for (const family of ['gpt2', 'llama']) {
  const expected = reference[family] as Reference
  const vocab = expected.config.vocab_size as number
  const make = () => {
    const model = createModel(expected.config).materialize()
    for (const [name, { tensor }] of model.namedParameters()) tensor.write(weight(name, tensor.count))
    return model
  }
  const rows = (fn: (i: number, b: number) => number) =>
    tensor(
      Int32Array.from({ length: 18 }, (_, at) => fn(at % 9, Math.floor(at / 9)) % vocab),
      [2, 9],
    )

  t.test(`${family}: loss, logits and every gradient are those of transformers`, async (t) => {
    const before = alive()
    const model = make()
    const ids = rows((i, b) => 5 * i + 3 * b)
    const targets = rows((i, b) => 7 * i + b)
    const loss = model.forward(ids, targets)
    t.ok(Math.abs((await loss.item()) - expected.loss) < 1e-5, 'loss')
    backwardFrom(loss)
    t.strictSame([...model.namedParameters().keys()].sort(), Object.keys(expected.gradients).sort(), 'names')
    for (const [name, parameter] of model.namedParameters()) {
      const { norm, first } = expected.gradients[name] as { norm: number; first: number[] }
      const gradient = (await parameter.tensor.grad?.data()) as Float32Array
      const actual = Math.sqrt(gradient.reduce((sum, value) => sum + value * value, 0))
      t.ok(Math.abs(actual - norm) <= 2e-4 * Math.max(norm, 1e-2), `${name}: norm ${actual}, ${norm}`)
      t.ok(difference(gradient.subarray(0, 5), first) < 2e-5, `${name}: values`)
    }
    const cache = model.newCache(16)
    const logits = noGrad(() => tidy(() => model.nextLogits(ids.view([1, 9]), cache)))
    t.ok(difference((await logits.data()) as Float32Array, expected.lastLogits) < 2e-5, 'logits')
    for (const tensor of [loss, ids, targets, logits, ...cache.layers.flatMap(({ k, v }) => [k, v])]) tensor.dispose()
    model.dispose()
    t.equal(alive(), before, 'nothing is left')
  })
}

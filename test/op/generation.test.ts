// Generation over the cache is the model without one: its logits, however the text was cut into calls.

import t, { type Test } from 'tap'
import { noGrad } from '../../lib/autograd/tape.js'
import { binding } from '../../lib/binding/native.js'
import { disposeCache } from '../../lib/nn/models/cache.js'
import { createModel, type GenerateOptions, generate, type LanguageModel } from '../../lib/nn/models/index.js'
import { tidy } from '../../lib/tensor/scope.js'
import { type DType, tensor } from '../../lib/tensor/tensor.js'
import { alive, difference, values } from '../helpers/compare.js'

binding().native.configure({ threads: 2, serial: false })

const [positions, vocab] = [24, 37]
const configs: Record<string, Record<string, unknown>> = {
  gpt2: {
    model_type: 'gpt2',
    n_layer: 2,
    n_head: 4,
    n_embd: 32,
    n_positions: positions,
    vocab_size: vocab,
    initializer_range: 0.3,
  },
  'llama, grouped heads': {
    model_type: 'llama',
    num_hidden_layers: 2,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    head_dim: 8,
    hidden_size: 32,
    intermediate_size: 40,
    max_position_embeddings: positions,
    vocab_size: vocab,
    attention_dropout: 0.2,
    initializer_range: 0.3,
    rope_scaling: { rope_type: 'llama3', factor: 4, original_max_position_embeddings: 8 },
  },
}
const text = Array.from({ length: positions }, (_, i) => (i * i + 3 * i + 5) % vocab)

/** Logits (T, V) of the whole text at once, by the path that training takes. */
async function whole(model: LanguageModel, ids: number[]): Promise<Float32Array> {
  const input = tensor(Int32Array.from(ids), [1, ids.length])
  const logits = noGrad(() => model.logits(input))
  const result = await values(logits)
  input.dispose()
  logits.dispose()
  return result
}

const make = (family: string, dtype: DType = 'f32'): LanguageModel =>
  createModel(configs[family] as Record<string, unknown>)
    .materialize({ seed: 6, dtype })
    .eval() as LanguageModel

async function collect(model: LanguageModel, prompt: number[], options: GenerateOptions): Promise<number[]> {
  const out: number[] = []
  for await (const id of generate(model, prompt, options)) out.push(id)
  return out
}

for (const family of Object.keys(configs)) {
  for (const [dtype, tolerance] of [
    ['f32', 1e-5],
    ['bf16', 3e-2],
  ] as const) {
    t.test(`${family} ${dtype}: logits over the cache are those without`, async (t) => {
      const before = alive()
      const model = make(family, dtype)
      const expected = await whole(model, text)
      for (const parts of [[24], [1, 23], [23, 1], [7, 5, 1, 9, 2], new Array(24).fill(1)]) {
        const cache = model.newCache(positions)
        let at = 0
        for (const part of parts) {
          const ids = tensor(Int32Array.from(text.slice(at, at + part)), [1, part])
          const logits = tidy(() => noGrad(() => model.nextLogits(ids, cache)))
          at += part
          const gap = difference(await values(logits), expected.subarray((at - 1) * vocab, at * vocab))
          if (!(gap <= tolerance)) t.fail(`parts ${parts}, token ${at}: ${gap}`)
          ids.dispose()
          logits.dispose()
        }
        t.equal(cache.length, positions)
        disposeCache(cache)
      }
      model.dispose()
      t.equal(alive(), before, 'nothing is left')
    })
  }

  t.test(`${family}: greedy text, also beyond the positions, is that without a cache`, async (t) => {
    const before = alive()
    const model = make(family)
    const count = positions + 20
    const expected = await slow(model, [1, 2, 3], count)
    t.strictSame(await collect(model, [1, 2, 3], { tokens: count, temperature: 0 }), expected)
    const long = Array.from({ length: positions + 9 }, (_, i) => (i * 5) % vocab)
    t.strictSame(await collect(model, long, { tokens: 4, temperature: 0 }), await slow(model, long, 4), 'a long prompt')
    model.dispose()
    t.equal(alive(), before, 'nothing is left')
  })
}

/** Greedy without a cache: what is forgotten is the oldest half, whenever the positions are full. */
async function slow(model: LanguageModel, prompt: number[], count: number): Promise<number[]> {
  let seen = prompt.slice(-positions)
  const out: number[] = []
  const all = [...prompt]
  for (let i = 0; i < count; i++) {
    if (seen.length > positions) seen = all.slice(-positions / 2)
    const logits = (await whole(model, seen)).slice(-vocab)
    const id = logits.indexOf(Math.max(...logits))
    out.push(id)
    all.push(id)
    seen = [...seen, id]
  }
  return out
}

async function firstTokens(model: LanguageModel, options: Partial<GenerateOptions>): Promise<Set<number>> {
  const seen = new Set<number>()
  for (let seed = 0; seed < 60; seed++) {
    for (const id of await collect(model, [1, 2], { tokens: 1, seed, ...options })) seen.add(id)
  }
  return seen
}

t.test('temperature, top-k, top-p and seed reach the choice', async (t) => {
  const before = alive()
  const model = make('gpt2')
  const logits = (await whole(model, [1, 2])).slice(-vocab)
  const order = [...logits.keys()].sort((a, b) => (logits[b] as number) - (logits[a] as number))
  t.strictSame([...(await firstTokens(model, { temperature: 0 }))], order.slice(0, 1))
  t.strictSame([...(await firstTokens(model, { topK: 3, temperature: 50 }))].sort(), order.slice(0, 3).sort())
  t.strictSame([...(await firstTokens(model, { topP: 1e-6, temperature: 50 }))], order.slice(0, 1))
  t.ok((await firstTokens(model, { temperature: 50 })).size > 20, 'hot: nearly even')
  t.ok((await firstTokens(model, { temperature: 0.01 })).size <= 2, 'cold: nearly greedy')
  const one = await collect(model, [1], { tokens: 12, seed: 4 })
  t.strictSame(await collect(model, [1], { tokens: 12, seed: 4 }), one)
  t.notSame(await collect(model, [1], { tokens: 12, seed: 5 }), one)
  model.dispose()
  t.equal(alive(), before, 'nothing is left')
})

t.test('dropout is off while generating and on again after, also where the caller stops early', async (t: Test) => {
  const before = alive()
  const model = make('gpt2').train() as LanguageModel
  const first = await collect(model, [1, 2], { tokens: 6, temperature: 0 })
  t.strictSame(await collect(model, [1, 2], { tokens: 6, temperature: 0 }), first)
  for await (const id of generate(model, [1, 2], { tokens: 6, temperature: 0 })) {
    t.equal(id, first[0])
    t.notOk(model.training)
    break
  }
  t.ok(model.training)
  t.strictSame(await collect(model, [1], { tokens: 0 }), [])
  for (const [prompt, options, message] of [
    [[], { tokens: 1 }, /prompt is empty/],
    [[37], { tokens: 1 }, /token 37.*37/],
    [[1.5], { tokens: 1 }, /token 1\.5/],
    [[1], { tokens: -1 }, /tokens -1/],
    [[1], { tokens: 1, temperature: -1 }, /temperature -1/],
    [[1], { tokens: 1, topK: 1.5 }, /top-k 1\.5/],
    [[1], { tokens: 1, topP: 0 }, /top-p 0/],
  ] as [number[], GenerateOptions, RegExp][]) {
    await t.rejects(collect(model, prompt, options), { message })
  }
  model.dispose()
  t.equal(alive(), before, 'nothing is left')
})

// Choosing one token: the probabilities are those of the definition, for every mixture of temperature, top-k and top-p.

import t from 'tap'
import { pickToken, type SamplingOptions } from '../../lib/nn/models/sampling.js'
import { random } from '../reference/ops.js'

/** Probabilities by definition: softmax, cut to k, cut to the nucleus, normalised. */
function probabilities(logits: ArrayLike<number>, { temperature, topK, topP }: SamplingOptions): number[] {
  const scores = Array.from(logits)
  const order = scores.map((_, id) => id).sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b)
  const result = scores.map(() => 0)
  if (temperature === 0) {
    result[order[0] as number] = 1
    return result
  }
  const top = scores[order[0] as number] as number
  let kept = order.slice(0, topK || order.length)
  const weight = (id: number): number => Math.exp(((scores[id] as number) - top) / temperature)
  const sum = (ids: number[]): number => ids.reduce((total, id) => total + weight(id), 0)
  const whole = sum(kept)
  let mass = 0
  const end = kept.findIndex((id) => (mass += weight(id) / whole) >= topP - 1e-12)
  if (end >= 0) kept = kept.slice(0, end + 1)
  for (const id of kept) result[id] = weight(id) / sum(kept)
  return result
}

/** How often each token comes where the random number goes through an even grid. */
function shares(logits: Float32Array, options: SamplingOptions, points: number): number[] {
  const counts = Array.from(logits, () => 0)
  for (let i = 0; i < points; i++) {
    const id = pickToken(logits, options, () => (i + 0.5) / points)
    counts[id] = (counts[id] as number) + 1
  }
  return counts.map((count) => count / points)
}

t.test('shares are the probabilities of the definition', async (t) => {
  const next = random(3)
  const sets = [
    Float32Array.from({ length: 40 }, () => 6 * next() - 3),
    Float32Array.from({ length: 7 }, (_, i) => (i % 3) * 0.7),
    Float32Array.of(2, 2, 2, 2),
    Float32Array.of(-1e30, 5, -Infinity, 4.5, 5),
    Float32Array.of(1),
  ]
  for (const logits of sets) {
    for (const temperature of [0, 0.05, 0.7, 1, 5]) {
      for (const topK of [0, 1, 2, 5, 400]) {
        for (const topP of [1, 0.9, 0.5, 1e-9]) {
          const options = { temperature, topK, topP }
          const expected = probabilities(logits, options)
          const actual = shares(logits, options, 1000)
          const worst = Math.max(...actual.map((share, id) => Math.abs(share - (expected[id] as number))))
          // Each token's part of the grid has two ends.
          if (worst > 2e-3) t.fail(`${JSON.stringify(options)}, ${logits.length} tokens: ${worst}`)
        }
      }
    }
  }
  t.pass()
})

t.test('a large vocabulary: k and the nucleus by one pass are those by sorting', async (t) => {
  const next = random(11)
  const logits = Float32Array.from({ length: 5000 }, () => Math.round(40 * next()) / 4)
  for (const options of [
    { temperature: 1, topK: 50, topP: 1 },
    { temperature: 0.5, topK: 0, topP: 0.8 },
    { temperature: 2, topK: 300, topP: 0.3 },
  ]) {
    const expected = probabilities(logits, options)
    const seen = new Set(Array.from({ length: 500 }, () => pickToken(logits, options, next)))
    t.ok(seen.size > 5)
    t.ok(
      [...seen].every((id) => (expected[id] as number) > 0),
      JSON.stringify(options),
    )
  }
})

t.test('throws where a score is no number', async (t) => {
  const options = { temperature: 1, topK: 0, topP: 1 }
  for (const bad of [Number.NaN, Infinity]) {
    t.throws(() => pickToken(Float32Array.of(1, bad), options, Math.random), { code: 'NOT_FINITE', message: /token 1/ })
  }
  t.equal(
    pickToken(Float32Array.of(3, 1), options, () => 1 - 2 ** -53),
    1,
    'the largest random number',
  )
})

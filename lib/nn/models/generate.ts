// Sampling from a language model, token by token, over a key/value cache.

import { noGrad } from '../../autograd/tape.js'
import { ZeroshardError } from '../../binding/errors.js'
import { cast } from '../../ops/layout.js'
import { tidy } from '../../tensor/scope.js'
import { type Tensor, tensor } from '../../tensor/tensor.js'
import { disposeCache } from './cache.js'
import type { KeyValueCache, LanguageModel } from './language-model.js'
import { pickToken, type SamplingOptions } from './sampling.js'

/** How the next token is drawn. */
export interface GenerateOptions extends Partial<SamplingOptions> {
  tokens: number
  seed?: number
}

/**
 * Yields token ids after `prompt`. Beyond the model's positions the oldest half of the text is forgotten.
 *
 * @example
 * import { createModel, generate } from 'zeroshard/models'
 *
 * const model = createModel({ model_type: 'gpt2', n_layer: 1, n_head: 2, n_embd: 16, n_positions: 32, vocab_size: 256 })
 * model.materialize({ seed: 1 })
 * const prompt = Buffer.from('Call me')
 * for await (const id of generate(model, prompt, { tokens: 5, temperature: 0.8, topK: 40, topP: 0.95, seed: 7 })) {
 *   console.log(id)
 * }
 * model.dispose()
 */
export async function* generate(
  model: LanguageModel,
  prompt: ArrayLike<number>,
  options: GenerateOptions,
): AsyncGenerator<number> {
  check(prompt, options, model)
  const sampling = { temperature: 1, topK: 0, topP: 1, ...options }
  const random = mulberry32(options.seed ?? 0)
  const text = Array.from(prompt)
  const wasTraining = model.training
  model.eval()
  let cache = model.newCache(model.maxPositions)
  try {
    let fresh = text.slice(-model.maxPositions)
    for (let i = 0; i < options.tokens; i++) {
      if (cache.length + fresh.length > model.maxPositions) {
        disposeCache(cache)
        cache = model.newCache(model.maxPositions)
        fresh = text.slice(-Math.max(1, model.maxPositions >> 1))
      }
      const logits = await nextLogits(model, fresh, cache)
      const token = pickToken(logits, sampling, random)
      yield token
      text.push(token)
      fresh = [token]
    }
  } finally {
    disposeCache(cache)
    model.train(wasTraining)
  }
}

function check(prompt: ArrayLike<number>, options: GenerateOptions, model: LanguageModel): void {
  const { tokens, temperature = 1, topK = 0, topP = 1 } = options
  if (prompt.length === 0)
    throw new ZeroshardError('ARGUMENT', '[generate] the prompt is empty; give at least one token')
  const bad = Array.from(prompt).find((id) => !(Number.isInteger(id) && id >= 0 && id < model.vocabSize))
  if (bad !== undefined)
    throw new ZeroshardError('TOKEN', `[generate] token ${bad} is outside the vocabulary of ${model.vocabSize}`)
  if (!(Number.isInteger(tokens) && tokens >= 0))
    throw new ZeroshardError('ARGUMENT', `[generate] tokens ${tokens} must be a whole number from 0`)
  if (!(temperature >= 0))
    throw new ZeroshardError('ARGUMENT', `[generate] temperature ${temperature} must be 0 or more`)
  if (!(Number.isInteger(topK) && topK >= 0))
    throw new ZeroshardError('ARGUMENT', `[generate] top-k ${topK} must be a whole number from 0`)
  if (!(topP > 0 && topP <= 1)) throw new ZeroshardError('ARGUMENT', `[generate] top-p ${topP} must be in (0, 1]`)
}

async function nextLogits(model: LanguageModel, ids: number[], cache: KeyValueCache): Promise<Float32Array> {
  const logits: Tensor = tidy(() =>
    noGrad(() => cast(model.nextLogits(tensor(Int32Array.from(ids), [1, ids.length]), cache), 'f32')),
  )
  const values = (await logits.data()) as Float32Array
  logits.dispose()
  return values
}

function mulberry32(seed: number): () => number {
  let a = seed >>> 0
  return () => {
    a = (a + 0x6d2b79f5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

// Text from a model, as it comes.

import type { Tokenizer } from '../data/index.js'
import { type GenerateOptions, generate, type LanguageModel } from '../nn/models/index.js'

/** Streams the prompt's continuation; without `out` only takes part in the computation. */
export async function streamText(
  model: LanguageModel,
  tokenizer: Tokenizer,
  prompt: string,
  options: GenerateOptions,
  out?: NodeJS.WritableStream,
): Promise<void> {
  const decoder = tokenizer.streamDecoder()
  for await (const id of generate(model, Array.from(tokenizer.encode(prompt)), options)) {
    const text = decoder.push(id)
    out?.write(text)
  }
  out?.write(`${decoder.end()}\n`)
}

/** A short sample after training. */
export async function printSample(model: unknown, tokenizer: Tokenizer, out?: NodeJS.WritableStream): Promise<void> {
  const prompt = 'The '
  out?.write(`\nsample: ${prompt}`)
  await streamText(model as LanguageModel, tokenizer, prompt, { tokens: 300, temperature: 0.8, topK: 40, seed: 1 }, out)
}

// `zeroshard generate`: streams text from a trained model.

import { loadModel } from './load-model.js'
import { streamText } from './sample.js'

export interface GenerateFlags {
  prompt: string
  tokens: number
  temperature: number
  topK: number
  topP: number
  seed: number
}

export async function generateText(path: string, flags: GenerateFlags): Promise<void> {
  const { model, tokenizer } = await loadModel(path)
  process.stdout.write(flags.prompt)
  await streamText(model, tokenizer, flags.prompt, flags, process.stdout)
  model.dispose()
}

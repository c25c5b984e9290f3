// The model families, and the one that a Hugging Face config.json names.

import { nearest, ZeroshardError } from '../../binding/errors.js'
import { Gpt2, type Gpt2Config } from './gpt2.js'
import type { LanguageModel } from './language-model.js'
import { Llama, type LlamaConfig } from './llama.js'

export { type GenerateOptions, generate } from './generate.js'
export { Gpt2, type Gpt2Config, gpt2Defaults } from './gpt2.js'
export { type KeyValueCache, LanguageModel } from './language-model.js'
export { Llama, type LlamaConfig, llamaDefaults } from './llama.js'

const families: Record<string, (config: Record<string, unknown>) => LanguageModel> = {
  gpt2: (config) => new Gpt2(config as Partial<Gpt2Config>),
  llama: (config) => new Llama(config as Partial<LlamaConfig>),
}

/** The model that a Hugging Face config.json describes. */
export function createModel(config: Record<string, unknown>): LanguageModel {
  const type = String(config.model_type)
  const make = families[type]
  if (!make) {
    const near = nearest(type, Object.keys(families))
    throw new ZeroshardError(
      'CONFIG',
      `model_type '${type}' is not served; there are ${Object.keys(families).join(', ')}${near ? `; did you mean '${near}'?` : ''}`,
    )
  }
  return make(config)
}

// The model families, and the one that a Hugging Face config.json names.

import { nearest, ZeroshardError } from '../../binding/errors.js'
import { Gpt2, type Gpt2Config, gpt2Defaults } from './gpt2.js'
import type { LanguageModel } from './language-model.js'
import { Llama, type LlamaConfig, llamaDefaults } from './llama.js'

export { type GenerateOptions, generate } from './generate.js'
export { Gpt2, type Gpt2Config, gpt2Defaults } from './gpt2.js'
export { LanguageModelHead } from './head.js'
export { type KeyValueCache, LanguageModel, type LayerCache, type Recompute } from './language-model.js'
export { Llama, type LlamaConfig, llamaDefaults } from './llama.js'
export type { SamplingOptions } from './sampling.js'

const families: Record<string, (config: Record<string, unknown>) => LanguageModel> = {
  gpt2: (config) => new Gpt2(config as Partial<Gpt2Config>),
  llama: (config) => new Llama(config as Partial<LlamaConfig>),
}

/**
 * The model that a Hugging Face config.json describes.
 *
 * @example
 * const model = createModel({ model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 32, n_positions: 16, vocab_size: 256 })
 * model.parameters().length // 28
 */
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
  checkConfig(config, type === 'gpt2' ? gpt2Keys : llamaKeys)
  return make(config)
}

/** Names of what both families have. */
interface Keys {
  width: string
  heads: string
  keyValueHeads?: string
  positive: string[]
}
const gpt2Keys: Keys = { width: 'n_embd', heads: 'n_head', positive: ['n_layer', 'n_positions', 'vocab_size'] }
const llamaKeys: Keys = {
  width: 'hidden_size',
  heads: 'num_attention_heads',
  keyValueHeads: 'num_key_value_heads',
  positive: ['num_hidden_layers', 'max_position_embeddings', 'vocab_size', 'intermediate_size'],
}

function checkConfig(given: Record<string, unknown>, keys: Keys): void {
  const defaults = given.model_type === 'gpt2' ? gpt2Defaults : llamaDefaults
  const config: Record<string, unknown> = { ...defaults, ...given }
  const fail = (message: string): never => {
    throw new ZeroshardError('CONFIG', `model.config: ${message}`)
  }
  // A config.json holds much that concerns others; what all but spells a key that is not given was meant to be it.
  const absent = Object.keys(defaults).filter((key) => !(key in given))
  for (const key of Object.keys(given)) {
    const near = key in defaults ? undefined : nearest(key, absent, 2)
    if (near) fail(`unknown key ${key}; did you mean ${near}?`)
  }
  for (const key of [keys.width, keys.heads, ...keys.positive]) {
    if (!Number.isInteger(config[key]) || (config[key] as number) < 1) {
      fail(`${key} is ${JSON.stringify(config[key])}; it must be an integer, at least 1`)
    }
  }
  const [width, heads] = [config[keys.width] as number, config[keys.heads] as number]
  if (!config.head_dim && width % heads !== 0) {
    fail(`${keys.width} ${width} is not divisible by ${keys.heads} ${heads}; change one`)
  }
  const keyValueHeads = keys.keyValueHeads && (config[keys.keyValueHeads] as number | null)
  if (keyValueHeads && heads % keyValueHeads !== 0) {
    fail(`${keys.heads} ${heads} is not divisible by ${keys.keyValueHeads} ${keyValueHeads}; change one`)
  }
  for (const key of ['resid_pdrop', 'embd_pdrop', 'attn_pdrop', 'attention_dropout']) {
    const p = config[key] ?? 0
    if (!(typeof p === 'number' && p >= 0 && p < 1))
      fail(`${key} is ${JSON.stringify(p)}; it must be at least 0 and less than 1`)
  }
  const known = ['gelu_new', 'gelu_pytorch_tanh', 'gelu', 'relu', 'silu']
  const activation = given.model_type === 'gpt2' ? String(config.activation_function) : 'silu'
  if (!known.includes(activation)) fail(`activation_function '${activation}' is not one of ${known.join(', ')}`)
  if (config.scale_attn_by_inverse_layer_idx || config.add_cross_attention)
    fail('scale_attn_by_inverse_layer_idx and add_cross_attention are not served; only models without them are')
  if (given.model_type === 'llama' && (config.hidden_act ?? 'silu') !== 'silu')
    fail(`hidden_act '${config.hidden_act}' is not silu`)
}

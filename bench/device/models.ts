// The models whose training steps are measured, and the same kinds small enough for CPU ranks.

import type { ModelSizes } from './layouts.js'

export interface BenchModel {
  name: string
  config: Record<string, unknown>
  sizes: ModelSizes
}

const noDropout = { resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0 }

function gpt2(
  name: string,
  layers: number,
  width: number,
  heads: number,
  vocabulary: number,
  sequence: number,
): BenchModel {
  const config = { model_type: 'gpt2', n_layer: layers, n_embd: width, n_head: heads, vocab_size: vocabulary }
  const parameters = layers * (12 * width * width + 13 * width) + (vocabulary + sequence) * width + 2 * width
  const sizes = { parameters, layers, width, heads, keyValueHeads: heads, vocabulary, sequence }
  return { name, config: { ...config, n_positions: sequence, ...noDropout }, sizes }
}

interface LlamaSizes {
  layers: number
  width: number
  inner: number
  heads: number
  keyValueHeads: number
  vocabulary: number
  sequence: number
  tied: boolean
}

function llama(name: string, of: LlamaSizes): BenchModel {
  const { layers, width, inner, heads, keyValueHeads, vocabulary, sequence, tied } = of
  const config = {
    model_type: 'llama',
    num_hidden_layers: layers,
    hidden_size: width,
    intermediate_size: inner,
    num_attention_heads: heads,
    num_key_value_heads: keyValueHeads,
    vocab_size: vocabulary,
    max_position_embeddings: sequence,
    rope_theta: 500000,
    tie_word_embeddings: tied,
  }
  const headSize = width / heads
  const block = 2 * width * headSize * (heads + keyValueHeads) + 3 * width * inner + 2 * width
  const parameters = layers * block + vocabulary * width * (tied ? 1 : 2) + width
  return { name, config, sizes: { parameters, layers, width, heads, keyValueHeads, vocabulary, sequence } }
}

/** GPT-2 124M and 1.5B (vocabulary padded to 50304), Llama 1B (as 3.2) and 8B (as 3); dry: of two layers. */
export function models(dry: boolean): BenchModel[] {
  if (dry) {
    const small = { inner: 96, heads: 8, keyValueHeads: 8, vocabulary: 256, sequence: 32, width: 64, layers: 8 }
    return [
      gpt2('GPT-2 124M (dry)', 8, 64, 8, 256, 32),
      gpt2('GPT-2 1.5B (dry)', 8, 80, 8, 256, 32),
      llama('Llama 1B (dry)', { ...small, tied: true }),
      llama('Llama 8B (dry)', { ...small, width: 96, tied: false }),
    ]
  }
  const wide = { heads: 32, keyValueHeads: 8, vocabulary: 128256 }
  return [
    gpt2('GPT-2 124M', 12, 768, 12, 50304, 1024),
    gpt2('GPT-2 1.5B', 48, 1600, 25, 50304, 1024),
    llama('Llama 1B', { ...wide, layers: 16, width: 2048, inner: 8192, sequence: 2048, tied: true }),
    llama('Llama 8B', { ...wide, layers: 32, width: 4096, inner: 14336, sequence: 4096, tied: false }),
  ]
}

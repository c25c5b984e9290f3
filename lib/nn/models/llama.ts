// The Llama family (Llama 1 to 3, and what shares its architecture), with Hugging Face's names and config keys.

import { checkpoint } from '../../autograd/functions.js'
import { ZeroshardError } from '../../binding/errors.js'
import { cachedAttention } from '../../ops/attention.js'
import * as ops from '../../ops/index.js'
import { keep, unscoped } from '../../tensor/scope.js'
import { type Tensor, tensor } from '../../tensor/tensor.js'
import type { Layer } from '../layered.js'
import { Dropout, Embedding, Linear, RMSNorm } from '../layers.js'
import { Module } from '../module.js'
import { normal } from '../parameter.js'
import { wholeSequence } from '../sequence.js'
import { append, layerOf, makeCache } from './cache.js'
import { LanguageModelHead } from './head.js'
import { type KeyValueCache, LanguageModel, type LayerCache, type Recompute } from './language-model.js'

export interface RopeScaling {
  rope_type?: string
  type?: string
  factor: number
  low_freq_factor?: number
  high_freq_factor?: number
  original_max_position_embeddings?: number
}

/** The keys of Hugging Face's config.json that the Llama family reads. */
export interface LlamaConfig {
  [key: string]: unknown
  model_type: 'llama'
  vocab_size: number
  hidden_size: number
  intermediate_size: number
  num_hidden_layers: number
  num_attention_heads: number
  num_key_value_heads: number | null
  head_dim: number | null
  max_position_embeddings: number
  rms_norm_eps: number
  rope_theta: number
  rope_scaling: RopeScaling | null
  tie_word_embeddings: boolean
  attention_bias: boolean
  attention_dropout: number
  mlp_bias: boolean
  initializer_range: number
}

/** Values of the keys that a configuration leaves out. */
export const llamaDefaults: LlamaConfig = {
  model_type: 'llama',
  vocab_size: 32000,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: null,
  head_dim: null,
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  rope_scaling: null,
  tie_word_embeddings: false,
  attention_bias: false,
  attention_dropout: 0,
  mlp_bias: false,
  initializer_range: 0.02,
}

const ropeKinds = ['default', 'linear', 'llama3']

/** Newer config.json files keep rope_theta and rope_scaling together, as rope_parameters. */
function ropeOf(config: Partial<LlamaConfig>): Partial<LlamaConfig> {
  const together = config.rope_parameters as (RopeScaling & { rope_theta?: number }) | null | undefined
  const { rope_theta: theta, ...scaling } = together ?? {}
  const rope: Partial<LlamaConfig> = {}
  if (theta !== undefined) rope.rope_theta = theta
  if (together) rope.rope_scaling = scaling as RopeScaling
  const given = rope.rope_scaling ?? config.rope_scaling
  const kind = given?.rope_type ?? given?.type ?? 'default'
  if (!ropeKinds.includes(kind))
    throw new ZeroshardError(
      'CONFIG',
      `model.config: rope_type '${kind}' is not served; there are ${ropeKinds.join(', ')}`,
    )
  return rope
}

const headSize = (c: LlamaConfig): number => c.head_dim ?? c.hidden_size / c.num_attention_heads

/** Frequencies of the rotary pairs, with Llama 3's or linear scaling. */
export function ropeFrequencies(c: LlamaConfig): number[] {
  const d = headSize(c)
  const scaling = c.rope_scaling
  const kind = scaling?.rope_type ?? scaling?.type ?? 'default'
  return Array.from({ length: d / 2 }, (_, i) => {
    const frequency = c.rope_theta ** ((-2 * i) / d)
    if (!scaling || kind === 'default') return frequency
    if (kind === 'linear') return frequency / scaling.factor
    const [low, high, old] = [
      scaling.low_freq_factor ?? 1,
      scaling.high_freq_factor ?? 4,
      scaling.original_max_position_embeddings ?? 8192,
    ]
    const wavelength = (2 * Math.PI) / frequency
    if (wavelength < old / high) return frequency
    if (wavelength > old / low) return frequency / scaling.factor
    const smooth = (old / wavelength - low) / (high - low)
    return ((1 - smooth) * frequency) / scaling.factor + smooth * frequency
  })
}

function ropeTable(c: LlamaConfig): Tensor {
  const frequencies = ropeFrequencies(c)
  const values = new Float32Array(c.max_position_embeddings * headSize(c))
  for (let t = 0, at = 0; t < c.max_position_embeddings; t++) {
    for (const frequency of frequencies) values[at++] = Math.cos(t * frequency)
    for (const frequency of frequencies) values[at++] = Math.sin(t * frequency)
  }
  return tensor(values, [c.max_position_embeddings, headSize(c)], { category: 'buffers' })
}

class Attention extends Module {
  readonly q_proj: Linear
  readonly k_proj: Linear
  readonly v_proj: Linear
  readonly o_proj: Linear
  readonly attn_dropout: Dropout
  /** Heads here: all, or this rank's (parallelize), from the first-th of the model's; dropout draws by those. */
  numHeads: number
  numKeyValueHeads: number
  sequence = wholeSequence
  firstHead = 0
  readonly totalHeads: number
  readonly headSize: number

  constructor(c: LlamaConfig) {
    super()
    const d = headSize(c)
    const kv = c.num_key_value_heads ?? c.num_attention_heads
    const config = { bias: c.attention_bias, init: normal(c.initializer_range) }
    this.q_proj = new Linear(c.hidden_size, c.num_attention_heads * d, config)
    this.k_proj = new Linear(c.hidden_size, kv * d, config)
    this.v_proj = new Linear(c.hidden_size, kv * d, config)
    this.o_proj = new Linear(c.num_attention_heads * d, c.hidden_size, config)
    this.attn_dropout = new Dropout(c.attention_dropout)
    this.numHeads = this.totalHeads = c.num_attention_heads
    this.numKeyValueHeads = kv
    this.headSize = d
  }

  forward(x: Tensor, table: Tensor): Tensor {
    const { numHeads, numKeyValueHeads, sequence } = this
    const queries = this.q_proj.forward(x)
    // Of the projection's tokens: x may have a part of them (sequence parallelism).
    const part = sequence.part(queries.shape[1] as number)
    const q = ops.rotary(queries, table, numHeads, part)
    const k = ops.rotary(this.k_proj.forward(x), table, numKeyValueHeads, part)
    const options = { numHeads, numKeyValueHeads, dropout: this.attn_dropout.ofAttention(this) }
    return this.o_proj.forward(sequence.attention(q, k, this.v_proj.forward(x), options))
  }

  cached(x: Tensor, table: Tensor, cache: LayerCache, length: number): Tensor {
    const { numHeads, numKeyValueHeads, headSize } = this
    const tokens = x.shape[1] as number
    const width = numKeyValueHeads * headSize
    const q = ops.rotary(this.q_proj.forward(x), table, numHeads, length)
    append(cache.k, length, ops.rotary(this.k_proj.forward(x), table, numKeyValueHeads, length), tokens, 0, width)
    append(cache.v, length, this.v_proj.forward(x), tokens, 0, width)
    const row = numHeads * headSize
    const o = cachedAttention(
      { tensor: q, offset: 0, row, batch: tokens * row },
      { ...cache, length: length + tokens },
      { numHeads, numKeyValueHeads, tokens, headSize },
    )
    return this.o_proj.forward(o)
  }
}

class Mlp extends Module {
  readonly gate_proj: Linear
  readonly up_proj: Linear
  readonly down_proj: Linear
  constructor(c: LlamaConfig) {
    super()
    const config = { bias: c.mlp_bias, init: normal(c.initializer_range) }
    this.gate_proj = new Linear(c.hidden_size, c.intermediate_size, config)
    this.up_proj = new Linear(c.hidden_size, c.intermediate_size, config)
    this.down_proj = new Linear(c.intermediate_size, c.hidden_size, config)
  }

  forward(x: Tensor): Tensor {
    return this.down_proj.forward(ops.swiglu(this.gate_proj.forward(x), this.up_proj.forward(x)))
  }
}

class Block extends Module {
  readonly self_attn: Attention
  readonly mlp: Mlp
  readonly input_layernorm: RMSNorm
  readonly post_attention_layernorm: RMSNorm
  constructor(c: LlamaConfig) {
    super()
    this.self_attn = new Attention(c)
    this.mlp = new Mlp(c)
    this.input_layernorm = new RMSNorm(c.hidden_size, c.rms_norm_eps)
    this.post_attention_layernorm = new RMSNorm(c.hidden_size, c.rms_norm_eps)
  }

  #rest(attended: Tensor, x: Tensor): Tensor {
    const { y, sum } = this.post_attention_layernorm.forwardAdd(attended, x)
    return ops.add(sum, this.mlp.forward(y))
  }

  forward(x: Tensor, table: Tensor, recompute: Recompute): Tensor {
    const attend = (input: Tensor): Tensor => this.self_attn.forward(this.input_layernorm.forward(input), table)
    return this.#rest(recompute.attention ? checkpoint(attend, x) : attend(x), x)
  }

  cached(x: Tensor, table: Tensor, cache: LayerCache, length: number): Tensor {
    return this.#rest(this.self_attn.cached(this.input_layernorm.forward(x), table, cache, length), x)
  }
}

class Transformer extends Module {
  readonly embed_tokens: Embedding
  readonly layers: Block[]
  readonly norm: RMSNorm
  sequence = wholeSequence
  readonly #config: LlamaConfig
  #table: Tensor | undefined

  constructor(c: LlamaConfig) {
    super()
    this.embed_tokens = new Embedding(c.vocab_size, c.hidden_size, normal(c.initializer_range))
    this.layers = Array.from({ length: c.num_hidden_layers }, () => new Block(c))
    this.norm = new RMSNorm(c.hidden_size, c.rms_norm_eps)
    this.#config = c
  }

  /** cos and sin of every position, made at first use; the model's own. */
  get table(): Tensor {
    this.#table ??= unscoped(() => keep(ropeTable(this.#config)))
    return this.#table
  }

  disposeTable(): void {
    this.#table?.dispose()
    this.#table = undefined
  }

  forward(ids: Tensor): Tensor {
    return this.embed_tokens.forward(this.sequence.take(ids))
  }
}

/**
 * The Llama family with Hugging Face's names: RMS norm, rotary positions, grouped-query heads, SwiGLU.
 *
 * @example
 * const small = { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2 }
 * new Llama({ ...small, max_position_embeddings: 8, vocab_size: 32 }).vocabSize // 32
 */
export class Llama extends LanguageModel {
  readonly config: LlamaConfig
  readonly vocabSize: number
  readonly maxPositions: number
  readonly model: Transformer
  readonly lm_head: LanguageModelHead

  constructor(config: Partial<LlamaConfig>) {
    super()
    const c = { ...llamaDefaults, ...config, ...ropeOf(config) }
    this.config = c
    this.vocabSize = c.vocab_size
    this.maxPositions = c.max_position_embeddings
    this.model = new Transformer(c)
    this.lm_head = new LanguageModelHead(c.hidden_size, c.vocab_size, normal(c.initializer_range))
    if (c.tie_word_embeddings) Object.assign(this.lm_head, { weight: this.model.embed_tokens.weight })
  }

  get norm(): RMSNorm {
    return this.model.norm
  }

  body(): Layer[] {
    const { embed_tokens, layers } = this.model
    return [
      { type: 'embedding', time: 0, modules: [embed_tokens], forward: (_, [ids]) => this.model.forward(ids as Tensor) },
      ...this.blocks(layers, (block, x) => block.forward(x, this.model.table, this.recompute)),
    ]
  }

  newCache(capacity: number): KeyValueCache {
    const { numKeyValueHeads, headSize } = (this.model.layers[0] as Block).self_attn
    const { num_hidden_layers } = this.config
    return makeCache(num_hidden_layers, capacity, numKeyValueHeads * headSize, this.lm_head.weight.tensor.dtype)
  }

  nextLogits(ids: Tensor, cache: KeyValueCache): Tensor {
    const tokens = ids.shape[1] as number
    let x = this.model.embed_tokens.forward(ids)
    this.model.layers.forEach((block, index) => {
      x = block.cached(x, this.model.table, layerOf(cache, index), cache.length)
    })
    cache.length += tokens
    const last = ops.slice(this.model.norm.forward(x), 1, tokens - 1, tokens)
    return this.lm_head.logits(ops.reshape(last, [1, this.config.hidden_size]))
  }

  override dispose(): void {
    super.dispose()
    this.model.disposeTable()
  }
}

// GPT-2, with Hugging Face's names and config keys (transformers GPT2LMHeadModel). A plain model: it knows
// nothing of parallelism.

import { checkpoint } from '../../autograd/functions.js'
import { ZeroshardError } from '../../binding/errors.js'
import { cachedAttention } from '../../ops/attention.js'
import * as ops from '../../ops/index.js'
import { type Tensor, tensor } from '../../tensor/tensor.js'
import type { Layer } from '../layered.js'
import { Conv1D, Dropout, Embedding, LayerNorm } from '../layers.js'
import { Module } from '../module.js'
import { normal } from '../parameter.js'
import { positionsOf, wholeSequence } from '../sequence.js'
import { append, layerOf, makeCache } from './cache.js'
import { LanguageModelHead } from './head.js'
import { type KeyValueCache, LanguageModel, type LayerCache, type Recompute } from './language-model.js'

/** The keys of Hugging Face's config.json that GPT-2 reads. */
export interface Gpt2Config {
  [key: string]: unknown
  model_type: 'gpt2'
  vocab_size: number
  n_positions: number
  n_embd: number
  n_layer: number
  n_head: number
  n_inner: number | null
  activation_function: string
  resid_pdrop: number
  embd_pdrop: number
  attn_pdrop: number
  layer_norm_epsilon: number
  initializer_range: number
  tie_word_embeddings: boolean
  scale_attn_weights: boolean
}

/** Values of the keys that a configuration leaves out: GPT-2 124M. */
export const gpt2Defaults: Gpt2Config = {
  model_type: 'gpt2',
  vocab_size: 50257,
  n_positions: 1024,
  n_embd: 768,
  n_layer: 12,
  n_head: 12,
  n_inner: null,
  activation_function: 'gelu_new',
  resid_pdrop: 0.1,
  embd_pdrop: 0.1,
  attn_pdrop: 0.1,
  layer_norm_epsilon: 1e-5,
  initializer_range: 0.02,
  tie_word_embeddings: true,
  scale_attn_weights: true,
}

const fused = { gelu_new: 'geluTanh', gelu_pytorch_tanh: 'geluTanh', gelu: 'gelu' } as const

class Attention extends Module {
  readonly c_attn: Conv1D
  readonly c_proj: Conv1D
  readonly attn_dropout: Dropout
  readonly resid_dropout: Dropout
  /** Heads here: all, or this rank's (parallelize), from the first-th of the model's; dropout draws by those. */
  numHeads: number
  sequence = wholeSequence
  firstHead = 0
  readonly totalHeads: number
  readonly headSize: number
  readonly #scale: number | undefined

  constructor(c: Gpt2Config) {
    super()
    this.c_attn = new Conv1D(c.n_embd, 3 * c.n_embd, normal(c.initializer_range))
    this.c_proj = new Conv1D(c.n_embd, c.n_embd, normal(c.initializer_range / Math.sqrt(2 * c.n_layer)))
    this.attn_dropout = new Dropout(c.attn_pdrop)
    this.resid_dropout = new Dropout(c.resid_pdrop)
    this.numHeads = this.totalHeads = c.n_head
    this.headSize = c.n_embd / c.n_head
    this.#scale = c.scale_attn_weights ? undefined : 1
  }

  forward(x: Tensor): Tensor {
    const o = this.sequence.packedAttention(this.c_attn.forward(x), {
      numHeads: this.numHeads,
      scale: this.#scale,
      dropout: this.attn_dropout.ofAttention(this),
    })
    return this.resid_dropout.forward(this.c_proj.forward(o))
  }

  cached(x: Tensor, cache: LayerCache, length: number): Tensor {
    const qkv = this.c_attn.forward(x)
    const tokens = x.shape[1] as number
    const c = this.numHeads * this.headSize
    append(cache.k, length, qkv, tokens, c, 3 * c)
    append(cache.v, length, qkv, tokens, 2 * c, 3 * c)
    const q = { tensor: qkv, offset: 0, row: 3 * c, batch: tokens * 3 * c }
    const o = cachedAttention(
      q,
      { ...cache, length: length + tokens },
      { numHeads: this.numHeads, tokens, headSize: this.headSize, scale: this.#scale },
    )
    return this.c_proj.forward(o)
  }
}

class Mlp extends Module {
  readonly c_fc: Conv1D
  readonly c_proj: Conv1D
  readonly dropout: Dropout
  readonly #activation: 'relu' | 'silu' | undefined

  constructor(c: Gpt2Config) {
    super()
    const inner = c.n_inner ?? 4 * c.n_embd
    const activation = fused[c.activation_function as keyof typeof fused]
    this.c_fc = new Conv1D(c.n_embd, inner, normal(c.initializer_range), activation)
    this.c_proj = new Conv1D(inner, c.n_embd, normal(c.initializer_range / Math.sqrt(2 * c.n_layer)))
    this.dropout = new Dropout(c.resid_pdrop)
    this.#activation = activation ? undefined : (c.activation_function as 'relu' | 'silu')
  }

  forward(x: Tensor): Tensor {
    const h = this.c_fc.forward(x)
    return this.dropout.forward(this.c_proj.forward(this.#activation ? ops[this.#activation](h) : h))
  }
}

class Block extends Module {
  readonly ln_1: LayerNorm
  readonly attn: Attention
  readonly ln_2: LayerNorm
  readonly mlp: Mlp

  constructor(c: Gpt2Config) {
    super()
    this.ln_1 = new LayerNorm(c.n_embd, c.layer_norm_epsilon)
    this.attn = new Attention(c)
    this.ln_2 = new LayerNorm(c.n_embd, c.layer_norm_epsilon)
    this.mlp = new Mlp(c)
  }

  forward(x: Tensor, recompute: Recompute): Tensor {
    const attend = (input: Tensor): Tensor => this.attn.forward(this.ln_1.forward(input))
    const { y, sum } = this.ln_2.forwardAdd(recompute.attention ? checkpoint(attend, x) : attend(x), x)
    return ops.add(sum, this.mlp.forward(y))
  }

  cached(x: Tensor, cache: LayerCache, length: number): Tensor {
    const { y, sum } = this.ln_2.forwardAdd(this.attn.cached(this.ln_1.forward(x), cache, length), x)
    return ops.add(sum, this.mlp.forward(y))
  }
}

class Transformer extends Module {
  readonly wte: Embedding
  readonly wpe: Embedding
  readonly drop: Dropout
  readonly h: Block[]
  readonly ln_f: LayerNorm
  readonly maxPositions: number
  sequence = wholeSequence

  constructor(c: Gpt2Config) {
    super()
    this.maxPositions = c.n_positions
    this.wte = new Embedding(c.vocab_size, c.n_embd, normal(c.initializer_range))
    this.wpe = new Embedding(c.n_positions, c.n_embd, normal(c.initializer_range))
    this.drop = new Dropout(c.embd_pdrop)
    this.h = Array.from({ length: c.n_layer }, () => new Block(c))
    this.ln_f = new LayerNorm(c.n_embd, c.layer_norm_epsilon)
  }

  embed(ids: Tensor, part?: ops.SequencePart): Tensor {
    const tokens = ids.shape[1] as number
    const length = part?.length ?? tokens
    if (length > this.maxPositions)
      throw new ZeroshardError(
        'SHAPE',
        `a sequence of ${length} tokens, but n_positions is ${this.maxPositions}; shorten it, or build the model with more`,
      )
    const positions = tensor(positionsOf(part, tokens), [tokens])
    return this.drop.forward(ops.add(this.wte.forward(ids), this.wpe.forward(positions)))
  }

  forward(ids: Tensor): Tensor {
    const own = this.sequence.take(ids)
    return this.embed(own, this.sequence.part(own.shape[1] as number))
  }
}

/**
 * GPT-2 with Hugging Face's names.
 *
 * @example
 * new Gpt2({ n_layer: 1, n_head: 2, n_embd: 16, n_positions: 8, vocab_size: 32 }).maxPositions // 8
 */
export class Gpt2 extends LanguageModel {
  readonly config: Gpt2Config
  readonly vocabSize: number
  readonly maxPositions: number
  readonly transformer: Transformer
  readonly lm_head: LanguageModelHead

  constructor(config: Partial<Gpt2Config>) {
    super()
    const c = { ...gpt2Defaults, ...config }
    this.config = c
    this.vocabSize = c.vocab_size
    this.maxPositions = c.n_positions
    this.transformer = new Transformer(c)
    this.lm_head = new LanguageModelHead(c.n_embd, c.vocab_size, normal(c.initializer_range))
    if (c.tie_word_embeddings) Object.assign(this.lm_head, { weight: this.transformer.wte.weight })
  }

  get norm(): LayerNorm {
    return this.transformer.ln_f
  }

  body(): Layer[] {
    const { wte, wpe, drop, h } = this.transformer
    return [
      {
        type: 'embedding',
        time: 0,
        modules: [wte, wpe, drop],
        forward: (_, [ids]) => this.transformer.forward(ids as Tensor),
      },
      ...this.blocks(h, (block, x) => block.forward(x, this.recompute)),
    ]
  }

  newCache(capacity: number): KeyValueCache {
    const { numHeads, headSize } = (this.transformer.h[0] as Block).attn
    return makeCache(this.config.n_layer, capacity, numHeads * headSize, this.lm_head.weight.tensor.dtype)
  }

  nextLogits(ids: Tensor, cache: KeyValueCache): Tensor {
    const tokens = ids.shape[1] as number
    let x = this.transformer.embed(ids, { first: cache.length, length: cache.capacity })
    this.transformer.h.forEach((block, index) => {
      x = block.cached(x, layerOf(cache, index), cache.length)
    })
    cache.length += tokens
    const last = ops.slice(this.transformer.ln_f.forward(x), 1, tokens - 1, tokens)
    return this.lm_head.logits(ops.reshape(last, [1, this.config.n_embd]))
  }
}

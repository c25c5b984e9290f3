// Floating-point operations of language models from their Hugging Face configurations, and what part of the
// machine's peak a run uses (MFU). Counted are matrix products, 2 operations a multiply-add.

import { binding } from '../binding/native.js'
import { tidy } from '../tensor/scope.js'
import { type DType, empty, runOp } from '../tensor/tensor.js'

export interface ModelFlops {
  /** Weights that a token is multiplied with; embeddings are looked up, so only the classifier counts of them. */
  matmulParameters: number
  /** Forward, for one token: of the weights, and of attention. */
  weights: number
  attention: number
  forward: number
  /** Forward and backward: three times forward, whatever is computed again (6N + 12·layers·width·sequence). */
  training: number
}

interface Shape {
  /** Weights of one block and of the classifier. */
  block: number
  classifier: number
  layers: number
  /** heads · head size */
  attentionWidth: number
}

/**
 * FLOPs a token, or undefined for a model of another kind. `causal`: only the pairs that the mask lets through
 * count; published MFU figures (PaLM, appendix B) count all, so that is the default.
 *
 * @example
 * monitor.modelFlops({ n_embd: 8, n_layer: 1, vocab_size: 16 }, 4)?.matmulParameters // 896
 */
export function modelFlops(
  config: Record<string, unknown>,
  sequenceLength: number,
  options: { causal?: boolean } = {},
): ModelFlops | undefined {
  const shape = gpt2Shape(config) ?? llamaShape(config)
  if (!shape) return undefined
  const matmulParameters = shape.layers * shape.block + shape.classifier
  const keys = options.causal ? (sequenceLength + 1) / 2 : sequenceLength
  const weights = 2 * matmulParameters
  const attention = 4 * shape.layers * shape.attentionWidth * keys
  return { matmulParameters, weights, attention, forward: weights + attention, training: 3 * (weights + attention) }
}

function gpt2Shape(config: Record<string, unknown>): Shape | undefined {
  const { n_embd: width, n_layer: layers, n_inner, vocab_size } = config
  if (typeof width !== 'number' || typeof layers !== 'number' || typeof vocab_size !== 'number') return undefined
  const inner = typeof n_inner === 'number' ? n_inner : 4 * width
  return {
    block: 4 * width * width + 2 * width * inner,
    classifier: vocab_size * width,
    layers,
    attentionWidth: width,
  }
}

/** Also of its kin with experts: the chosen ones count, and the router. */
function llamaShape(config: Record<string, unknown>): Shape | undefined {
  const of = (key: string): number | undefined => (typeof config[key] === 'number' ? config[key] : undefined)
  const [width, inner, layers] = [of('hidden_size'), of('intermediate_size'), of('num_hidden_layers')]
  const [heads, vocabulary] = [of('num_attention_heads'), of('vocab_size')]
  if (!width || !inner || !layers || !heads || !vocabulary) return undefined
  const headSize = of('head_dim') ?? width / heads
  const keyValues = of('num_key_value_heads') ?? heads
  const experts = of('num_local_experts') ?? 0
  const mlps = experts ? (of('num_experts_per_tok') ?? 2) : 1
  return {
    block: 2 * width * headSize * (heads + keyValues) + mlps * 3 * width * inner + experts * width,
    classifier: vocabulary * width,
    layers,
    attentionWidth: heads * headSize,
  }
}

/**
 * Model FLOPs utilisation, 0 to 1: `peak` in FLOP/s of one rank.
 *
 * @example
 * monitor.mfu({ flopsPerToken: 1e9, tokensPerSecond: 1000, peak: 4e12, ranks: 1 }) // 0.25
 */
export const mfu = (call: { flopsPerToken: number; tokensPerSecond: number; peak: number; ranks: number }): number =>
  (call.flopsPerToken * call.tokensPerSecond) / (call.peak * call.ranks)

/** FLOP/s of this rank's matrix product of size³, by the device's own clock: the best of some. Blocks for as long. */
export function measurePeak(options: { dtype?: DType; size?: number; repeats?: number } = {}): number {
  const { dtype = 'f32', size = 1024, repeats = 5 } = options
  const { native } = binding()
  return tidy(() => {
    const make = (type: DType) => empty([size, size], { dtype: type, category: 'buffers' })
    const [a, b, y] = [make(dtype), make(dtype), make(dtype)]
    for (const x of [a, b]) runOp('fill', [x], [], [0.5])
    let best = 0
    for (let i = 0; i <= repeats; i++) {
      native.synchronizeSync(-1)
      const before = native.streamStats().busySeconds[0] as number
      runOp('matmul', [y, undefined], [a, b, undefined, undefined, undefined], [1, size, size, size, 0, 1, 0, 0])
      native.synchronizeSync(-1)
      const seconds = (native.streamStats().busySeconds[0] as number) - before
      if (i > 0) best = Math.max(best, (2 * size ** 3) / seconds) // the first one warms up
    }
    return best
  })
}

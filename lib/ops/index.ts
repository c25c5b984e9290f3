// All differentiable operations.

export * from './arithmetic.js'
export { type AttentionDropout, type AttentionOptions, attention, packedAttention, rotary } from './attention.js'
export { embedding } from './embedding.js'
export type { Quantized, Quantizer, Wanted } from './float8.js'
export * from './layout.js'
export { type LinearOptions, linear, type Multiply, matmul } from './linear.js'
export * from './loss.js'
export * from './norm.js'
export { dropout, type SequencePart } from './random.js'

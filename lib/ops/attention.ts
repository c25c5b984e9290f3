// Causal attention with grouped-query heads, on separate or packed q, k, v; rotary embedding.

import { record } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'
import { checkDType, checkFloat } from './check.js'
import type { SequencePart } from './random.js'

export interface AttentionOptions {
  numHeads: number
  numKeyValueHeads?: number
  causal?: boolean
  /** Default 1/sqrt(D). */
  scale?: number
}

/** Where q, k or v lies: tensor, offset of its first element, elements per token and per sequence. */
export interface Part {
  tensor: Tensor
  offset: number
  row: number
  batch: number
}

export interface Geometry {
  b: number
  tq: number
  tk: number
  hq: number
  hkv: number
  d: number
  scale: number
  causal: boolean
  position: number
}

/** Which queries of o, lse and do these are, and whether other keys were there before (native/ops/attention.h). */
export interface Place {
  continues: boolean
  first: number
  tokens: number
}

export function scalarsOf(g: Geometry, q: Part, k: Part, v: Part, place?: Place): number[] {
  return [
    g.b,
    g.tq,
    g.tk,
    g.hq,
    g.hkv,
    g.d,
    g.scale,
    g.causal ? 1 : 0,
    g.position,
    q.offset,
    q.row,
    q.batch,
    k.offset,
    k.row,
    k.batch,
    v.offset,
    v.row,
    v.batch,
    place?.continues ? 1 : 0,
    place?.first ?? 0,
    place?.tokens ?? g.tq,
  ]
}

function forward(g: Geometry, q: Part, k: Part, v: Part): { o: Tensor; lse: Tensor } {
  const o = empty([g.b, g.tq, g.hq * g.d], { dtype: q.tensor.dtype })
  const lse = empty([g.b, g.hq, g.tq])
  runOp('attention_forward', [o, lse], [q.tensor, k.tensor, v.tensor], scalarsOf(g, q, k, v))
  return { o, lse }
}

function headsOf(op: string, x: Tensor, heads: number): number {
  const width = x.shape[2]
  if (x.shape.length !== 3 || width === undefined || width % heads !== 0) {
    throw new ZeroshardError('SHAPE', `[${op}] ${x.describe()} must be (B, T, heads × D) with ${heads} heads`)
  }
  return width / heads
}

/** Where q, k and v lie in qkv (B, T, (Hq + 2·Hkv)·D). */
export function packedParts(qkv: Tensor, numHeads: number, numKeyValueHeads: number, d: number): [Part, Part, Part] {
  const row = qkv.shape[2] as number
  const batch = row * (qkv.shape[1] as number)
  return [0, numHeads, numHeads + numKeyValueHeads].map((head) => ({ tensor: qkv, offset: head * d, row, batch })) as [
    Part,
    Part,
    Part,
  ]
}

/** Self-attention of packed qkv (B, T, (Hq + 2·Hkv)·D), as GPT-2's c_attn makes it → (B, T, Hq·D). */
export function packedAttention(qkv: Tensor, options: AttentionOptions): Tensor {
  checkFloat('packedAttention', qkv)
  const { numHeads: hq, numKeyValueHeads: hkv = hq } = options
  const d = headsOf('packedAttention', qkv, hq + 2 * hkv)
  const [b, t] = qkv.shape as [number, number]
  const g: Geometry = {
    b,
    tq: t,
    tk: t,
    hq,
    hkv,
    d,
    scale: options.scale ?? d ** -0.5,
    causal: options.causal ?? true,
    position: 0,
  }
  const parts = packedParts(qkv, hq, hkv, d)
  const { o, lse } = forward(g, ...parts)
  record('packedAttention', [o], [qkv], [qkv, o, lse], ([dy]) => {
    if (!dy) return []
    const dqkv = empty(qkv.shape, { dtype: qkv.dtype })
    runOp('attention_backward', [dqkv, dqkv, dqkv], [dy, qkv, qkv, qkv, o, lse], scalarsOf(g, ...parts))
    return [dqkv]
  })
  lse.dispose()
  return o
}

/** Attention of q (B, T, Hq·D) over k, v (B, S, Hkv·D) → (B, T, Hq·D). Causal: the last query sees the last key. */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  checkFloat('attention', q, k, v)
  const g = geometryOf(q, k, v, options)
  const part = (x: Tensor): Part => ({
    tensor: x,
    offset: 0,
    row: x.shape[2] as number,
    batch: (x.shape[1] as number) * (x.shape[2] as number),
  })
  const { o, lse } = forward(g, part(q), part(k), part(v))
  record('attention', [o], [q, k, v], [q, k, v, o, lse], ([dy]) => {
    if (!dy) return []
    const [dq, dk, dv] = [q, k, v].map((x) => empty(x.shape, { dtype: x.dtype })) as [Tensor, Tensor, Tensor]
    runOp('attention_backward', [dq, dk, dv], [dy, q, k, v, o, lse], scalarsOf(g, part(q), part(k), part(v)))
    return [dq, dk, dv]
  })
  lse.dispose()
  return o
}

function geometryOf(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Geometry {
  const hq = options.numHeads
  const hkv = options.numKeyValueHeads ?? hq
  const d = headsOf('attention', q, hq)
  const fits =
    headsOf('attention', k, hkv) === d &&
    headsOf('attention', v, hkv) === d &&
    hq % hkv === 0 &&
    k.shape[0] === q.shape[0] &&
    v.shape[0] === q.shape[0] &&
    k.shape[1] === v.shape[1]
  if (!fits) {
    throw new ZeroshardError(
      'SHAPE',
      `[attention] q ${q.describe()} (${hq} heads), k ${k.describe()}, v ${v.describe()} (${hkv} heads) do not fit`,
    )
  }
  const [b, tq] = q.shape as [number, number]
  const tk = k.shape[1] as number
  return { b, tq, tk, hq, hkv, d, scale: options.scale ?? d ** -0.5, causal: options.causal ?? true, position: tk - tq }
}

/**
 * Attention over a key/value cache (B, S, Hkv·D), of which the first `length` tokens are filled; for generation,
 * not differentiable. q, k or v may be packed: `part` says where each lies.
 */
export function cachedAttention(
  q: Part,
  cache: { k: Tensor; v: Tensor; length: number },
  options: AttentionOptions & { tokens: number; headSize: number },
): Tensor {
  const hkv = options.numKeyValueHeads ?? options.numHeads
  const [b, capacity, width] = cache.k.shape as [number, number, number]
  const g: Geometry = {
    b,
    tq: options.tokens,
    tk: cache.length,
    hq: options.numHeads,
    hkv,
    d: options.headSize,
    scale: options.scale ?? options.headSize ** -0.5,
    causal: true,
    position: cache.length - options.tokens,
  }
  const { o, lse } = forward(
    g,
    q,
    { tensor: cache.k, offset: 0, row: width, batch: capacity * width },
    { tensor: cache.v, offset: 0, row: width, batch: capacity * width },
  )
  lse.dispose()
  return o
}

/**
 * Rotates x (B, T, H·D) by `table` (positions, D) f32: cos in the first half of D, sin in the second. The tokens stand
 * at `position` and behind it, or where the part of a sequence says.
 */
export function rotary(x: Tensor, table: Tensor, numHeads: number, position: number | SequencePart = 0): Tensor {
  checkFloat('rotary', x)
  checkDType('rotary', table, 'f32')
  const d = headsOf('rotary', x, numHeads)
  const [b, t] = x.shape as [number, number]
  const part = typeof position === 'number' ? { first: position } : position
  const { first, split = t, second = 0 } = part as Partial<SequencePart> & { first: number }
  const end = Math.max(first + Math.min(split, t), second + t - split)
  if (table.shape[1] !== d || end > (table.shape[0] as number)) {
    throw new ZeroshardError(
      'SHAPE',
      `[rotary] table ${table.describe()} does not cover positions ${first} to ${end} of D ${d}`,
    )
  }
  const rotate = (source: Tensor, inverse: number): Tensor => {
    const y = empty(source.shape, { dtype: source.dtype })
    runOp('rotary', [y], [source, table], [b, t, numHeads, d, first, inverse, split, second])
    return y
  }
  const y = rotate(x, 0)
  record('rotary', [y], [x], [table], ([dy]) => [dy && rotate(dy, 1)])
  return y
}

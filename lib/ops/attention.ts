// Causal attention with grouped-query heads, on separate or packed q, k, v; rotary embedding.

import { record } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { empty, runOp, type Scalars, type Tensor } from '../tensor/tensor.js'
import { checkDType, checkFloat } from './check.js'
import { checkProbability, drawsAt, randomState, type SequencePart } from './random.js'

/** Options of `attention`. */
export interface AttentionOptions {
  numHeads: number
  numKeyValueHeads?: number
  causal?: boolean
  /** Default 1/sqrt(D). */
  scale?: number
  /** Zeroes weights (after the softmax) with probability p and scales the rest by 1/(1-p). */
  dropout?: AttentionDropout | undefined
}

/**
 * What is drawn depends on the seed, the step, `site` and the weight's place in the whole (sample, head, query,
 * key). Where this call sees a part of the heads or of the sequence, the other fields say which.
 */
export interface AttentionDropout {
  p: number
  /** Name of the place in the model; default: the next draw of this micro-batch. */
  site?: string
  /** This part's first head of q, and the heads of the whole; default 0 and `numHeads`. */
  firstHead?: number
  totalHeads?: number
  /** The first query's and key's place in the sequence, and its length; default: the last query sees the last key. */
  firstQuery?: number
  firstKey?: number
  length?: number
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
  /** The scalars of dropout (native/ops/attention.h); undefined: there is none. */
  draws?: (() => readonly number[]) | undefined
}

const noDraws: readonly number[] = new Array(9).fill(0)

function drawsOf(
  op: string,
  g: { tq: number; tk: number; hq: number },
  dropout: AttentionDropout | undefined,
): (() => readonly number[]) | undefined {
  if (!dropout) return undefined
  checkProbability(op, dropout.p)
  if (dropout.p === 0) return undefined
  const length = dropout.length ?? Math.max(g.tq, g.tk)
  const { p, site, firstHead = 0, totalHeads = g.hq, firstQuery = length - g.tq, firstKey = length - g.tk } = dropout
  const inside = firstHead + g.hq <= totalHeads && firstQuery + g.tq <= length && firstKey + g.tk <= length
  if (!inside || Math.min(firstHead, firstQuery, firstKey) < 0) {
    throw new ZeroshardError(
      'ARGUMENT',
      `[${op}] dropout of heads ${firstHead} to ${firstHead + g.hq} of ${totalHeads}, queries from ${firstQuery} (${g.tq}) and keys from ${firstKey} (${g.tk}) of ${length}: the part must lie in the whole`,
    )
  }
  const { firstSample } = randomState
  const draws = drawsAt(site)
  return () => {
    const { seed, site: place } = draws()
    return [p, seed, place, firstSample, firstHead, totalHeads, firstQuery, firstKey, length]
  }
}

/** Which queries of o, lse and do these are, and whether other keys were there before (native/ops/attention.h). */
export interface Place {
  continues: boolean
  first: number
  tokens: number
}

export function scalarsOf(g: Geometry, q: Part, k: Part, v: Part, place?: Place): Scalars {
  const { draws } = g
  return draws ? () => numbersOf(g, q, k, v, draws(), place) : numbersOf(g, q, k, v, noDraws, place)
}

function numbersOf(g: Geometry, q: Part, k: Part, v: Part, draws: readonly number[], place?: Place): number[] {
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
    ...draws,
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

/** Sizes of an attention, and where its q, k and v lie. */
export interface Parts {
  g: Geometry
  parts: [Part, Part, Part]
}

/** Of qkv (B, T, (Hq + 2·Hkv)·D). */
export function packedParts(qkv: Tensor, options: AttentionOptions): Parts {
  const op = 'packedAttention'
  checkFloat(op, qkv)
  const { numHeads: hq, numKeyValueHeads: hkv = hq, causal = true, dropout } = options
  const d = headsOf(op, qkv, hq + 2 * hkv)
  if (hq % hkv !== 0)
    throw new ZeroshardError('SHAPE', `[${op}] ${hq} heads cannot share ${hkv} of keys and values; use a divisor`)
  const [b, t, row] = qkv.shape as [number, number, number]
  const sizes = { b, tq: t, tk: t, hq, hkv, d, scale: options.scale ?? d ** -0.5, causal, position: 0 }
  const part = (head: number): Part => ({ tensor: qkv, offset: head * d, row, batch: t * row })
  return { g: { ...sizes, draws: drawsOf(op, sizes, dropout) }, parts: [part(0), part(hq), part(hq + hkv)] }
}

/**
 * Self-attention of packed qkv (B, T, (Hq + 2·Hkv)·D), as GPT-2's c_attn makes it → (B, T, Hq·D).
 *
 * @example
 * ops.packedAttention(tensor([0, 0, 7], [1, 1, 3]), { numHeads: 1 }) // [7]
 */
export function packedAttention(qkv: Tensor, options: AttentionOptions): Tensor {
  const { g, parts } = packedParts(qkv, options)
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

/**
 * Attention of q (B, T, Hq·D) over k, v (B, S, Hkv·D) → (B, T, Hq·D). Causal: the last query sees the last key.
 *
 * @example
 * const x = tensor([1, 0, 0, 1], [1, 2, 2])
 * ops.attention(x, x, x, { numHeads: 1 }) // [1, 0, 0.3302, 0.6698]
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  const { g, parts } = separateParts(q, k, v, options)
  const { o, lse } = forward(g, ...parts)
  record('attention', [o], [q, k, v], [q, k, v, o, lse], ([dy]) => {
    if (!dy) return []
    const [dq, dk, dv] = [q, k, v].map((x) => empty(x.shape, { dtype: x.dtype })) as [Tensor, Tensor, Tensor]
    runOp('attention_backward', [dq, dk, dv], [dy, q, k, v, o, lse], scalarsOf(g, ...parts))
    return [dq, dk, dv]
  })
  lse.dispose()
  return o
}

/** Of q (B, T, Hq·D) and k, v (B, S, Hkv·D). */
export function separateParts(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Parts {
  checkFloat('attention', q, k, v)
  const part = (x: Tensor): Part => {
    const [, tokens, row] = x.shape as [number, number, number]
    return { tensor: x, offset: 0, row, batch: tokens * row }
  }
  return { g: geometryOf(q, k, v, options), parts: [part(q), part(k), part(v)] }
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
  return {
    b,
    tq,
    tk,
    hq,
    hkv,
    d,
    scale: options.scale ?? d ** -0.5,
    causal: options.causal ?? true,
    position: tk - tq,
    draws: drawsOf('attention', { tq, tk, hq }, options.dropout),
  }
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
 *
 * @example
 * const quarterTurn = tensor([0, 1], [1, 2])
 * ops.rotary(tensor([1, 2], [1, 1, 2]), quarterTurn, 1) // [-2, 1]
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

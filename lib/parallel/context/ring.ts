// Ring attention (Liu et al. 2023): every rank keeps its queries; keys and values go round, and what a block of them
// gives is joined to the rest by its log-sum-exp. While a block is computed the next one is under way. In backward keys
// and values go round again, with their gradients (f32), which come home with all ranks' parts.
// Sums are in the order of the ring: the same bits in every run.

import { record } from '../../autograd/tape.js'
import { type AttentionOptions, type Part, packedParts } from '../../ops/attention.js'
import { type AttentionBlock, attendBlock, attendBlockBackward, shifted } from '../../ops/attention-block.js'
import { type DType, empty, runOp, type Tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { chunksOf } from './layout.js'

/** Tags of messages: keys and values in forward and backward, and their gradients. */
const FORWARD = 1
const BACKWARD = 2
const GRADIENTS = 3

/** One attention of this rank's tokens: where q, k, v lie, and the sizes. */
interface Ring {
  group: ProcessGroup
  b: number
  tokens: number
  hq: number
  hkv: number
  d: number
  scale: number
  causal: boolean
  q: Part
  k: Part
  v: Part
}

/** As ops.packedAttention, of a rank's tokens. */
export function ringPackedAttention(qkv: Tensor, options: AttentionOptions, group: ProcessGroup): Tensor {
  const { numHeads: hq, numKeyValueHeads: hkv = hq } = options
  const d = (qkv.shape[2] as number) / (hq + 2 * hkv)
  const [q, k, v] = packedParts(qkv, hq, hkv, d)
  const ring = ringOf(q, k, v, d, options, group)
  const { o, lse } = forward(ring)
  record('ringAttention', [o], [qkv], [qkv, o, lse], ([dy]) => {
    if (!dy) return []
    const dqkv = empty(qkv.shape, { zero: true })
    const dkv = backward(ring, dy, o, lse, dqkv)
    const width = 2 * hkv * d
    runOp('copy_2d', [dqkv], [dkv], [ring.b * ring.tokens, width, hq * d, qkv.shape[2] as number, 0, width])
    return [inType(dqkv, qkv.dtype)]
  })
  lse.dispose()
  return o
}

/** As ops.attention, of a rank's tokens. */
export function ringAttention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions, group: ProcessGroup): Tensor {
  const d = (q.shape[2] as number) / options.numHeads
  const part = (x: Tensor): Part => {
    const [, tokens, row] = x.shape as [number, number, number]
    return { tensor: x, offset: 0, row, batch: tokens * row }
  }
  const ring = ringOf(part(q), part(k), part(v), d, options, group)
  const { o, lse } = forward(ring)
  record('ringAttention', [o], [q, k, v], [q, k, v, o, lse], ([dy]) => {
    if (!dy) return []
    const dq = empty(q.shape, { zero: true })
    const dkv = backward(ring, dy, o, lse, dq)
    const width = ring.hkv * d
    const [dk, dv] = [0, width].map((offset) => {
      const half = empty(k.shape)
      runOp('copy_2d', [half], [dkv], [ring.b * ring.tokens, width, 0, width, offset, 2 * width])
      return inType(half, k.dtype)
    })
    return [inType(dq, q.dtype), dk, dv]
  })
  lse.dispose()
  return o
}

function ringOf(q: Part, k: Part, v: Part, d: number, options: AttentionOptions, group: ProcessGroup): Ring {
  const { numHeads: hq, numKeyValueHeads: hkv = hq, scale = d ** -0.5, causal = true } = options
  const [b, tokens] = q.tensor.shape as [number, number]
  return { group, b, tokens, hq, hkv, d, scale, causal, q, k, v }
}

function inType(x: Tensor, dtype: DType): Tensor {
  if (x.dtype === dtype) return x
  const y = empty(x.shape, { dtype })
  runOp('cast', [y], [x])
  x.dispose()
  return y
}

/** This rank's keys and values side by side (B, tokens, 2·Hkv·D): what goes round. */
function ownKeysAndValues({ b, tokens, hkv, d, k, v }: Ring): Tensor {
  const width = hkv * d
  const kv = empty([b, tokens, 2 * width], { dtype: k.tensor.dtype })
  for (const [index, part] of [k, v].entries()) {
    runOp('copy_2d', [kv], [part.tensor], [b * tokens, width, index * width, 2 * width, part.offset, part.row])
  }
  return kv
}

/** Sends x to the next rank; what the rank before sends comes into a tensor like it. */
function pass(x: Tensor, group: ProcessGroup, tag: number): Tensor {
  const { rank, size } = group
  if (size === 1) return x.view(x.shape)
  group.send(x, (rank + 1) % size, tag)
  const y = empty(x.shape, { dtype: x.dtype })
  return group.recv(y, (rank + size - 1) % size, tag)
}

/** Chunks of own queries with those chunks of rank `source`'s keys and values that they see. */
function blocksWith(ring: Ring, source: number, kv: Tensor): AttentionBlock[] {
  const { group, b, tokens, hq, hkv, d, scale, causal, q } = ring
  const half = tokens / 2
  const row = 2 * hkv * d
  const k = { tensor: kv, offset: 0, row, batch: tokens * row }
  const v = { ...k, offset: hkv * d }
  const sizes = { b, tq: half, tk: half, hq, hkv, d, scale, position: 0, tokens }
  return chunksOf(group.rank, group.size).flatMap((queryChunk, i) =>
    chunksOf(source, group.size).flatMap((keyChunk, j): AttentionBlock[] => {
      if (causal && keyChunk > queryChunk) return []
      return [
        {
          ...sizes,
          causal: causal && keyChunk === queryChunk,
          q: shifted(q, i * half),
          k: shifted(k, j * half),
          v: shifted(v, j * half),
          first: i * half,
          continues: source !== group.rank || j > 0,
        },
      ]
    }),
  )
}

/** Calls `visit` with the keys and values of every rank, own ones first, the next ones on their way meanwhile. */
function goRound(ring: Ring, tag: number, visit: (source: number, kv: Tensor, step: number) => void): void {
  const { rank, size } = ring.group
  let kv = ownKeysAndValues(ring)
  for (let step = 0; step < size; step++) {
    const next = step + 1 < size ? pass(kv, ring.group, tag) : undefined
    visit((rank + size - step) % size, kv, step)
    kv.dispose()
    if (next) kv = next
  }
}

function forward(ring: Ring): { o: Tensor; lse: Tensor } {
  const { b, tokens, hq, d, q } = ring
  const wide = empty([b, tokens, hq * d])
  const lse = empty([b, hq, tokens])
  goRound(ring, FORWARD, (source, kv) => {
    for (const block of blocksWith(ring, source, kv)) attendBlock(block, wide, lse)
  })
  return { o: inType(wide, q.tensor.dtype), lse }
}

/** Adds to `dq` (f32, where q lies); gives the gradients of own keys and values (B, tokens, 2·Hkv·D), f32. */
function backward(ring: Ring, dy: Tensor, o: Tensor, lse: Tensor, dq: Tensor): Tensor {
  let arriving: Tensor | undefined
  goRound(ring, BACKWARD, (source, kv) => {
    const dkv = empty(kv.shape, { zero: true })
    for (const block of blocksWith(ring, source, kv)) {
      attendBlockBackward({ ...block, continues: true }, { dq, dk: dkv, dv: dkv }, { dy, o, lse })
    }
    // What the ranks before found for the same keys.
    if (arriving) runOp('binary', [dkv], [dkv, arriving], [0])
    arriving?.dispose()
    arriving = pass(dkv, ring.group, GRADIENTS)
    dkv.dispose()
  })
  return arriving as Tensor
}

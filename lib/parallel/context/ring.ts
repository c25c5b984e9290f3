// Ring attention (Liu et al. 2023): every rank keeps its queries; keys and values go round, and what a block of them
// gives is joined to the rest by its log-sum-exp. While a block is computed the next one is under way. In backward keys
// and values go round again, with their gradients (f32), which come home with all ranks' parts.
// Sums are in the order of the ring: the same bits in every run.

import { record } from '../../autograd/tape.js'
import { ZeroshardError } from '../../binding/errors.js'
import { type AttentionOptions, type Part, type Parts, packedParts, separateParts } from '../../ops/attention.js'
import { type AttentionBlock, attendBlock, attendBlockBackward, drawsAt, shifted } from '../../ops/attention-block.js'
import { type DType, empty, runOp, type Tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { chunksOf } from './layout.js'

/** Tags of messages: keys and values in forward and backward, and their gradients. */
const FORWARD = 1
const BACKWARD = 2
const GRADIENTS = 3

/**
 * Has the messages of ring attention go between devices, where they can. Collective; ranks make their two links in the
 * order of the ring from rank 0 on, so that none waits for one that waits for it. Keys, values and gradients all go the
 * same way, in one order on both ends: one link is enough for them.
 *
 * @example
 * linkRing(ProcessGroup.single()) // undefined
 */
export function linkRing(group: ProcessGroup): void {
  const { rank, size } = group
  for (let from = 0; from < size; from++) {
    const to = (from + 1) % size
    if (from !== to && (rank === from || rank === to)) group.link(from, to)
  }
}

/** One attention of this rank's tokens. */
interface Ring extends Parts {
  group: ProcessGroup
}

/**
 * As ops.packedAttention, of a rank's tokens: qkv (B, T/n, (Hq + 2·Hkv)·D) → (B, T/n, Hq·D). Rank r of n has chunks r
 * and 2n-1-r of the 2n of every sequence. On devices after linkRing(), else its messages go through host memory.
 *
 * @example
 * const qkv = tensor([0, 0, 7, 0, 0, 9], [1, 2, 3])
 * ringPackedAttention(qkv, { numHeads: 1 }, ProcessGroup.single()) // [7, 8]
 */
export function ringPackedAttention(qkv: Tensor, options: AttentionOptions, group: ProcessGroup): Tensor {
  const ring = ringOf(packedParts(qkv, inWhole(qkv, options, group)), group)
  const { o, lse } = forward(ring)
  record('ringAttention', [o], [qkv], [qkv, o, lse], ([dy]) => {
    if (!dy) return []
    const { b, tq, hq, hkv, d } = ring.g
    const dqkv = empty(qkv.shape, { zero: true })
    const dkv = backward(ring, dy, o, lse, dqkv)
    const width = 2 * hkv * d
    runOp('copy_2d', [dqkv], [dkv], [b * tq, width, hq * d, qkv.shape[2] as number, 0, width])
    return [inType(dqkv, qkv.dtype)]
  })
  lse.dispose()
  return o
}

/**
 * As ops.attention, of a rank's tokens: q (B, T/n, Hq·D), k and v (B, T/n, Hkv·D) → (B, T/n, Hq·D).
 *
 * @throws SHAPE where they are no two equal chunks
 * @example
 * const x = tensor([1, 0, 0, 1], [1, 2, 2])
 * ringAttention(x, x, x, { numHeads: 1 }, ProcessGroup.single()) // [1, 0, 0.3302, 0.6698]
 */
export function ringAttention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions, group: ProcessGroup): Tensor {
  const ring = ringOf(separateParts(q, k, v, inWhole(q, options, group)), group)
  const { o, lse } = forward(ring)
  record('ringAttention', [o], [q, k, v], [q, k, v, o, lse], ([dy]) => {
    if (!dy) return []
    const { b, tq, hkv, d } = ring.g
    const dq = empty(q.shape, { zero: true })
    const dkv = backward(ring, dy, o, lse, dq)
    const width = hkv * d
    const [dk, dv] = [0, width].map((offset) => {
      const half = empty(k.shape)
      runOp('copy_2d', [half], [dkv], [b * tq, width, 0, width, offset, 2 * width])
      return inType(half, k.dtype)
    })
    return [inType(dq, q.dtype), dk, dv]
  })
  lse.dispose()
  return o
}

/** Dropout in a sequence of all ranks' tokens; each block says where in it it lies. */
function inWhole(x: Tensor, { dropout, ...options }: AttentionOptions, { size }: ProcessGroup): AttentionOptions {
  const length = size * (x.shape[1] as number)
  return dropout ? { ...options, dropout: { ...dropout, firstQuery: 0, firstKey: 0, length } } : options
}

function ringOf(parts: Parts, group: ProcessGroup): Ring {
  const { tq, tk } = parts.g
  if (tq !== tk || tq % 2 !== 0)
    throw new ZeroshardError(
      'SHAPE',
      `[ringAttention] ${tq} queries and ${tk} keys of a rank; both must be its two equal chunks of the sequence`,
    )
  return { ...parts, group }
}

function inType(x: Tensor, dtype: DType): Tensor {
  if (x.dtype === dtype) return x
  const y = empty(x.shape, { dtype })
  runOp('cast', [y], [x])
  x.dispose()
  return y
}

/** This rank's keys and values side by side (B, tokens, 2·Hkv·D): what goes round. */
function ownKeysAndValues({ g: { b, tq: tokens, hkv, d }, parts: [, k, v] }: Ring): Tensor {
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
function blocksWith({ group, g, parts: [q] }: Ring, source: number, kv: Tensor): AttentionBlock[] {
  const { tq: tokens, hkv, d, causal } = g
  const half = tokens / 2
  const row = 2 * hkv * d
  const k: Part = { tensor: kv, offset: 0, row, batch: tokens * row }
  const v: Part = { ...k, offset: hkv * d }
  return chunksOf(group.rank, group.size).flatMap((queryChunk, i) =>
    chunksOf(source, group.size).flatMap((keyChunk, j): AttentionBlock[] => {
      if (causal && keyChunk > queryChunk) return []
      return [
        {
          ...g,
          tq: half,
          tk: half,
          causal: causal && keyChunk === queryChunk,
          draws: drawsAt(g.draws, queryChunk * half, keyChunk * half),
          q: shifted(q, i * half),
          k: shifted(k, j * half),
          v: shifted(v, j * half),
          first: i * half,
          tokens,
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
  const { b, tq: tokens, hq, d } = ring.g
  const wide = empty([b, tokens, hq * d])
  const lse = empty([b, hq, tokens])
  goRound(ring, FORWARD, (source, kv) => {
    for (const block of blocksWith(ring, source, kv)) attendBlock(block, wide, lse)
  })
  return { o: inType(wide, ring.parts[0].tensor.dtype), lse }
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

// Context parallelism: sequences are cut over ranks, and only attention talks. The model stays plain: its modules'
// field `sequence` tells them which tokens are here, where those lie, and how they attend.

import { ZeroshardError } from '../../binding/errors.js'
import type { Module } from '../../nn/module.js'
import type { Sequence } from '../../nn/sequence.js'
import type { ProcessGroup } from '../group.js'
import type { Mesh } from '../mesh.js'
import { type ContextKind, type ContextPlace, partOf, takeTokens, tokensPerRank } from './layout.js'
import { linkRing, ringAttention, ringPackedAttention } from './ring.js'
import { ulyssesAttention, ulyssesPackedAttention } from './ulysses.js'

/** A module that attends over the sequence. */
interface Attention extends Module {
  sequence: Sequence
  numHeads: number
  numKeyValueHeads?: number
}

const hasSequence = (module: Module): module is Module & { sequence: Sequence } => 'sequence' in module
const isAttention = (module: Module): module is Attention => hasSequence(module) && 'numHeads' in module

/**
 * Cuts the sequences of a model's inputs (B, T) over the mesh's axis cp. Collective. After the heads are cut (tensor
 * parallelism).
 * `wanted`: null takes ulysses where the heads divide, else ring; `length`: of the sequences, where it is known before
 * the first of them.
 *
 * @throws CONFIG where the model has no attention that can be cut, or its heads or the length do not divide
 * @example
 * const model = new Gpt2({ n_head: 4, n_layer: 1 })
 * parallelizeContext(model, Mesh.single(), 'ring') // undefined
 */
export function parallelizeContext(
  model: Module,
  mesh: Mesh,
  wanted: ContextKind | null = null,
  length?: number,
): void {
  const group = mesh.group('cp')
  if (group.size === 1) return
  const attentions = modulesOf(model).filter(isAttention)
  if (attentions.length === 0) {
    throw new ZeroshardError(
      'CONFIG',
      `[context] ${model.constructor.name} has no attention whose sequence could be cut over ${group.size} ranks (a module with numHeads and sequence); use a model of zeroshard/models, or mesh.context 1`,
    )
  }
  const kind = chooseKind(attentions, group.size, wanted)
  const place = { kind, rank: group.rank, size: group.size }
  if (length !== undefined) tokensPerRank(place, length)
  if (kind === 'ring') linkRing(group)
  const sequence = makeSequence(place, group)
  for (const module of modulesOf(model)) if (hasSequence(module)) module.sequence = sequence
}

function modulesOf(model: Module): Module[] {
  const found: Module[] = []
  model.visit((module) => found.push(module))
  return found
}

function chooseKind(attentions: readonly Attention[], size: number, wanted: ContextKind | null): ContextKind {
  const heads = attentions.map(({ numHeads: q, numKeyValueHeads: kv = q }) => ({ q, kv }))
  if (wanted === 'ring') return wanted
  if (wanted === null) return heads.every(({ q, kv }) => q % size === 0 && kv % size === 0) ? 'ulysses' : 'ring'
  // Heads of k and v may also be fewer than the ranks, each read by as many of them.
  const odd = heads.find(({ q, kv }) => q % size !== 0 || (kv % size !== 0 && size % kv !== 0))
  if (!odd) return wanted
  const text = odd.q === odd.kv ? `${odd.q} heads` : `${odd.q} heads and ${odd.kv} of keys and values`
  throw new ZeroshardError(
    'CONFIG',
    `[context] ${text} on each tensor-parallel rank do not divide over context ${size}; use context_parallel.type "ring" (with mesh.context), or another number of ranks`,
  )
}

function makeSequence(place: ContextPlace, group: ProcessGroup): Sequence {
  const [attention, packed] =
    place.kind === 'ring' ? [ringAttention, ringPackedAttention] : [ulyssesAttention, ulyssesPackedAttention]
  return {
    take: (input) => takeTokens(input, place),
    part: (tokens) => partOf(place, tokens),
    attention: (q, k, v, options) => attention(q, k, v, options, group),
    packedAttention: (qkv, options) => packed(qkv, options, group),
  }
}

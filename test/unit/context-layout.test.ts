// Which tokens a context-parallel rank has: together all, each once, and as many pairs of attention on every rank.

import t from 'tap'
import { Linear } from '../../lib/nn/layers.js'
import { createModel } from '../../lib/nn/models/index.js'
import { partWithin, positionsOf, wholeSequence } from '../../lib/nn/sequence.js'
import {
  type ContextKind,
  chunksOf,
  contextKinds,
  partOf,
  takeTokens,
  tokensPerRank,
} from '../../lib/parallel/context/layout.js'
import { parallelizeContext } from '../../lib/parallel/context/parallelize.js'
import { linkRing } from '../../lib/parallel/context/ring.js'
import { ProcessGroup } from '../../lib/parallel/group.js'
import type { Mesh } from '../../lib/parallel/mesh.js'
import { tensor } from '../../lib/tensor/tensor.js'

t.test('the ranks have all tokens, each once, as many each', (t) => {
  for (const kind of contextKinds) {
    for (const size of [1, 2, 3, 4, 8]) {
      const length = size * 6
      const tokens = tokensPerRank({ kind, size }, length)
      const all = Array.from({ length: size }, (_, rank) => [
        ...positionsOf(partOf({ kind, rank, size }, tokens), tokens),
      ])
      t.strictSame(
        all.flat().sort((a, b) => a - b),
        Array.from({ length }, (_, i) => i),
        `${kind} ${size}`,
      )
      for (const own of all)
        t.strictSame(
          own,
          [...own].sort((a, b) => a - b),
          'in the order of the sequence',
        )
    }
  }
  t.end()
})

t.test("a ring's ranks have as many pairs of a query and a key that it sees, in every step but the first", (t) => {
  for (const size of [2, 3, 4, 8]) {
    for (let step = 0; step < size; step++) {
      const pairs = Array.from({ length: size }, (_, rank) => {
        const source = (rank + size - step) % size
        return chunksOf(rank, size).flatMap((q) => chunksOf(source, size).filter((k) => k <= q)).length
      })
      t.strictSame([...new Set(pairs)], [step === 0 ? 3 : 2], `step ${step} of ${size}`)
    }
  }
  t.end()
})

t.test('a part of a part has the positions there', (t) => {
  for (const kind of contextKinds) {
    const part = partOf({ kind, rank: 1, size: 2 }, 12)
    const all = [...positionsOf(part, 12)]
    for (const count of [3, 4, 6, 12])
      for (let from = 0; from < 12; from += count)
        t.strictSame([...positionsOf(partWithin(part, 12, from, count), count)], all.slice(from, from + count))
  }
  t.strictSame([...positionsOf(partWithin(undefined, 12, 6, 3), 3)], [6, 7, 8])
  t.end()
})

t.test('a length that does not divide is told with the nearest that do', (t) => {
  t.throws(() => tokensPerRank({ kind: 'ring', size: 4 }, 44), /44 tokens .* 8 pieces .*use 40 or 48/)
  t.throws(() => tokensPerRank({ kind: 'ulysses', size: 4 }, 3), /3 tokens .* 4 pieces .*use 4 /)
  t.end()
})

t.test("a rank's tokens of a batch", async (t) => {
  const ids = tensor(
    Int32Array.from({ length: 16 }, (_, i) => i),
    [2, 8],
  )
  for (const [kind, expected] of [
    ['ulysses', [4, 5, 6, 7, 12, 13, 14, 15]],
    ['ring', [2, 3, 4, 5, 10, 11, 12, 13]],
  ] as const) {
    const own = takeTokens(ids, { kind, rank: 1, size: 2 })
    t.strictSame([...((await own.data()) as Int32Array)], expected, kind)
    own.dispose()
  }
  ids.dispose()
})

/** A rank's group that has no peers: it notes the links which it is told to make. */
class NotingGroup extends ProcessGroup {
  readonly links: [from: number, to: number][] = []

  constructor(rank: number, size: number) {
    super(0, [...new Array(size).keys()], rank)
  }
  override link(from: number, to: number): void {
    this.links.push([from, to])
  }
}

/** The first of `size` ranks; nothing is sent. */
const meshOf = (size: number, group = new NotingGroup(0, size)): Mesh => ({ group: () => group }) as unknown as Mesh

t.test('a ring is linked from each rank to the next, and nobody waits for one that waits for it', (t) => {
  for (const size of [1, 2, 3, 4, 8]) {
    const groups = [...new Array(size).keys()].map((rank) => new NotingGroup(rank, size))
    for (const group of groups) linkRing(group)
    const lists = groups.map(({ links }) => links.map(String))
    const made: string[] = []
    /** A link is made when both its ends have come to it. */
    const nextLink = () =>
      [...new Array(size).keys()]
        .map((from) => `${from},${(from + 1) % size}`)
        .find((name) => {
          const ends = name.split(',').map((end) => lists[Number(end)]?.[0])
          return ends.every((first) => first === name)
        })
    for (let name = nextLink(); size > 1 && name; name = nextLink()) {
      for (const end of name.split(',')) lists[Number(end)]?.shift()
      made.push(name)
    }
    t.strictSame(lists.flat(), [], `${size} ranks: no link is left that somebody waits for`)
    t.equal(new Set(made).size, size === 1 ? 0 : size)
  }
  const gpt2 = { model_type: 'gpt2', n_embd: 8, n_layer: 1, n_head: 4, n_positions: 8, vocab_size: 8 }
  for (const [kind, links] of [
    ['ring', ['0,1', '3,0']],
    ['ulysses', []],
  ] as const) {
    const group = new NotingGroup(0, 4)
    parallelizeContext(createModel(gpt2), meshOf(4, group), kind)
    t.strictSame(group.links.map(String), links, kind)
  }
  t.end()
})

t.test('the kind follows from the heads where it is not given; what does not divide is told', (t) => {
  const llama = (num_attention_heads: number, num_key_value_heads: number) =>
    createModel({
      ...{ model_type: 'llama', num_attention_heads, num_key_value_heads, hidden_size: 8 * num_attention_heads },
      ...{ num_hidden_layers: 1, intermediate_size: 16, max_position_embeddings: 64, vocab_size: 32 },
    })
  /** By how many pieces 24 tokens of a rank lie in. */
  const chosen = (model: ReturnType<typeof llama>): ContextKind =>
    model.sequence.part(24)?.split === undefined ? 'ulysses' : 'ring'
  for (const [heads, keys, ranks, wanted, kind] of [
    [4, 4, 2, null, 'ulysses'],
    [4, 2, 4, null, 'ring'],
    [4, 2, 4, 'ulysses', 'ulysses'],
    [6, 6, 4, null, 'ring'],
    [4, 4, 2, 'ring', 'ring'],
  ] as [number, number, number, ContextKind | null, ContextKind][]) {
    const model = llama(heads, keys)
    parallelizeContext(model, meshOf(ranks), wanted, 48)
    t.equal(chosen(model), kind, `${heads} heads, ${keys} of keys, ${ranks} ranks, ${wanted}`)
    model.visit((module) => {
      if ('sequence' in module) t.equal(module.sequence, model.sequence, 'one for all')
    })
  }
  t.throws(() => parallelizeContext(llama(6, 3), meshOf(2), 'ulysses'), /6 heads and 3 of keys .* context 2/)
  t.throws(() => parallelizeContext(llama(4, 4), meshOf(2), null, 47), /47 tokens does not divide into 2 pieces/)
  t.throws(() => parallelizeContext(new Linear(4, 4), meshOf(2)), /Linear has no attention .* 2 ranks/)
  const alone = llama(3, 3)
  parallelizeContext(alone, meshOf(1), 'ulysses', 47)
  t.equal(alone.sequence, wholeSequence, 'one rank has the whole')
  t.end()
})

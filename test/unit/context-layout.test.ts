// Which tokens a context-parallel rank has: together all, each once, and as many pairs of attention on every rank.

import t from 'tap'
import { partWithin, positionsOf } from '../../lib/nn/sequence.js'
import { chunksOf, contextKinds, partOf, takeTokens, tokensPerRank } from '../../lib/parallel/context/layout.js'
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

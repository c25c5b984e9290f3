// Cutting layers into parts: against every possible cut where there are few, and what is said of impossible ones.

import t from 'tap'
import {
  chunkRanges,
  type LayerInfo,
  type SplitMethod,
  splitBalanced,
  splitLayers,
  splitUniform,
} from '../../lib/parallel/pipeline/index.js'
import { fc } from '../helpers/properties.js'

const gpt: LayerInfo[] = [
  { type: 'Embedding', numParameters: 400, time: 1 },
  ...Array.from({ length: 6 }, () => ({ type: 'Block', numParameters: 100, time: 10 })),
  { type: 'LayerNorm', numParameters: 1, time: 1 },
  { type: 'Head', numParameters: 400, time: 15 },
]

/** The sums of the parts. */
const sumsOf = (weights: readonly number[], bounds: readonly number[]): number[] =>
  bounds.slice(1).map((end, part) => weights.slice(bounds[part], end).reduce((sum, weight) => sum + weight, 0))
const squares = (sums: number[]): number => sums.reduce((total, sum) => total + sum * sum, 0)

/** Every cut of `count` layers into `parts` parts, none empty. */
function everyCut(count: number, parts: number): number[][] {
  if (parts === 1) return [[0, count]]
  return Array.from({ length: count - 1 }, (_, i) => i + 1).flatMap((start) =>
    start < parts - 1 ? [] : everyCut(start, parts - 1).map((cut) => [...cut, count]),
  )
}

t.test('throws CONFIG where there are more parts than layers, or no such method', (t) => {
  const cannot = { code: 'CONFIG', message: /9 layers cannot fill 10 parts; use fewer stages/ }
  t.throws(() => splitLayers(gpt, 10, 'uniform'), cannot)
  t.throws(() => splitLayers(gpt, 10, 'parameters'), cannot)
  t.throws(() => splitLayers(gpt, 7, 'type:block'), { code: 'CONFIG', message: /6 layers that match type:block/ })
  t.throws(() => splitLayers(gpt, 2, 'type:('), { code: 'CONFIG', message: /no regular expression/ })
  t.throws(() => splitLayers(gpt, 2, 'parameter' as SplitMethod), { code: 'CONFIG', message: /mean 'parameters'/ })
  t.throws(() => splitLayers([...gpt, { type: 'X', numParameters: 1 }], 2, 'time'), { message: /layer 9 \(X\)/ })
  t.throws(() => splitBalanced([1, Number.NaN], 2), { code: 'CONFIG', message: /layer 1 has the weight NaN/ })
  t.throws(() => splitUniform(4, 0), { code: 'CONFIG' })
  t.throws(() => chunkRanges([0, 1, 2], { stages: 2, numChunks: 2, layout: 'loop' }, 0), { code: 'ARGUMENT' })
  t.end()
})

t.test('cuts a model by number, parameters, time and type', (t) => {
  t.same(splitLayers(gpt, 4, 'uniform'), [0, 3, 5, 7, 9])
  t.same(splitLayers(gpt, 3, 'parameters'), [0, 2, 7, 9], 'embedding and a block; five blocks; norm and head')
  t.same(splitLayers(gpt, 4, 'time'), [0, 3, 5, 7, 9])
  t.same(splitLayers(gpt, 3, 'type:block'), [0, 3, 5, 9], 'two blocks each')
  t.same(splitLayers(gpt, 4, 'type:^bl'), [0, 3, 5, 6, 9], 'two, two, one, one')
  t.same(splitLayers(gpt, 1, 'parameters'), [0, 9])
  t.end()
})

t.test('uniform parts differ by one at most', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 50 }), fc.nat(60), (parts, more) => {
      const sizes = sumsOf(new Array(parts + more).fill(1), splitUniform(parts + more, parts))
      return Math.max(...sizes) - Math.min(...sizes) <= 1 && sizes.length === parts
    }),
  )
  t.pass('holds')
  t.end()
})

const anyWeights = fc.oneof(
  fc.array(fc.nat(9), { minLength: 1, maxLength: 9 }),
  fc.array(fc.constantFrom(0, 1), { minLength: 1, maxLength: 9 }),
  fc.array(fc.double({ min: 0, max: 10, noNaN: true }), { minLength: 1, maxLength: 9 }),
)

t.test('balanced: no cut has a smaller largest part, nor, with it as small, a more even one', (t) => {
  fc.assert(
    fc.property(anyWeights, fc.nat(), (weights, n) => {
      const parts = 1 + (n % weights.length)
      const bounds = splitBalanced(weights, parts)
      const cuts = everyCut(weights.length, parts)
      t.ok(
        cuts.some((cut) => cut.join() === bounds.join()),
        'parts are contiguous, complete and not empty',
      )
      const sums = sumsOf(weights, bounds)
      const largest = Math.max(...sums)
      for (const cut of cuts) {
        const other = sumsOf(weights, cut)
        const slack = 1e-9 * Math.max(1, largest)
        if (Math.max(...other) < largest - slack) t.fail(`${weights} in ${parts}: ${cut} instead of ${bounds}`)
        if (Math.max(...other) > largest - slack) continue
        if (squares(other) < squares(sums) * (1 - 1e-9)) t.fail(`${weights} in ${parts}: ${cut} is more even`)
      }
    }),
    { numRuns: 300 },
  )
  t.end()
})

t.test('by type: numbers of matching layers are as equal as can be', (t) => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 40 }), fc.nat(), (matching, n) => {
      const layers = matching.map((matches) => ({ type: matches ? 'TransformerBlock' : 'Dropout', numParameters: 0 }))
      const count = matching.filter(Boolean).length
      if (count === 0) return true
      const parts = 1 + (n % count)
      const sums = sumsOf(matching.map(Number), splitLayers(layers, parts, 'type:transformer'))
      return Math.max(...sums) === Math.ceil(count / parts) && Math.max(...sums) - Math.min(...sums) <= 1
    }),
  )
  t.pass('holds')
  t.end()
})

t.test('a thousand layers in 64 parts take no noticeable time', (t) => {
  const weights = Array.from({ length: 1000 }, (_, i) => 1 + ((i * 7919) % 13))
  const start = performance.now()
  const bounds = splitBalanced(weights, 64)
  t.equal(bounds.length, 65)
  t.ok(performance.now() - start < 2000)
  t.end()
})

t.test('the chunks of all stages are all layers, once, in the order of the virtual stages', (t) => {
  const bounds = splitUniform(23, 6)
  t.same(chunkRanges(bounds, { stages: 3, numChunks: 2, layout: 'loop' }, 1), [
    [bounds[1], bounds[2]],
    [bounds[4], bounds[5]],
  ])
  t.same(chunkRanges(bounds, { stages: 3, numChunks: 2, layout: 'vee' }, 0), [
    [bounds[0], bounds[1]],
    [bounds[5], bounds[6]],
  ])
  for (const layout of ['loop', 'vee'] as const) {
    const ranges = [0, 1, 2].flatMap((stage) => chunkRanges(bounds, { stages: 3, numChunks: 2, layout }, stage))
    const layers = ranges.flatMap(([start, end]) => Array.from({ length: end - start }, (_, i) => start + i))
    t.same(
      layers.sort((a, b) => a - b),
      Array.from({ length: 23 }, (_, i) => i),
    )
  }
  t.end()
})

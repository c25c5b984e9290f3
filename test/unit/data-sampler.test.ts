// The order of the data: each epoch a permutation, the same for every cut into ranks, resumable.

import t from 'tap'
import {
  DataLoader,
  Sampler,
  samplesPerEpoch,
  sampleWindow,
  type TokenView,
  ValidationSampler,
} from '../../lib/data/index.js'
import { permute } from '../../lib/data/permutation.js'
import { fc } from '../helpers/properties.js'

/** Token i is i, so that a batch shows where it came from. */
function countingTokens(numTokens: number): TokenView {
  return {
    name: 'counting',
    numTokens,
    maxToken: numTokens - 1,
    read(start, length, out) {
      if (start < 0 || start + length > numTokens) throw new Error(`read ${start}+${length}`)
      for (let i = 0; i < length; i++) out[i] = start + i
    },
  }
}

const textShape = fc
  .record({ sequenceLength: fc.integer({ min: 1, max: 20 }), extra: fc.nat({ max: 500 }) })
  .map(({ sequenceLength, extra }) => ({ sequenceLength, numTokens: sequenceLength + 1 + extra }))
const anySeed = fc.nat({ max: Number.MAX_SAFE_INTEGER })

t.test('throws where the text holds no whole sample, or for an impossible position', (t) => {
  const options = { sequenceLength: 8, seed: 1 }
  t.throws(() => new Sampler(countingTokens(8), options), { code: 'DATA' })
  t.throws(() => new ValidationSampler(countingTokens(8), { sequenceLength: 8, numSamples: 1 }), {
    code: 'DATA',
  })
  t.throws(() => new Sampler(countingTokens(9), options).batch(-1, 1), { code: 'ARGUMENT' })
  t.throws(() => new Sampler(countingTokens(9), options).batch(0.5, 1), { code: 'ARGUMENT' })
  t.end()
})

t.test('permute is a bijection for every size and key', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 300 }), fc.nat(), (size, key) => {
      const seen = new Set(Array.from({ length: size }, (_, i) => permute(i, size, key)))
      return seen.size === size && [...seen].every((v) => Number.isInteger(v) && v >= 0 && v < size)
    }),
  )
  t.pass('holds')
  t.end()
})

t.test('permute depends on its key and spreads evenly', (t) => {
  const size = 1000
  const order = (key: number): number[] => Array.from({ length: size }, (_, i) => permute(i, size, key))
  const same = order(1).filter((v, i) => v === order(2)[i]).length
  t.ok(same < 15, `${same} of ${size} places equal, 1 expected`)
  const firsts = new Array(10).fill(0) as number[]
  for (let key = 0; key < 5000; key++) {
    const place = permute(0, 10, key * 7919)
    firsts[place] = (firsts[place] as number) + 1
  }
  for (const count of firsts) t.ok(Math.abs(count - 500) < 110, `${count}, 500 expected`)
  t.end()
})

t.test('an epoch visits windows that lie inside the text, do not overlap and do not repeat', (t) => {
  fc.assert(
    fc.property(textShape, anySeed, fc.nat({ max: 5 }), (shape, seed, epoch) => {
      const size = samplesPerEpoch(shape.numTokens, shape.sequenceLength)
      const windows = Array.from({ length: size }, (_, i) => sampleWindow(seed, epoch * size + i, shape))
      const starts = windows.map((w) => w.start).sort((a, b) => a - b)
      const inside =
        (starts[0] as number) >= 0 && (starts.at(-1) as number) + shape.sequenceLength + 1 <= shape.numTokens
      const apart = starts.every((s, i) => i === 0 || s - (starts[i - 1] as number) === shape.sequenceLength)
      return inside && apart && windows.every((w) => w.epoch === epoch)
    }),
  )
  t.pass('holds')
  t.end()
})

t.test('over the epochs every token but the first becomes a target', (t) => {
  const shape = { numTokens: 103, sequenceLength: 8 }
  const seen = new Set<number>()
  for (let i = 0; i < 100 * samplesPerEpoch(103, 8); i++) {
    const { start } = sampleWindow(3, i, shape)
    for (let j = 1; j <= 8; j++) seen.add(start + j)
  }
  t.equal(seen.size, 102)
  t.end()
})

t.test('targets are inputs one token on', (t) => {
  const { inputs, targets } = new Sampler(countingTokens(100), {
    sequenceLength: 8,
    seed: 5,
  }).batch(0, 4)
  t.equal(inputs.length, 32)
  t.same(
    [...targets],
    [...inputs].map((id) => id + 1),
  )
  t.end()
})

t.test('ranks together read the same samples however the batch is cut', (t) => {
  fc.assert(
    fc.property(textShape, anySeed, fc.nat({ max: 1000 }), (shape, seed, first) => {
      const options = { sequenceLength: shape.sequenceLength, seed }
      const sampler = new Sampler(countingTokens(shape.numTokens), options)
      const whole = sampler.batch(first, 12)
      return [1, 2, 3, 4, 6, 12].every((ranks) => {
        const parts = Array.from({ length: ranks }, (_, r) => {
          const loader = new DataLoader(sampler, {
            microBatch: 12 / ranks,
            dataRank: r,
            dataWorld: ranks,
          })
          loader.position = first
          return [...loader.next().inputs]
        })
        return String(parts.flat()) === String([...whole.inputs])
      })
    }),
  )
  t.pass('holds')
  t.end()
})

t.test('a loader set to a saved position goes on with the samples that would have followed', (t) => {
  fc.assert(
    fc.property(anySeed, fc.nat({ max: 40 }), (seed, steps) => {
      const sampler = new Sampler(countingTokens(300), { sequenceLength: 8, seed })
      const options = { microBatch: 3, dataRank: 1, dataWorld: 2 }
      const straight = new DataLoader(sampler, options)
      for (let i = 0; i < steps; i++) straight.next()
      const resumed = new DataLoader(sampler, options)
      resumed.position = straight.position
      return [1, 2, 3].every(() => String(resumed.next().inputs) === String(straight.next().inputs))
    }),
  )
  t.pass('holds')
  t.end()
})

t.test('validation windows are fixed, spread over the whole text and repeat only when they must', (t) => {
  const sampler = new ValidationSampler(countingTokens(801), {
    sequenceLength: 8,
    numSamples: 10,
  })
  const starts = (s: ValidationSampler, count: number): number[] =>
    Array.from({ length: count }, (_, i) => s.batch(i, 1).inputs[0] as number)
  t.same(starts(sampler, 10), [0, 80, 160, 240, 320, 400, 480, 560, 640, 720])
  const short = new ValidationSampler(countingTokens(17), { sequenceLength: 8, numSamples: 5 })
  t.same(starts(short, 5), [0, 8, 0, 8, 0])
  t.end()
})

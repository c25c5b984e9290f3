// The pipeline schedules: each proven for 1 to 16 stages and 1 to 64 micro-batches, and as good as its paper says.

import t from 'tap'
import {
  buildPipeline,
  checkPipeline,
  evaluation,
  gpipe,
  interleaved1F1B,
  oneF1B,
  orderTransfers,
  type Schedule,
  scheduleNamed,
  scheduleNames,
  simulate,
  zeroBubbleH1,
  zeroBubbleV,
} from '../../lib/parallel/pipeline/index.js'
import { fc } from '../helpers/properties.js'

const training: Schedule[] = [
  gpipe,
  oneF1B,
  interleaved1F1B(1),
  interleaved1F1B(2),
  interleaved1F1B(3),
  interleaved1F1B(4),
  zeroBubbleH1,
  zeroBubbleV,
]
const all: Schedule[] = [...training, ...[oneF1B, interleaved1F1B(3), zeroBubbleV].map(evaluation)]
const titleOf = ({ name, numChunks, layout }: Schedule): string => `${name} (${layout}, ${numChunks} chunks)`

const anySize = fc.record({ stages: fc.integer({ min: 1, max: 12 }), microBatches: fc.integer({ min: 1, max: 40 }) })
const manyMicroBatches = (factor: number) => anySize.map((size) => atLeast(size, factor))
function atLeast({ stages, microBatches }: { stages: number; microBatches: number }, factor: number) {
  return { stages, microBatches: Math.max(microBatches, factor * stages) }
}
const near = (a: number, b: number): boolean => Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(b))

t.test('throws for impossible sizes, unknown names and wrong numbers of chunks', (t) => {
  t.throws(() => oneF1B.instructions(0, 1, 0), { code: 'ARGUMENT', message: /stages must be .* not 0/ })
  t.throws(() => oneF1B.instructions(2, 1.5, 0), { code: 'ARGUMENT', message: /micro-batches must be .* not 1.5/ })
  t.throws(() => oneF1B.instructions(2, 1, 2), { code: 'ARGUMENT', message: /no stage 2 of 2/ })
  t.throws(() => buildPipeline(gpipe, 2, 0), { code: 'ARGUMENT' })
  t.throws(() => interleaved1F1B(0), { code: 'ARGUMENT' })
  t.throws(() => scheduleNamed('1f1'), { code: 'CONFIG', message: /did you mean '1f1b'/ })
  t.throws(() => scheduleNamed('toString'), { code: 'CONFIG' })
  t.throws(() => scheduleNamed('interleaved', 0), { code: 'CONFIG' })
  t.throws(() => scheduleNamed('zb-v', 3), { code: 'CONFIG', message: /has 2 chunks per stage, not 3/ })
  t.equal(scheduleNamed('interleaved', 4).numChunks, 4)
  t.same(
    scheduleNames.map((name) => scheduleNamed(name).name),
    scheduleNames,
  )
  t.end()
})

for (const schedule of all) {
  t.test(`${titleOf(schedule)} is proven for 1 to 16 stages and 1 to 64 micro-batches`, (t) => {
    for (let stages = 1; stages <= 16; stages++) {
      for (let microBatches = 1; microBatches <= 64; microBatches++) {
        const violations = checkPipeline(buildPipeline(schedule, stages, microBatches))
        if (violations.length) t.same(violations, [], `${stages} stages, ${microBatches} micro-batches`)
      }
    }
    t.pass('no violation')
    t.end()
  })
}

t.test('GPipe, 1F1B and ZB-H1 also run where sends wait for receives and neighbouring transfers are grouped', (t) => {
  for (const schedule of [gpipe, oneF1B, zeroBubbleH1, evaluation()]) {
    for (let stages = 1; stages <= 16; stages++) {
      for (const microBatches of [1, stages, 2 * stages + 1, 64]) {
        const violations = checkPipeline(buildPipeline(schedule, stages, microBatches), { transfers: 'grouped' })
        if (violations.length) t.same(violations, [], `${schedule.name} ${stages} ${microBatches}`)
      }
    }
  }
  t.pass('no violation')
  t.end()
})

t.test('with their transfers in one order, all run where every send waits for its receive', (t) => {
  const stuck = checkPipeline(buildPipeline(oneF1B, 2, 4), { transfers: 'rendezvous' })
  t.match(stuck.join('\n'), /waits for ever/, '1F1B as it is does not')
  fc.assert(
    fc.property(fc.constantFrom(...all), anySize, (schedule, { stages, microBatches }) => {
      const pipeline = buildPipeline(schedule, stages, microBatches)
      const ordered = orderTransfers(pipeline)
      t.same(checkPipeline(ordered, { transfers: 'rendezvous' }), [])
      const computations = (lists: typeof pipeline.lists) => lists.map((list) => list.filter((i) => !('peer' in i)))
      t.same(computations(ordered.lists), computations(pipeline.lists))
    }),
    { numRuns: 60 },
  )
  t.end()
})

t.test('a list depends on nothing but stages, micro-batches and stage', (t) => {
  fc.assert(
    fc.property(fc.constantFrom(...all), anySize, (schedule, { stages, microBatches }) => {
      const pipeline = buildPipeline(schedule, stages, microBatches)
      for (let stage = stages - 1; stage >= 0; stage--) {
        t.same(schedule.instructions(stages, microBatches, stage), pipeline.lists[stage])
      }
    }),
    { numRuns: 30 },
  )
  t.end()
})

t.test('the promised number of activations is reached: no promise is larger than it must be', (t) => {
  fc.assert(
    fc.property(fc.constantFrom(...training), manyMicroBatches(2), (schedule, { stages, microBatches }) => {
      const pipeline = buildPipeline(schedule, stages, microBatches)
      t.same(simulate(pipeline, { forward: 1 }).peakActivations, pipeline.maxActivations, titleOf(schedule))
    }),
  )
  t.end()
})

t.test('what a stage holds, by the formulas of the papers', (t) => {
  const held = (schedule: Schedule, stages: number, microBatches: number): number[] =>
    buildPipeline(schedule, stages, microBatches).maxActivations
  t.same(held(gpipe, 4, 10), [10, 10, 10, 10])
  t.same(held(oneF1B, 4, 10), [4, 3, 2, 1])
  t.same(held(oneF1B, 4, 2), [2, 2, 2, 1])
  t.same(held(interleaved1F1B(2), 4, 8), [11, 9, 7, 5], '2·(stages behind) + (chunks - 1)·stages + 1')
  t.same(held(zeroBubbleH1, 4, 10), [4, 4, 4, 4], "1F1B's first stage")
  t.same(held(zeroBubbleV, 4, 10), [8, 8, 8, 8], "halves of a stage: 1F1B's first stage")
  t.same(held(evaluation(zeroBubbleV), 4, 10), [0, 0, 0, 0])
  t.end()
})

t.test('GPipe and 1F1B: bubble (stages - 1) / (microBatches + stages - 1)', (t) => {
  fc.assert(
    fc.property(fc.constantFrom(gpipe, oneF1B), anySize, (schedule, { stages, microBatches }) => {
      const { bubble, stageBubbles } = simulate(buildPipeline(schedule, stages, microBatches), { forward: 1 })
      const expected = (stages - 1) / (microBatches + stages - 1)
      return near(bubble, expected) && stageBubbles.every((share) => near(share, expected))
    }),
  )
  t.pass('holds')
  t.end()
})

t.test('interleaved: bubble (stages - 1) / (chunks · microBatches + stages - 1), divisible or not', (t) => {
  const chunks = fc.integer({ min: 1, max: 5 })
  fc.assert(
    fc.property(chunks, manyMicroBatches(1), (numChunks, { stages, microBatches }) => {
      const { bubble } = simulate(buildPipeline(interleaved1F1B(numChunks), stages, microBatches), { forward: 1 })
      return near(bubble, (stages - 1) / (numChunks * microBatches + stages - 1))
    }),
  )
  t.pass('holds')
  t.end()
})

t.test("ZB-H1: a third of 1F1B's idle time; ZB-V: only the way of the first micro-batch down", (t) => {
  fc.assert(
    fc.property(manyMicroBatches(1), ({ stages, microBatches }) => {
      const { total } = simulate(buildPipeline(zeroBubbleH1, stages, microBatches), { forward: 1 })
      return near(total, 3 * microBatches + stages - 1)
    }),
  )
  fc.assert(
    fc.property(manyMicroBatches(2), ({ stages, microBatches }) => {
      const { total } = simulate(buildPipeline(zeroBubbleV, stages, microBatches), { forward: 1 })
      return near(total, 6 * microBatches + stages - 1)
    }),
  )
  t.pass('holds')
  t.end()
})

t.test('with fewer micro-batches than stages too, each schedule is no slower than the one it improves', (t) => {
  fc.assert(
    fc.property(anySize, ({ stages, microBatches }) => {
      // In the time of a whole stage's forward; backward twice that.
      const time = (schedule: Schedule): number =>
        simulate(buildPipeline(schedule, stages, microBatches), { forward: 1 / schedule.numChunks }).total
      const base = time(oneF1B) * (1 + 1e-9)
      t.ok(time(interleaved1F1B(2)) <= base, `interleaved ${stages} ${microBatches}`)
      t.ok(time(zeroBubbleH1) <= base, `zb-h1 ${stages} ${microBatches}`)
      t.ok(time(zeroBubbleV) <= time(zeroBubbleH1) * (1 + 1e-9), `zb-v ${stages} ${microBatches}`)
    }),
  )
  t.end()
})

t.test('evaluation fills the pipeline once', (t) => {
  fc.assert(
    fc.property(fc.constantFrom(...training), manyMicroBatches(2), (schedule, { stages, microBatches }) => {
      const { total } = simulate(buildPipeline(evaluation(schedule), stages, microBatches), { forward: 1 })
      const fill = schedule.layout === 'vee' ? 2 * (stages - 1) : stages - 1
      return near(total, schedule.numChunks * microBatches + fill)
    }),
  )
  t.pass('holds')
  t.end()
})

// The simulator of pipeline lists against examples by hand and against a slow one; its picture and its trace.

import t from 'tap'
import {
  buildPipeline,
  type Costs,
  drawPipeline,
  evaluation,
  gpipe,
  type Instruction,
  interleaved1F1B,
  locate,
  oneF1B,
  orderTransfers,
  type Pipeline,
  simulate,
  traceOf,
  virtualStageOf,
  zeroBubbleH1,
  zeroBubbleV,
} from '../../lib/parallel/pipeline/index.js'
import { fc } from '../helpers/properties.js'

const schedules = [gpipe, oneF1B, interleaved1F1B(2), zeroBubbleH1, zeroBubbleV, evaluation(), evaluation(zeroBubbleV)]
const anyPipeline = fc
  .record({
    schedule: fc.constantFrom(...schedules),
    stages: fc.integer({ min: 1, max: 5 }),
    microBatches: fc.integer({ min: 1, max: 8 }),
  })
  .map(({ schedule, stages, microBatches }) => buildPipeline(schedule, stages, microBatches))

t.test('throws for times that are none and for the wrong number of them', (t) => {
  const pipeline = buildPipeline(oneF1B, 2, 2)
  t.throws(() => simulate(pipeline, { forward: -1 }), { code: 'ARGUMENT', message: /forward must be a time/ })
  t.throws(() => simulate(pipeline, { forward: Number.NaN }), { code: 'ARGUMENT' })
  t.throws(() => simulate(pipeline, { forward: [1, 1, 1] }), { message: /3 values for 2 virtual stages/ })
  t.throws(() => simulate(pipeline, { forward: 1, transfer: { bytes: 1, bandwidth: 0 } }), { message: /transfer/ })
  t.end()
})

t.test('one stage: no bubble, a backward twice a forward unless told', (t) => {
  const pipeline = buildPipeline(oneF1B, 1, 4)
  t.equal(simulate(pipeline, { forward: 1 }).total, 12)
  t.equal(simulate(pipeline, { forward: 1, backward: 3 }).total, 16)
  t.equal(simulate(pipeline, { forward: 1, backwardInput: 1, backwardWeight: 0.5 }).total, 10)
  t.equal(simulate(buildPipeline(zeroBubbleH1, 1, 4), { forward: 1, backward: 3 }).total, 16)
  t.equal(simulate(pipeline, { forward: 1 }).bubble, 0)
  t.equal(simulate(pipeline, { forward: 0 }).bubble, 0, 'nothing to do is no bubble')
  t.end()
})

t.test('latency delays every transfer, the time on the channel queues', (t) => {
  const pipeline = buildPipeline(evaluation(), 2, 3)
  t.equal(simulate(pipeline, { forward: 1 }).total, 4)
  t.equal(simulate(pipeline, { forward: 1, latency: 5 }).total, 9, 'transfers are on their way together')
  // Made at 1, 2, 3; on the channel from 1, 3, 5; there at 3, 5, 7.
  t.equal(simulate(pipeline, { forward: 1, transfer: 2 }).total, 8)
  t.equal(simulate(pipeline, { forward: 1, transfer: { bytes: 8, bandwidth: 4 } }).total, 8)
  const { ends, starts } = simulate(pipeline, { forward: 1, transfer: 2, latency: 1 })
  t.same([...(ends[0] as Float64Array)], [1, 4, 2, 6, 3, 8], 'forward, arrival of its output, …')
  t.same([...(starts[1] as Float64Array)], [0, 4, 5, 6, 7, 8], 'receive, forward, …')
  t.end()
})

t.test('times are per virtual stage; the slowest one decides', (t) => {
  const { total, busy } = simulate(buildPipeline(evaluation(), 3, 4), { forward: [1, 2, 1] })
  t.equal(total, 1 + 4 * 2 + 1)
  t.same(busy, [4, 8, 4])
  // The way down and up: virtual stages 0 1 2 | 3 4 5 on stages 0 1 2 2 1 0.
  const vee = simulate(buildPipeline(evaluation(zeroBubbleV), 3, 1), { forward: [1, 2, 3, 4, 5, 6] })
  t.same([vee.total, vee.busy], [21, [7, 7, 7]])
  t.end()
})

t.test('reductions overlap with computing and with nothing else; the step waits for them', (t) => {
  // One stage, two chunks: the gradients of chunk 1 are complete at 5, those of chunk 0 at 6.
  const pipeline = buildPipeline(interleaved1F1B(2), 1, 1)
  t.equal(simulate(pipeline, { forward: 1, reduceGradients: 1 }).total, 7)
  t.equal(simulate(pipeline, { forward: 1, reduceGradients: 3 }).total, 10)
  t.equal(simulate(pipeline, { forward: 1, reduceGradients: 3, step: 2 }).total, 12)
  t.end()
})

/** The same by relaxing every dependency until nothing changes; without queues on the channels. */
function slowEnds(pipeline: Pipeline, costs: { [op: string]: number[] }, latency: number): Map<string, number> {
  const ends = new Map<string, number>()
  const last = pipeline.stages * pipeline.numChunks - 1
  const stageOf = (place: number): number => locate(pipeline, place).stage
  for (let changed = true; changed; ) {
    changed = false
    for (const [stage, list] of pipeline.lists.entries()) {
      let free = 0
      for (const instruction of list) {
        if (!('microBatch' in instruction) || 'peer' in instruction) continue
        const { op, chunk, microBatch } = instruction
        const place = virtualStageOf(pipeline, chunk, stage)
        const needs: [string, number][] = []
        if (op === 'forward' && place > 0) needs.push([`forward ${place - 1} ${microBatch}`, stageOf(place - 1)])
        if (op.startsWith('backward') && op !== 'backwardWeight' && place < last) {
          needs.push([`gradient ${place + 1} ${microBatch}`, stageOf(place + 1)])
        }
        for (const [need, from] of needs) free = Math.max(free, (ends.get(need) ?? 0) + (from === stage ? 0 : latency))
        free += costs[op]?.[place] as number
        const key = `${op === 'backward' || op === 'backwardInput' ? 'gradient' : op} ${place} ${microBatch}`
        if (ends.get(key) !== free) changed = true
        ends.set(key, free)
      }
    }
  }
  return ends
}

t.test('agrees with relaxing all dependencies, for any times and latency', (t) => {
  const time = fc.integer({ min: 0, max: 9 })
  const times = fc.array(time, { minLength: 10, maxLength: 10 })
  fc.assert(
    fc.property(anyPipeline, times, times, times, time, (pipeline, forward, input, weight, latency) => {
      const count = pipeline.stages * pipeline.numChunks
      const [f, i, w] = [forward, input, weight].map((all) => all.slice(0, count)) as [number[], number[], number[]]
      const whole = i.map((one, place) => one + (w[place] as number))
      const slow = slowEnds(pipeline, { forward: f, backward: whole, backwardInput: i, backwardWeight: w }, latency)
      const fast = simulate(pipeline, { forward: f, backwardInput: i, backwardWeight: w, latency })
      for (const [stage, list] of pipeline.lists.entries()) {
        for (const [at, instruction] of list.entries()) {
          if (!('microBatch' in instruction) || 'peer' in instruction) continue
          const { op, chunk, microBatch } = instruction
          const what = op === 'backward' || op === 'backwardInput' ? 'gradient' : op
          const key = `${what} ${virtualStageOf(pipeline, chunk, stage)} ${microBatch}`
          if (fast.ends[stage]?.[at] !== slow.get(key)) return false
        }
      }
      return true
    }),
    { numRuns: 200 },
  )
  t.pass('holds')
  t.end()
})

t.test('the bubble is what computing leaves of the time, and more communication never makes it faster', (t) => {
  const costs = fc.record({ forward: fc.integer({ min: 1, max: 5 }), latency: fc.nat(5), transfer: fc.nat(5) })
  fc.assert(
    fc.property(anyPipeline, costs, (pipeline, costs: Costs) => {
      const { total, busy, bubble, stageBubbles } = simulate(pipeline, costs)
      const mean = busy.reduce((sum, time) => sum + time, 0) / busy.length
      t.ok(Math.abs(bubble - (1 - mean / total)) < 1e-12)
      t.ok(stageBubbles.every((share, stage) => Math.abs(share - (1 - (busy[stage] as number) / total)) < 1e-12))
      t.ok(total >= simulate(pipeline, { ...costs, latency: 0, transfer: 0 }).total)
      t.ok(simulate(orderTransfers(pipeline), costs).total >= total, 'receiving earlier in the list never helps')
    }),
    { numRuns: 100 },
  )
  t.end()
})

t.test('64 stages and 3072 micro-batches take less than a second', (t) => {
  const pipeline = buildPipeline(oneF1B, 64, 3072)
  const times = [0, 1, 2].map(() => {
    const start = performance.now()
    t.equal(simulate(pipeline, { forward: 1 }).total, 3 * (3072 + 63))
    return performance.now() - start
  })
  // Measured 0.2 s on a busy machine of 2 cores.
  t.ok(Math.min(...times) < 1000, `${times}`)
  t.end()
})

t.test('draws a row per stage', (t) => {
  const pipeline = buildPipeline(oneF1B, 2, 3)
  const simulation = simulate(pipeline, { forward: 1 })
  const expected = [
    'stage 0 |F0F1····B0--F2B1--··B2--| 25% idle, 2 held',
    'stage 1 |··F0B0--F1B1--F2B2--····| 25% idle, 1 held',
  ].join('\n')
  t.equal(drawPipeline(pipeline, simulation), expected)
  const coloured = drawPipeline(pipeline, simulation, { colours: true })
  t.match(coloured, '\u001b[30;44mF0\u001b[0m')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape of a colour
  t.equal(coloured.replace(/\u001b\[[\d;]*m/g, ''), expected)
  const vee = buildPipeline(zeroBubbleV, 2, 3)
  const picture = [
    'stage 0 |F0F1F2f0b0w0f1b1w1B0W0f2b2w2B1W1B2W2··| 5% idle, 4 held',
    'stage 1 |··F0f0F1f1b0w0F2B0W0f2b1w1B1b2B2W1w2W2| 5% idle, 4 held',
  ]
  t.equal(drawPipeline(vee, simulate(vee, { forward: 1 })), picture.join('\n'))
  t.end()
})

t.test('draws no wider than asked', (t) => {
  const pipeline = buildPipeline(oneF1B, 11, 100)
  const simulation = simulate(pipeline, { forward: 0.1 })
  const widths = (text: string): number[] => text.split('\n').map((row) => (row.split('|')[1] as string).length)
  const cut = drawPipeline(pipeline, simulation, { maxSlots: 40 })
  t.ok(widths(cut).every((width) => width === 81))
  t.match(cut, /^stage {2}0 \|F0F1F2F3F4F5F6F7F8F9F0··.*…\| 9% idle/)
  const squeezed = drawPipeline(pipeline, simulation, { slot: simulation.total / 10 })
  t.ok(widths(squeezed).every((width) => width === 20))
  t.equal(drawPipeline(pipeline, simulate(pipeline, { forward: 0 })).split('\n')[0], 'stage  0 || 0% idle, 11 held')
  t.end()
})

t.test('the trace has every computation once, in the time of its stage, and an arrow per transfer', (t) => {
  fc.assert(
    fc.property(anyPipeline, (pipeline) => {
      const simulation = simulate(pipeline, { forward: 2, latency: 1, reduceGradients: 1, step: 1 })
      const { traceEvents } = JSON.parse(JSON.stringify(traceOf(pipeline, simulation, { microseconds: 10 })))
      const instructions = pipeline.lists.flat()
      const isTransfer = (instruction: Instruction): boolean => 'peer' in instruction
      const slices = traceEvents.filter((event: any) => event.ph === 'X')
      t.equal(slices.length, instructions.filter((instruction) => !isTransfer(instruction)).length)
      for (const stage of pipeline.lists.keys()) {
        const own = slices.filter((event: any) => event.tid === 2 * stage && event.name !== 'step')
        const time = own.reduce((sum: number, event: any) => sum + event.dur, 0)
        t.equal(time, (simulation.busy[stage] as number) * 10)
        t.ok(own.every((event: any, i: number) => i === 0 || event.ts >= own[i - 1].ts + own[i - 1].dur))
      }
      const begins = traceEvents.filter((event: any) => event.ph === 's')
      const finishes = new Map<number, any>(traceEvents.filter((e: any) => e.ph === 'f').map((e: any) => [e.id, e]))
      t.equal(begins.length * 2, instructions.filter(isTransfer).length)
      t.equal(new Set(begins.map((event: any) => event.id)).size, begins.length, 'ids are unique')
      t.ok(begins.every((event: any) => finishes.get(event.id).ts >= event.ts))
    }),
    { numRuns: 40 },
  )
  t.end()
})

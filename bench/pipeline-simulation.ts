// Bubbles and activations of the pipeline schedules, simulated, and what building, checking and simulating cost.
// node --import tsx bench/pipeline-simulation.ts [stages] [micro-batches], default 64 3072.

import {
  buildPipeline,
  checkPipeline,
  drawPipeline,
  evaluation,
  interleaved1F1B,
  type Schedule,
  scheduleNamed,
  simulate,
  zeroBubbleV,
} from '../lib/parallel/pipeline/index.js'

const REPEATS = 3
const [stages = 64, microBatches = 3072] = process.argv.slice(2).map(Number)

const schedules: [string, Schedule][] = [
  ...['gpipe', '1f1b', 'zb-h1', 'zb-v'].map((name): [string, Schedule] => [name, scheduleNamed(name)]),
  ['interleaved, 2 chunks', interleaved1F1B(2)],
  ['interleaved, 4 chunks', interleaved1F1B(4)],
  ['evaluation', evaluation()],
  ['evaluation for zb-v', evaluation(zeroBubbleV)],
]

/** The median time of a call in milliseconds, and its result. */
function timed<T>(f: () => T): [number, T] {
  const times: number[] = []
  let result = f()
  for (let i = 0; i < REPEATS; i++) {
    const start = performance.now()
    result = f()
    times.push(performance.now() - start)
  }
  return [times.sort((a, b) => a - b)[REPEATS >> 1] as number, result]
}

console.log(
  `Node ${process.version}, ${stages} stages, ${microBatches} micro-batches; median of ${REPEATS}, milliseconds`,
)
const costs = []
for (const [name, schedule] of schedules) {
  const [build, pipeline] = timed(() => buildPipeline(schedule, stages, microBatches))
  const [simulation] = timed(() => simulate(pipeline, { forward: 1, latency: 0.1 }))
  const [check, violations] = timed(() => checkPipeline(pipeline))
  if (violations.length) throw new Error(violations.join('\n'))
  const instructions = pipeline.lists.reduce((sum, list) => sum + list.length, 0)
  const row = { schedule: name, instructions, build, simulate: simulation, check }
  costs.push(Object.fromEntries(Object.entries(row).map(([k, v]) => [k, typeof v === 'number' ? Math.round(v) : v])))
}
console.table(costs)

// Forward, input and weight gradient take the same.
console.log(
  "\n8 stages: idle share, and with transfers of a tenth of a whole stage's forward; held: whole-stage activations",
)
const shares = []
for (const [name, schedule] of schedules) {
  const held = Math.max(...buildPipeline(schedule, 8, 64).maxActivations) / schedule.numChunks
  const row: Record<string, string | number> = { schedule: name, 'held, m = 64': held }
  for (const count of [4, 8, 12, 16, 64]) {
    const pipeline = buildPipeline(schedule, 8, count)
    const forward = 1 / schedule.numChunks
    const percent = (latency: number): string => `${(simulate(pipeline, { forward, latency }).bubble * 100).toFixed(1)}`
    row[`m = ${count}`] = `${percent(0)} % (${percent(0.1)} %)`
  }
  shares.push(row)
}
console.table(shares)

for (const [name, schedule] of schedules) {
  const pipeline = buildPipeline(schedule, 4, 6)
  const colours = process.stdout.isTTY === true
  console.log(`\n${name}\n${drawPipeline(pipeline, simulate(pipeline, { forward: 1 }), { colours })}`)
}

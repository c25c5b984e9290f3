// What two real ranks did, as their reports have it: traces, breakdown, collectives, dashboards.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import { mergeTraces } from '../../lib/monitor/trace-file.js'
import { readEventFile } from '../helpers/event-file.js'
import { losses, main, Workspace } from '../helpers/program.js'

interface Event {
  name: string
  cat?: string
  ph: string
  ts: number
  dur: number
  pid: number
  tid: number
  args: { ranks: number; bytes: number }
}
const eventsOf = (path: string): Event[] => JSON.parse(readFileSync(path, 'utf8')).traceEvents
const end = (event: Event): number => event.ts + event.dur
const overlaps = (a: Event, b: Event): boolean => a.ts < end(b) && b.ts < end(a)

t.test('--trace: forward and backward on compute, collectives beside them, on one clock for both ranks', async (t) => {
  const space = new Workspace(t)
  const wide = { model_type: 'gpt2', n_layer: 4, n_head: 2, n_embd: 64, n_positions: 32, vocab_size: 256 }
  const config = space.config({ model: { config: wide }, zero_optimization: { stage: 1 } })
  const plain = await space.train(config, { ranks: 2 })
  const run = await space.train(config, { ranks: 2, args: ['--trace', space.path('trace-{rank}.json')] })
  t.equal(run.status, 0, run.stderr)
  t.strictSame(losses(run), losses(plain), 'a traced run computes the same')
  for (const rank of [0, 1]) {
    const events = eventsOf(space.path(`trace-${rank}.json`))
    t.ok(events.every((event) => event.pid === rank))
    const tasks = events.filter((event) => event.ph === 'X')
    const [compute, communication, , , , javascript] = [0, 1, 2, 3, 4, 5].map((tid) =>
      tasks.filter((event) => event.tid === tid),
    )
    const spans = (name: string): Event[] => (javascript ?? []).filter((event) => event.name === name)
    for (const phase of ['forward', 'backward', 'step']) t.equal(spans(phase).length, 8, `${phase} of 8 steps`)
    for (const op of ['matmul', 'attention_forward', 'attention_backward', 'adamw'])
      t.ok(
        (compute ?? []).some((event) => event.name === op),
        op,
      )
    const moved = (communication ?? []).filter((event) => event.cat === 'collective')
    const reduced = moved.filter((event) => event.name === 'reduceScatter')
    t.equal(reduced.length, 8 * 5, 'four blocks and the root, at each step')
    t.ok(reduced.every((event) => event.args.ranks === 2 && event.args.bytes % 4 === 0 && event.args.bytes > 1e4))
    t.ok(
      reduced.some((event) => (compute ?? []).some((op) => overlaps(event, op))),
      'a reduction runs beside computation',
    )
    for (const stream of [compute, moved] as Event[][])
      t.ok(
        stream.every((event, i) => i === 0 || end(stream[i - 1] as Event) <= event.ts + 0.002),
        'one after another',
      )
  }
  const merged = space.path('all.json')
  await mergeTraces(
    [0, 1].map((rank) => space.path(`trace-${rank}.json`)),
    merged,
  )
  const all = eventsOf(merged)
  t.equal(
    all.length,
    [0, 1].reduce((sum, rank) => sum + eventsOf(space.path(`trace-${rank}.json`)).length, 0),
  )
  const reductions = [0, 1].map((rank) => all.filter((event) => event.pid === rank && event.name === 'reduceScatter'))
  const apart = reductions[0]?.map((event, i) => !overlaps(event, reductions[1]?.[i] as Event)).filter(Boolean)
  t.equal(apart?.length, 0, 'both ranks are in a collective at the same time')
})

t.test(
  '--trace without {rank} is of rank 0 alone; a folder that cannot be made is told and ends nothing',
  async (t) => {
    const space = new Workspace(t)
    const path = space.path('one.json')
    const run = await space.train(space.config(), { ranks: 2, args: ['--steps', '2', '--trace', path] })
    t.equal(run.status, 0, run.stderr)
    t.ok(eventsOf(path).every((event) => event.pid === 0))
    const bad = join(space.write('file', ''), 'trace.json')
    const told = await space.train(space.config(), { args: ['--steps', '2', '--trace', bad] })
    t.equal(told.status, 0)
    t.match(told.stderr, /^\[monitor\] .*trace\.json: E[A-Z]+: .*\n$/)
    t.equal(losses(told).length, 2)
  },
)

t.test('wall_clock_breakdown: phases in the metrics, within the time of the step', async (t) => {
  const space = new Workspace(t)
  const run = await space.train(space.config({ wall_clock_breakdown: true }), { ranks: 2 })
  t.equal(run.status, 0, run.stderr)
  t.equal(run.steps.length, 8)
  for (const row of run.steps as unknown as { milliseconds: Record<string, number>; hiddenCommunication: number }[]) {
    const { forward, backward, backward_inner, backward_allreduce, step, total } = row.milliseconds as Record<
      'forward' | 'backward' | 'backward_inner' | 'backward_allreduce' | 'step' | 'total',
      number
    >
    t.ok(forward > 0 && step > 0 && backward_inner > 0 && backward_allreduce > 0)
    t.ok(backward >= Math.max(backward_inner, backward_allreduce) - 1e-6)
    t.ok(backward <= backward_inner + backward_allreduce + 1e-6)
    t.ok(forward + backward_inner + step <= total, `${forward} + ${backward_inner} + ${step} of ${total}`)
    t.ok(row.hiddenCommunication >= 0 && row.hiddenCommunication <= 1)
  }
})

/** A user's own loop, with every report switched on. */
const script = `
import { initialize, monitor, tensor } from '${dirname(dirname(main))}/index.js'
import { createModel } from '${dirname(dirname(main))}/nn/models/index.js'

const model = createModel({ model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 32, n_positions: 16, vocab_size: 64 })
const engine = await initialize({ model, config: { train_batch_size: 8, gradient_accumulation_steps: 2,
  optimizer: { type: 'AdamW', params: { lr: 0.003 } }, zero_optimization: { stage: 1 } } })
const { rank, size } = engine.group
const observer = new monitor.Observer({
  steps_per_print: 2, wall_clock_breakdown: true, memory_breakdown: true,
  comms_logger: { enabled: true, debug: true },
  flops_profiler: { enabled: true, profile_step: 3, output_file: 'profile.txt' },
  tensorboard: { enabled: true, output_path: 'tb', job_name: 'run' },
  csv_monitor: { enabled: true, output_path: 'csv', job_name: 'run' },
}, { rank, worldSize: size, model, sequenceLength: 16, microBatchSize: 2, accumulationSteps: 2,
  print: (text) => rank === 0 && console.log(text), warn: (text) => console.error(text) })
engine.observe = observer.wrap
const inputs = () => [tensor(new Int32Array(32), [2, 16]), tensor(new Int32Array(32).fill(1), [2, 16])]
for (let i = 0; i < 5; i++) {
  const started = performance.now()
  const result = await engine.trainBatch(inputs)
  const seconds = (performance.now() - started) / 1000
  const more = observer.onStep(result, { samples: engine.samples, stepSamples: 8, tokens: 128, seconds })
  if (rank === 0) console.log('row ' + JSON.stringify({ loss: result.loss, ...more }))
}
observer.onEvaluation(0.5, engine.samples)
await observer.close()
await engine.close()
`

t.test('all reports at once, in a loop of the user', async (t) => {
  const space = new Workspace(t)
  const { done } = space.start(['launch', '--nproc', '2', space.write('loop.mjs', script)])
  const { status, stdout, stderr } = await done
  t.equal(status, 0, stderr)
  const rows = [...stdout.matchAll(/^row (.*)$/gm)].map((match) => JSON.parse(match[1] as string))
  t.equal(rows.length, 5)
  t.ok(
    rows.every(({ mfu }) => mfu > 0 && mfu < 1),
    `MFU ${rows.map(({ mfu }) => mfu)}`,
  )
  t.equal(stdout.match(/^step [24]: time \(ms\) \| forward: \d+/gm)?.length, 2)
  t.equal(stdout.match(/^parameters +[\d.]+ KiB/gm)?.length, 2)
  // Three units: two blocks and the root.
  t.match(stdout, /^reduceScatter \[backward\] .* KiB +2 +10 /m, 'two blocks of one size, five steps')
  t.match(stdout, /^allGather \[step\] .* KiB +2 +10 /m)

  const [file] = readdirSync(space.path('tb/run'))
  const events = readEventFile(space.path(`tb/run/${file}`)).slice(1)
  const of = (name: string): { step: number; value: number | undefined }[] =>
    events.filter(({ tag }) => tag === `Train/Samples/${name}`).map(({ step, value }) => ({ step, value }))
  t.strictSame(
    of('train_loss'),
    rows.map(({ loss }, i) => ({ step: 8 * (i + 1), value: Math.fround(loss) })),
  )
  t.strictSame(
    of('lr'),
    Array.from({ length: 5 }, (_, i) => ({ step: 8 * (i + 1), value: Math.fround(0.003) })),
  )
  t.strictSame(
    of('loss_scale').map(({ value }) => value),
    [1, 1, 1, 1, 1],
  )
  t.strictSame(
    of('elapsed_time_ms_backward_inner').map(({ step }) => step),
    [16, 32],
  )
  t.match(events.at(-1), { tag: 'Validation/Samples/validation_loss', value: 0.5, step: 40 })
  const csv = readFileSync(space.path('csv/run/Train_Samples_train_loss.csv'), 'utf8')
  t.equal(csv, `step,train_loss\n${rows.map(({ loss }, i) => `${8 * (i + 1)},${loss}\n`).join('')}`)

  const profile = readFileSync(space.path('profile.txt'), 'utf8')
  t.match(profile, /^FLOPs profile of step 3/)
  const macs = 32 * (2 * 12 * 32 ** 2 + 64 * 32) + 2 * 2 * 2 * 32 * ((16 * 17) / 2)
  t.match(profile, new RegExp(`forward MACs of a micro-batch +${(macs / 1e3).toFixed(2)} KMACs`))
  t.match(profile, /^ {4}h\.1: Block /m)
  t.match(profile, /^MFU +[\d.]+ %/m)
  t.notOk(existsSync(space.path('trace-0.json')))
})

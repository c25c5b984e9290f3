// The native trace, on real streams: what is recorded, on which clock, with which FLOPs; a profiled model.

import t from 'tap'
import { backwardFrom } from '../../lib/autograd/functions.js'
import { binding } from '../../lib/binding/native.js'
import { measurePeak, modelFlops } from '../../lib/monitor/flops.js'
import { ModuleProfiler, profileReport } from '../../lib/monitor/profile.js'
import { now, trace } from '../../lib/monitor/trace.js'
import { createModel } from '../../lib/nn/models/index.js'
import { ProcessGroup } from '../../lib/parallel/group.js'
import { tidy } from '../../lib/tensor/scope.js'
import { COPY, runOp, type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'

const { native } = binding()
native.configure({ threads: 2, serial: false })
const fill = (x: Tensor, value: number, stream = 0): void => runOp('fill', [x], [], [value], stream)
const settle = (): void => native.synchronizeSync(-1)

t.test('throws for a capacity that is none', async (t) => {
  for (const capacity of [0, -1, 1.5, Number.NaN]) t.throws(() => trace.start(capacity), { code: 'ARGUMENT' })
  t.throws(() => native.traceStart(2 ** 25), { code: 'ARGUMENT' })
  t.notOk(trace.on)
})

t.test('nothing is recorded while it is off, nor what was queued before', async (t) => {
  const before = alive()
  const x = tensor([1, 2, 3])
  fill(x, 1)
  settle()
  t.equal(native.traceTake().start.length, 0)
  trace.start()
  fill(x, 2)
  settle()
  trace.stop()
  fill(x, 3)
  settle()
  t.equal(native.traceTake().start.length, 0, 'stop() forgets')
  t.equal(await trace.span('off', async () => 5), 5)
  trace.start()
  t.strictSame(trace.take().spans, [])
  trace.stop()
  x.dispose()
  t.equal(alive(), before)
})

t.test('tasks have the order, the streams and the clock of this process', async (t) => {
  const before = alive()
  const [x, y] = [tensor([1, 2, 3]), tensor([1])]
  settle()
  trace.start()
  const from = now()
  trace.span('queueing', () => {
    fill(x, 1)
    fill(y, 2, COPY)
    fill(x, 3)
  })
  const queued = now()
  settle()
  const to = now()
  const { records, spans } = trace.take()
  trace.stop()
  t.equal(records.start.length, 3)
  t.strictSame(
    [...records.name].map((name) => records.names[name]),
    ['fill', 'fill', 'fill'],
  )
  t.strictSame([...records.stream].sort(), [0, 0, 2])
  t.strictSame([...records.kind], [-1, -1, -1])
  for (let i = 0; i < 3; i++) {
    const times = [from, records.queued[i], records.start[i], records.end[i], to] as number[]
    t.strictSame(
      [...times].sort((a, b) => a - b),
      times,
      'called, queued, started, ended, seen',
    )
    t.ok((records.queued[i] as number) <= queued)
  }
  t.match(spans, [{ name: 'queueing' }])
  const [span] = spans as [(typeof spans)[0]]
  t.ok(
    records.queued.every((time) => span.start <= time && time <= span.end),
    'queued within the span',
  )
  const wall = records.wallOffset + now() / 1000
  t.ok(Math.abs(wall / 1000 - Date.now()) < 1000, 'and the wall clock is so much further')
  x.dispose()
  y.dispose()
  t.equal(alive(), before)
})

t.test('the ring keeps the newest tasks and counts the others', async (t) => {
  const x = tensor([1])
  settle()
  trace.start(4)
  for (let i = 0; i < 9; i++) fill(x, i)
  runOp('cast', [x], [x])
  settle()
  const { records } = trace.take()
  t.equal(records.dropped, 6)
  t.strictSame(
    [...records.name].map((name) => records.names[name]),
    ['fill', 'fill', 'fill', 'cast'],
  )
  t.ok(records.start.every((start, i) => i === 0 || start >= (records.end[i - 1] as number)))
  fill(x, 1)
  settle()
  const next = trace.take().records
  t.strictSame([next.start.length, next.dropped], [1, 0])
  trace.stop()
  x.dispose()
})

t.test('spans of functions that throw, and of promises', async (t) => {
  trace.start()
  t.throws(
    () =>
      trace.span('throws', () => {
        throw new Error('no')
      }),
    /no/,
  )
  await t.rejects(
    trace.span('rejects', () => Promise.reject(new Error('never'))),
    /never/,
  )
  const open = trace.span('open', () => new Promise((resolve) => setTimeout(resolve, 20)))
  t.strictSame(
    trace.take().spans.map(({ name }) => name),
    ['throws', 'rejects'],
  )
  await open
  const [{ name, start, end }] = trace.take().spans as [{ name: string; start: number; end: number }]
  t.equal(name, 'open')
  t.ok(end - start >= 19e6, `${end - start} ns`)
  trace.stop()
})

t.test('FLOPs of matrix products and of causal attention are those of their sizes', async (t) => {
  const before = alive()
  tidy(() => {
    const [b, tq, tk, hq, hkv, d] = [2, 3, 7, 4, 2, 8] as const
    const zeros = (count: number): Tensor => tensor(new Float32Array(count))
    const [q, k, v, o] = [
      zeros(b * tq * hq * d),
      zeros(b * tk * hkv * d),
      zeros(b * tk * hkv * d),
      zeros(b * tq * hq * d),
    ]
    const lse = zeros(b * hq * tq)
    const attend = (causal: number, position: number): void =>
      runOp(
        'attention_forward',
        [o, lse],
        [q, k, v],
        [
          ...[b, tq, tk, hq, hkv, d, 1, causal, position],
          ...[0, hq * d, tq * hq * d, 0, hkv * d, tk * hkv * d, 0, hkv * d, tk * hkv * d],
          ...[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, tq], // no dropout, nothing to go on from
        ],
      )
    const [x, y, z] = [zeros(2 * 5 * 6), zeros(2 * 6 * 7), zeros(2 * 5 * 7)]
    settle()
    trace.start()
    runOp('matmul', [z, undefined], [x, y, undefined, undefined, undefined], [2, 5, 7, 6, 0, 0, 0, 0])
    attend(0, 0)
    attend(1, 4) // queries at positions 4, 5, 6 see 5, 6, 7 keys
    attend(1, 0)
    settle()
    const { records } = trace.take()
    trace.stop()
    const pairs = (count: number): number => 4 * b * hq * d * count
    t.strictSame([...records.flops], [2 * 2 * 5 * 7 * 6, pairs(tq * tk), pairs(5 + 6 + 7), pairs(1 + 2 + 3)])
  })
  t.equal(alive(), before)
})

t.test('the peak is a rate that this machine may have', async (t) => {
  const before = alive()
  const peak = measurePeak({ size: 256, repeats: 2 })
  t.ok(peak > 1e8 && peak < 1e14, `${peak} FLOP/s`)
  t.equal(alive(), before)
})

const gpt2 = { model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 32, n_positions: 16, vocab_size: 96, resid_pdrop: 0 }
const llama = {
  model_type: 'llama',
  vocab_size: 64,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 16,
}

for (const config of [gpt2, llama]) {
  t.test(`${config.model_type}: a profile counts what the configuration says, module by module`, async (t) => {
    const before = alive()
    const model = createModel(config).materialize()
    const [size, length] = [3, 16]
    const ids = tensor(new Int32Array(size * length), [size, length])
    settle()
    const plain = Object.getOwnPropertyDescriptor(model, 'forward')?.value
    const profiler = new ModuleProfiler(model)
    profiler.attach()
    trace.start()
    for (let i = 0; i < 2; i++) {
      const loss = model.forward(ids, ids)
      backwardFrom(loss, 1)
      loss.dispose()
    }
    settle()
    const { records } = trace.take()
    trace.stop()
    profiler.detach()
    t.equal(Object.getOwnPropertyDescriptor(model, 'forward')?.value, plain, 'the model is as before')
    const root = profiler.profile(records)
    const expected = modelFlops({ ...model.config, ...config }, length, { causal: true })
    t.equal(2 * root.macs, size * length * (expected?.forward as number))
    const total = model.parameters().reduce((sum, { count }) => sum + count, 0)
    t.equal(root.parameters, total)
    const head = root.children.find(({ type }) => type === 'LanguageModelHead')
    t.equal(head?.macs, size * length * 32 * config.vocab_size, 'the classifier')
    const blocks = root.children[0]?.children.filter(({ type }) => type === 'Block') ?? []
    t.equal(blocks.length, 2)
    t.equal(blocks[0]?.macs, blocks[1]?.macs)
    t.ok((blocks[0]?.latency as number) > 0 && root.latency > (blocks[0]?.latency as number))
    const facts = {
      ...{ step: 1, ranks: 1, dataParallel: 1, microBatchSize: size, accumulationSteps: 1, update: 1 },
      ...{ backward: { flops: 10, time: 1 }, seconds: 1, samples: size, tokens: size * length },
    }
    const text = profileReport(root, facts, { module_depth: 1, top_modules: 2 })
    t.match(text, new RegExp(`${root.type} +`))
    t.notMatch(text, /c_fc|up_proj/, 'deeper than asked')
    t.match(profileReport(root, facts, {}), /c_fc: Conv1D|up_proj: Linear/)
    t.notMatch(profileReport(root, facts, { detailed: false }), /Conv1D +[\d.]+ K? +\d/)
    ids.dispose()
    model.dispose()
    t.equal(alive(), before)
  })
}

t.test('collectives over one rank are queued by nobody', async (t) => {
  const x = tensor([1, 2])
  settle()
  trace.start()
  ProcessGroup.single().allReduce(x)
  settle()
  t.equal(trace.take().records.start.length, 0)
  trace.stop()
  x.dispose()
})

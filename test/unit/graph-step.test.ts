// Steps as graphs, end to end on a faked CUDA device (test/native/fake) that runs the CPU's kernels late, on memory that
// the host cannot touch: a captured step does what the same step does operation by operation, to the last bit.

import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import t, { type Test } from 'tap'
import { binding } from '../../lib/binding/native.js'
import type { Engine } from '../../lib/engine/engine.js'
import { initialize } from '../../lib/engine/initialize.js'
import { trace } from '../../lib/monitor/trace.js'
import { Dropout } from '../../lib/nn/layers.js'
import { createModel } from '../../lib/nn/models/index.js'
import { dropout } from '../../lib/ops/random.js'
import { Graph } from '../../lib/tensor/graph.js'
import { empty, runOp, type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'

const backend = resolve('cmake-build/Release/libfake_cuda.so')
process.env.ZEROSHARD_CUDA = backend
const options = existsSync(backend) ? {} : { skip: 'node scripts/native-tests.mjs builds the faked device' }
if (existsSync(backend)) binding().native.configure({ threads: 1, serial: false, device: 'cuda' })

const gpt2 = {
  model_type: 'gpt2',
  n_embd: 16,
  n_layer: 2,
  n_head: 2,
  n_positions: 8,
  vocab_size: 32,
  resid_pdrop: 0.1,
  embd_pdrop: 0.1,
  attn_pdrop: 0.1,
}
type Args = [Tensor, Tensor]

const ids = (first: number, length = 8): Tensor =>
  tensor(
    Int32Array.from({ length: 2 * length }, (_, i) => (i * 7 + first * 3) % 32),
    [2, length],
  )
const batch = (first: number, length?: number): Args => [ids(first, length), ids(first + 1, length)]

const base = {
  train_micro_batch_size_per_gpu: 2,
  gradient_accumulation_steps: 2,
  gradient_clipping: 0.3,
  optimizer: { type: 'AdamW', params: { lr: 1e-2, weight_decay: 0.1 } },
  scheduler: { type: 'WarmupLR', params: { warmup_num_steps: 6, warmup_max_lr: 1e-2 } },
}

type Config = Record<string, unknown>
type Between = (engine: Engine<Args>, step: number) => Promise<unknown> | unknown

type Make = () => ReturnType<typeof createModel>

/** Everything a run gives: each step's figures, and the parameters and states at the end. */
async function run(config: Config, steps: number, between: Between = () => {}, make: Make = () => createModel(gpt2)) {
  const engine = await initialize({ model: make(), config: { ...base, ...config } })
  const figures: unknown[] = []
  for (let i = 0; i < steps; i++) {
    await between(engine as unknown as Engine<Args>, i)
    const { memory: live, memoryPeak, ...rest } = await engine.trainBatch(batch)
    figures.push(rest)
  }
  const state = await stateOf(engine as unknown as Engine<Args>)
  const { launched = 0, reason } = engine.graphs ?? {}
  await engine.close()
  return { figures, state, launched, reason }
}

async function stateOf({ access, parts }: Engine<Args>): Promise<Record<string, string>> {
  const state: Record<string, string> = {}
  for (const name of access.names())
    for (const kind of ['parameter', ...parts.zero.options.optimizer.states])
      state[`${name} ${kind}`] = Buffer.from((await access.getFull(name, kind)).buffer).toString('base64')
  return state
}

/** A run with graphs against the same without. */
async function same(t: Test, config: Config, steps: number, between?: Between, launched = steps - 1, make?: Make) {
  const before = alive()
  const eager = await run(config, steps, between, make)
  const graphs = await run({ ...config, cuda_graphs: true }, steps, between, make)
  t.equal(eager.launched, 0)
  t.equal(graphs.launched, launched, graphs.reason ?? '')
  t.strictSame(graphs.figures, eager.figures)
  t.strictSame(graphs.state, eager.state)
  t.equal(alive(), before)
  return eager
}

t.test('throws where a graph is used wrongly', options, async (t) => {
  const before = alive()
  const x = tensor([1, 2])
  const fill = (): void => runOp('fill', [x], [], () => [3])
  t.throws(() => Graph.capture(() => Graph.capture(fill)), { code: 'ARGUMENT', message: /end that first/ })
  t.throws(() => Graph.capture(() => x.dataSync()), { code: 'UNSUPPORTED', message: /read by the host/ })
  t.throws(() => Graph.capture(() => tensor([1])), { code: 'UNSUPPORTED', message: /write from the host/ })
  t.throws(() => Graph.capture(() => void x.write(Float32Array.of(1, 2))), { code: 'UNSUPPORTED' })
  const error = new Error('mine')
  t.throws(
    () =>
      Graph.capture(() => {
        throw error
      }),
    error,
  )
  t.strictSame([...x.dataSync()], [1, 2], 'nothing was done')
  const graph = Graph.capture(fill)
  t.throws(() => x.recategorize('host'), { message: /drop the graph first/ })
  graph.launch()
  t.strictSame([...x.dataSync()], [3, 3])
  graph.dispose()
  graph.dispose()
  t.throws(() => graph.launch(), { code: 'DISPOSED' })
  x.dispose()
  t.equal(alive(), before)
})

t.test('a constant is written at each launch', options, async (t) => {
  const before = alive()
  const y = empty([2])
  const graph = Graph.capture(() => {
    const x = tensor([4, 9], [2], { constant: true })
    runOp('cast', [y], [x])
    x.dispose()
  })
  for (let i = 0; i < 2; i++) {
    y.write(Float32Array.of(0, 0))
    graph.launch()
    t.strictSame([...y.dataSync()], [4, 9])
  }
  graph.dispose()
  y.dispose()
  t.equal(alive(), before)
})

t.test('a live scalar is asked for at each launch', options, async (t) => {
  const before = alive()
  const y = empty([2])
  let value = 1
  const graph = Graph.capture(() => runOp('fill', [y], [], () => [value]))
  for (value of [5, 7]) {
    graph.launch()
    t.strictSame([...y.dataSync()], [value, value])
  }
  graph.dispose()
  y.dispose()
  t.equal(alive(), before)
})

const optimizers = {
  AdamW: {},
  Lamb: {},
  Muon: { lr: 0.02 },
  Lion: {},
  Adagrad: {},
  SGD: { momentum: 0.9, dampening: 0.1 },
}
for (const [type, params] of Object.entries(optimizers)) {
  t.test(`${type}: accumulation, clipping, dropout and schedule, bit for bit`, options, async (t) => {
    const optimizer = { type, params: { lr: 1e-2, ...params } }
    await same(t, { optimizer, bf16: { enabled: type !== 'SGD' } }, 5)
  })
}

t.test('momentum that a schedule cycles, and recomputed blocks with dropout', options, async (t) => {
  const scheduler = {
    type: 'OneCycle',
    params: {
      cycle_min_lr: 1e-3,
      cycle_max_lr: 1e-2,
      cycle_first_step_size: 3,
      cycle_min_mom: 0.8,
      cycle_max_mom: 0.9,
    },
  }
  await same(t, { scheduler, activation_checkpointing: { number_checkpoints: 2 } }, 5)
})

t.test('a loss scale that overflows, is halved, and doubles again', options, async (t) => {
  const fp16 = { enabled: true, initial_scale_power: 22, hysteresis: 1, loss_scale_window: 2 }
  const { figures } = await same(t, { fp16 }, 9)
  const skipped = (figures as { skipped: boolean }[]).map((step) => step.skipped)
  t.ok(skipped.slice(1).includes(true), 'a launch overflowed')
  t.ok(skipped.includes(false))
  t.ok(new Set((figures as { lossScale: number }[]).map(({ lossScale }) => lossScale)).size > 2)
})

t.test('draws of a Dropout that is used twice, and without names; a forward by hand', options, async (t) => {
  const make: Make = () => {
    const model = createModel(gpt2)
    const { norm } = model
    const drop = Object.assign(model, { drop: new Dropout(0.2) }).drop
    const { forward } = norm
    Object.defineProperty(norm, 'forward', {
      value: (x: Tensor) => dropout(drop.forward(drop.forward(forward.call(norm, x) as Tensor)), 0.2),
    })
    return model
  }
  await same(t, { activation_checkpointing: { number_checkpoints: 2 } }, 5, undefined, 4, make)
  // Looked at before a step: that one draws as a second forward, and so is no graph.
  const look: Between = (engine, step) => {
    if (step !== 3) return
    const [x, y] = batch(1)
    for (const tensor of [engine.forward(x, y), x, y]) tensor.dispose()
  }
  await same(t, {}, 6, look, 4, make)
})

t.test('evaluations, reads and writes of states between steps', options, async (t) => {
  await same(t, {}, 6, async (engine, step) => {
    if (step % 2 === 0) await engine.evalBatch([batch(step, 5), batch(step + 1)])
    if (step !== 4) return
    const name = engine.access.names()[0] as string
    const values = await engine.access.getFull(name)
    engine.access.setFull(
      name,
      values.map((value) => value * 0.5),
    )
  })
})

t.test('a checkpoint is saved, loaded and gone on from', options, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'graph-step-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  await same(t, {}, 6, async (engine, step) => {
    if (step === 3) await engine.saveCheckpoint(folder)
    if (step === 5) await engine.loadCheckpoint(folder)
  })
})

t.test('another number of micro-batches is captured anew', options, async (t) => {
  await same(t, {}, 6, (engine, step) => {
    if (step === 3) engine.setTrainBatchSize(6)
  })
})

t.test(
  'states that were moved to the host end the graph, and with their return there is another',
  options,
  async (t) => {
    const move: Between = (engine, step) => {
      if (step === 3) engine.offloadStates(['optimizer'])
      if (step === 4) engine.reloadStates()
    }
    await same(t, {}, 6, move, 4)
  },
)

t.test('memory: what the step takes is counted as without a graph', options, async (t) => {
  const peaks = async (graphs: boolean) => {
    const engine = await initialize({ model: createModel(gpt2), config: { ...base, cuda_graphs: graphs } })
    const found = []
    for (let i = 0; i < 4; i++) {
      const { memory: live, memoryPeak } = await engine.trainBatch(batch)
      found.push({ live: live.activations, peak: memoryPeak.activations, gradients: memoryPeak.gradients })
    }
    await engine.close()
    return found
  }
  const [eager, graphs] = [await peaks(false), await peaks(true)]
  for (const [step, { gradients }] of eager.entries()) t.equal(graphs[step]?.gradients, gradients)
  t.equal(new Set(graphs.slice(1).map(({ peak }) => peak)).size, 1, 'the same at each launch')
  const inputs = 2 * 2 * 8 * 4 // of one micro-batch: at the same place for good
  t.ok(Math.abs((graphs[3]?.peak ?? 0) - (eager[3]?.peak ?? 0)) <= 2 * inputs, JSON.stringify([eager, graphs]))
})

t.test('what stands against a graph is told once, and the step is done as ever', options, async (t) => {
  const engine = await initialize({ model: createModel(gpt2), config: { ...base, cuda_graphs: true } })
  const notes: string[] = []
  engine.parts.onNote = (text) => notes.push(text)
  const graphs = engine.graphs
  await engine.trainBatch(batch)
  await engine.trainBatch(batch)
  t.equal(graphs?.launched, 1)
  for (let i = 0; i < 2; i++) await engine.trainBatch((first) => batch(first, 5))
  t.match(graphs?.reason, /shapes/)
  await engine.trainBatch(batch)
  t.equal(graphs?.launched, 2, 'with the old shapes it goes on')
  trace.start()
  for (let i = 0; i < 2; i++) await engine.trainBatch(batch)
  trace.stop()
  t.match(graphs?.reason, /timed one by one/)
  for (let i = 0; i < 2; i++) {
    const [x, y] = batch(i)
    engine.backward(engine.forward(x, y))
    await engine.step()
    for (const tensor of [x, y]) tensor.dispose()
  }
  t.match(graphs?.reason, /use trainBatch/)
  t.equal(graphs?.launched, 2)
  t.equal(notes.length, 3, notes.join('\n'))
  await engine.close()
})

t.test('a model that reads in its forward is trained without a graph', options, async (t) => {
  const model = createModel(gpt2)
  const { forward } = model
  Object.defineProperty(model, 'forward', {
    value: (x: Tensor, y: Tensor) => {
      x.dataSync()
      return forward.call(model, x, y)
    },
  })
  const engine = await initialize({ model, config: { ...base, cuda_graphs: true } })
  const losses = []
  for (let i = 0; i < 4; i++) losses.push((await engine.trainBatch(batch)).loss)
  t.equal(engine.graphs?.launched, 0)
  t.match(engine.graphs?.reason, /a read by the host cannot be part/)
  await engine.close()
  const { figures } = await run({}, 4)
  t.strictSame(
    losses,
    (figures as { loss: number }[]).map(({ loss }) => loss),
  )
})

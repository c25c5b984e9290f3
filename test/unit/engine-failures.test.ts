// What fails in a training step is given up as a whole: the engine goes on as if that step had never been begun. What
// comes too early, too late or twice is refused.

import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { backwardFrom, customFunction } from '../../lib/autograd/functions.js'
import type { Engine } from '../../lib/engine/engine.js'
import { initialize } from '../../lib/engine/initialize.js'
import { Embedding, Linear } from '../../lib/nn/layers.js'
import { Module } from '../../lib/nn/module.js'
import * as ops from '../../lib/ops/index.js'
import { RunAhead } from '../../lib/tensor/run-ahead.js'
import { tidy } from '../../lib/tensor/scope.js'
import { type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'

type Args = [Tensor, Tensor]

/** A model whose backward fails between its layers where `fails` is set, and whose kernels fail where an id is 99. */
class Net extends Module {
  readonly embedding = new Embedding(8, 16)
  readonly first = new Linear(16, 16)
  readonly second = new Linear(16, 16)
  fails = false
  forward(ids: Tensor, y: Tensor): Tensor {
    const rows = this.embedding.forward(tensor(Int32Array.of(0, 1, 2, 3, 4, 5, 6, 7), [8]))
    const x = ops.gather(this.first.forward(rows), ids)
    const broken = customFunction(
      'broken',
      [x],
      () => x.view(x.shape),
      ([dy]) => {
        if (this.fails) throw new Error('no memory for the gradient')
        return [dy?.view(dy.shape)]
      },
    )
    return ops.meanSquaredError(ops.cast(this.second.forward(ops.gelu(broken)), 'f32'), y)
  }
}
const config = {
  train_micro_batch_size_per_gpu: 2,
  gradient_accumulation_steps: 3,
  optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
}
const layouts: Record<string, Record<string, unknown>> = {
  'stage 0': { zero_optimization: { stage: 0 } },
  'stage 1, f16': { zero_optimization: { stage: 1 }, fp16: { enabled: true, initial_scale_power: 8 } },
  'stage 3, parameters on the host': {
    zero_optimization: { stage: 3, stage3_param_persistence_threshold: 0, offload_param: { device: 'cpu' } },
  },
  fp8: { bf16: { enabled: true }, fp8: { enabled: true } },
}

function batch(first: number, id = first % 8): Args {
  const ids = tensor(Int32Array.of(id, (first + 3) % 8), [2])
  const y = tensor(
    Float32Array.from({ length: 32 }, (_, i) => Math.sin(i + first)),
    [2, 16],
  )
  return [ids, y]
}

type Figures = Record<string, unknown>

async function figuresOf(engine: Engine<Args>): Promise<Figures> {
  const { memory, memoryPeak, ...figures } = await engine.trainBatch(batch)
  return figures
}

/** Three steps, and before the second and the third what `between` does: all that a run gives. */
async function run(more: Record<string, unknown>, between: (engine: Engine<Args>, net: Net) => unknown = () => {}) {
  const net = new Net()
  const engine = (await initialize({ model: net, config: { ...config, ...more } })) as Engine<Args>
  const figures = [await figuresOf(engine)]
  for (let step = 1; step < 3; step++) {
    await between(engine, net)
    figures.push(await figuresOf(engine))
  }
  const values: Figures = {}
  for (const name of engine.access.names()) values[name] = [...(await engine.access.getFull(name))]
  await engine.close()
  return { figures, values }
}

/** Keeps the stream at work, so that what is queued next is not done at once. */
const busy = (): void => {
  const x = tensor(new Float32Array(2 ** 20), [1024, 1024])
  tidy(() => ops.sum(ops.matmul(x, x))).dispose()
  x.dispose()
}

/** One micro-batch by hand. */
function micro(engine: Engine<Args>, id?: number): Tensor {
  const inputs = batch(engine.nextSample, id)
  const loss = engine.forward(...inputs)
  for (const input of inputs) input.dispose()
  return loss
}

async function failsWith(t: Test, work: () => unknown, expected: object): Promise<void> {
  try {
    await work()
    t.fail('nothing was thrown')
  } catch (error) {
    t.match(error, expected)
  }
}

const broken = /no memory for the gradient/
const ways: Record<string, (t: Test, engine: Engine<Args>, net: Net) => Promise<void>> = {
  'trainBatch, in the backward of the second micro-batch': async (t, engine, net) => {
    let numBatches = 0
    const next = (first: number): Args => {
      net.fails = numBatches++ === 1
      return batch(first)
    }
    await failsWith(t, () => engine.trainBatch(next), { message: broken })
  },
  'trainBatch, where the third batch cannot be read': async (t, engine) => {
    let numBatches = 0
    const next = (first: number): Args => {
      if (numBatches++ === 2) throw new Error('the file ends')
      return batch(first)
    }
    await failsWith(t, () => engine.trainBatch(next), { message: /the file ends/ })
  },
  'trainBatch, in a kernel of the first micro-batch': async (t, engine) => {
    let numBatches = 0
    await failsWith(t, () => engine.trainBatch((first) => batch(first, numBatches++ ? first % 8 : 99)), {
      message: /99/,
    })
  },
  'trainBatch, in a kernel of the last micro-batch': async (t, engine) => {
    let numBatches = 0
    await failsWith(t, () => engine.trainBatch((first) => batch(first, numBatches++ === 2 ? 99 : first % 8)), {
      message: /99/,
    })
  },
  'backward() of the second micro-batch': async (t, engine, net) => {
    engine.backward(micro(engine))
    await engine.step()
    const loss = micro(engine)
    net.fails = true
    t.throws(() => engine.backward(loss), { message: broken })
    t.ok(loss.disposed)
    await failsWith(t, () => engine.step(), { code: 'AUTOGRAD', message: broken })
    t.equal(engine.nextSample, engine.samples, 'the next micro-batch is the first of the step')
  },
  'a kernel of the second micro-batch, which is known when the last one is queued': async (t, engine) => {
    engine.backward(micro(engine))
    await engine.step()
    busy()
    engine.backward(micro(engine, 99))
    const rest = async (): Promise<void> => {
      await engine.step() // too early for it, unless the machine is very busy
      await sleep(100)
      engine.backward(micro(engine))
      await engine.step()
    }
    await failsWith(t, rest, { message: /99/ })
  },
  'a kernel of forward(), before a backward() that fails': async (t, engine, net) => {
    const loss = micro(engine, 99)
    net.fails = true
    t.throws(() => engine.backward(loss), { message: broken })
  },
  "a backward of the user's own": async (t, engine, net) => {
    engine.backward(micro(engine))
    await engine.step()
    net.fails = true
    const loss = micro(engine)
    const scaled = engine.scale(loss)
    t.throws(() => backwardFrom(scaled), { message: broken })
    for (const one of [loss, scaled]) one.dispose()
    await failsWith(t, () => engine.step(), { code: 'AUTOGRAD', message: broken })
  },
  'backward() in noSync()': async (t, engine, net) => {
    if (engine.parts.stage > 1) return
    engine.noSync(() => {
      engine.backward(micro(engine))
      const loss = micro(engine)
      net.fails = true
      t.throws(() => engine.backward(loss), { message: broken })
    })
  },
}

for (const [layout, more] of Object.entries(layouts)) {
  t.test(`${layout}: a step that failed is as if it had never been begun`, async (t) => {
    const before = alive()
    const expected = await run(more)
    for (const [way, fail] of Object.entries(ways)) {
      const found = await run(more, async (engine, net) => {
        await fail(t, engine, net)
        net.fails = false
      })
      t.strictSame(found, expected, way)
      t.equal(alive(), before, `${way}: nothing is left`)
    }
  })
}

t.test('what is refused before anything was done costs nothing', async (t) => {
  const expected = await run(layouts['stage 0'] as Figures)
  const net = new Net()
  const engine = (await initialize({ model: net, config: { ...config, ...layouts['stage 0'] } })) as Engine<Args>
  const figures = [await figuresOf(engine)]
  await failsWith(t, () => engine.step(), { code: 'AUTOGRAD', message: '[step] needs a backward() first' })
  for (let i = 0; i < 3; i++) {
    const loss = micro(engine)
    const two = ops.concat([loss.view([1]), loss.view([1])], 0)
    t.throws(() => engine.backward(two), { code: 'AUTOGRAD', message: /needs a scalar loss/ })
    t.throws(() => engine.scale(two), { code: 'AUTOGRAD', message: /needs a scalar loss/ })
    engine.backward(loss)
    const again = micro(engine)
    t.throws(() => engine.backward(again), { code: 'AUTOGRAD', message: /called twice/ })
    await failsWith(t, () => engine.trainBatch(batch), { code: 'AUTOGRAD', message: /call step\(\) first/ })
    for (const one of [again, two]) one.dispose()
    const { memory, memoryPeak, ...told } = (await engine.step()) ?? { memory: 0, memoryPeak: 0 }
    if (i === 2) figures.push(told as Figures)
  }
  t.strictSame(figures, expected.figures.slice(0, 2))
  await engine.close()
})

t.test('a boundary is set before the backward that it is for', async (t) => {
  const engine = (await initialize({ model: new Net(), config })) as Engine<Args>
  const refused = (boundary: boolean | undefined, words: RegExp): void =>
    t.throws(() => engine.setGradientAccumulationBoundary(boundary), { code: 'AUTOGRAD', message: words }) as never
  engine.backward(micro(engine))
  refused(true, /true between.*was not the last before an update; call it before backward\(\)/)
  t.equal(await engine.step(), undefined)
  engine.setGradientAccumulationBoundary(true)
  const loss = micro(engine)
  const scaled = engine.scale(loss)
  backwardFrom(scaled)
  refused(false, /false between.*was the last before an update/)
  refused(undefined, /undefined between/)
  for (const one of [loss, scaled]) one.dispose()
  t.equal((await engine.step())?.step, 1)
  engine.setGradientAccumulationBoundary(undefined)
  t.equal((await engine.trainBatch(batch)).step, 2)
  engine.noSync(() => {
    engine.backward(micro(engine))
    engine.setGradientAccumulationBoundary(true) // no step() follows that backward
  })
  engine.backward(micro(engine))
  t.equal((await engine.step())?.step, 3)
  await engine.close()
})

t.test('noSync() is synchronous', async (t) => {
  const engine = (await initialize({ model: new Net(), config })) as Engine<Args>
  const asynchronous = async (): Promise<void> => {}
  t.throws(() => engine.noSync(asynchronous), { code: 'ARGUMENT', message: /asynchronous.*await outside of noSync/ })
  t.equal(
    engine.noSync(() => 7),
    7,
  )
  t.equal((await engine.trainBatch(batch)).step, 1)
  await engine.close()
})

t.test('two engines and one loss: where the backward fails, both give up, whoever leads', async (t) => {
  const before = alive()
  class Half extends Module {
    readonly line = new Linear(4, 4)
    forward(x: Tensor): Tensor {
      return this.line.forward(x)
    }
  }
  const make = (): Promise<Engine<[Tensor]>> =>
    initialize({ model: new Half(), config: { ...config, gradient_accumulation_steps: 2 } })
  const engines = [await make(), await make()] as const
  const [a, b] = engines
  const x = tensor(new Float32Array(8).fill(1), [2, 4])
  const together = (leader: Engine<[Tensor]>, fails = false): void => {
    const first = a.forward(x)
    const between = customFunction(
      'between',
      [first],
      () => first.view(first.shape),
      ([dy]) => {
        if (fails) throw new Error('no memory for the gradient')
        return [dy?.view(dy.shape)]
      },
    )
    const second = b.forward(between)
    const loss = ops.mean(second)
    try {
      leader.backward(loss)
    } finally {
      for (const one of [first, between, second]) one.dispose()
    }
  }
  /** The norms of a step from fixed parameters; `disturb` comes after its first micro-batch, which is then done again. */
  const norms = async (disturb?: () => Promise<void>): Promise<unknown[]> => {
    for (const { access } of engines)
      for (const name of access.names()) access.setFull(name, (await access.getFull(name)).fill(0.25))
    for (let micro = 0, told: unknown[] = []; ; micro++) {
      together(a)
      for (const engine of engines) told.push((await engine.step())?.gradNorm)
      if (micro === 0 && disturb) {
        await disturb()
        disturb = undefined
        told = []
        micro--
      } else if (micro === 1) return told
    }
  }
  const expected = await norms()
  for (const leader of engines) {
    const found = await norms(async () => {
      t.throws(() => together(leader, true), { message: broken })
      for (const engine of engines) await failsWith(t, () => engine.step(), { code: 'AUTOGRAD', message: broken })
    })
    t.strictSame(found, expected)
  }
  for (const engine of engines) await engine.close()
  x.dispose()
  t.equal(alive(), before)
})

t.test('RunAhead tells of each failure once', async (t) => {
  const ahead = new RunAhead(3)
  const fail = (): void => {
    busy()
    tidy(() => ops.sum(ops.gather(tensor([1, 2]), tensor(Int32Array.of(99))))).dispose()
  }
  fail()
  const four = async (): Promise<void> => {
    for (let i = 0; i < 4; i++) await ahead.queued()
  }
  await failsWith(t, four, { message: /99/ })
  t.notOk(ahead.failed)
  for (let i = 0; i < 6; i++) await ahead.queued()
  await ahead.settled()
  fail()
  await ahead.queued()
  ahead.abandon()
  for (let i = 0; i < 6; i++) await ahead.queued()
  await ahead.settled()
})
